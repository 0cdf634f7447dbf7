"""LaVie's UNet, which diffusers does not have, and the converter of its published checkpoint."""
