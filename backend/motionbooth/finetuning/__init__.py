"""Fine-tuning a base model on a few pictures of a subject (paper, section 3.2)."""
