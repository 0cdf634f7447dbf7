"""LaVie's UNet, which diffusers does not have, and the conversion of its published checkpoint."""
