"""Which weights of a base a training changes."""

from __future__ import annotations

import re

from motionbooth_protocol.errors import InvalidInput

from motionbooth.finetuning.gradient_checkpointing import enable_gradient_checkpointing
from motionbooth.models.base import Base
from motionbooth.models.settings import TrainSettings
from motionbooth.models.subject_weights import add_lora


def set_trainable(base: Base, settings: TrainSettings, method: str, seed: int) -> None:
    """Choose the weights that are trained, and enable gradient checkpointing if the settings ask for it.

    Raises InvalidInput if the settings choose none, or not by a regular expression.
    """
    pattern = settings.target_modules if method == "lora" else settings.trainable
    try:
        re.compile(pattern)
        if method == "lora":
            add_lora(base.network, settings.rank, pattern, seed)
        else:
            for name, parameter in base.network.named_parameters():
                parameter.requires_grad_(re.fullmatch(pattern, name) is not None)
    except (re.error, ValueError) as error:
        raise InvalidInput(
            'The weights to train cannot be chosen by "{pattern}": {problem}.', pattern=pattern, problem=error
        ) from error
    if not any(parameter.requires_grad for parameter in base.network.parameters()):
        raise InvalidInput('No weights of {model} match "{pattern}".', model=base.settings.title, pattern=pattern)
    for parameter in base.network.parameters():
        if parameter.requires_grad and parameter.dtype.itemsize < 4:
            parameter.data = parameter.data.float()  # half precision would lose steps of the size that training takes
    if settings.gradient_checkpointing:
        enable_gradient_checkpointing(base.network, base.control)
