"""Base models and trained subjects: their settings, their files, and loading them."""

import logging

# Where torchao is installed, diffusers imports it, and both say about themselves what helps no user of this program.
for _name in ("diffusers.quantizers.torchao.torchao_quantizer", "torch.utils._pytree"):
    logging.getLogger(_name).setLevel(logging.ERROR)
