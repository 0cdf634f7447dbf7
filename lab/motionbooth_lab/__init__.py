"""How the bundled model is trained and the product is measured. In a checkout only: no wheel has it."""
