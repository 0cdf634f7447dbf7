"""What a user chooses about the device, for a command or, in the environment, for the workers of a backend."""

from __future__ import annotations

import os
from collections.abc import Mapping
from importlib.util import find_spec
from typing import Literal

import msgspec
from motionbooth_protocol.errors import InvalidInput
from motionbooth_protocol.wording import in_words

Device = Literal["auto", "cpu", "cuda", "xpu", "mps"]
Memory = Literal["auto", "all", "parked", "chunked", "offloaded", "quantized"]
TrainingMemory = Literal["auto", "all", "parked", "checkpointed", "half", "8bit", "quantized"]
Precision = Literal["auto", "float32", "float16", "bfloat16"]
Attention = Literal["auto", "sdpa", "flash", "sage"]
_PREFIX = "MOTIONBOOTH_"
_PACKAGES = {"flash": "flash_attn", "sage": "sageattention"}


class Computing(msgspec.Struct, frozen=True):
    """How a base model computes."""

    device: Device = "auto"
    """By torch's names; cuda is also ROCm's. "auto": the accelerator if there is one, but a Mac's only if asked for."""
    memory: Memory = "auto"
    """A plan of memory/plans.py. "auto": the fastest that fits the card's free memory."""
    precision: Precision = "auto"
    """Of the weights in generating. "auto": half on an accelerator, float32 on a CPU."""
    attention: Attention = "auto"
    """The kernel of attention without a mask. "auto" and "sdpa": torch's own."""
    compile: bool = False
    """Compile the network's layers with torch.compile."""

    @classmethod
    def of_this_machine(cls, environment: Mapping[str, str] = os.environ) -> Computing:
        """As set in the environment: MOTIONBOOTH_MEMORY=chunked, and so on. Raises InvalidInput."""
        found = {name: value for name in cls.__struct_fields__ if (value := environment.get(_PREFIX + name.upper()))}
        try:
            return msgspec.convert(found, cls, strict=False)
        except msgspec.ValidationError as error:
            raise InvalidInput(
                "The environment's MOTIONBOOTH_ variables cannot be used: {problem}.", problem=in_words(error)
            ) from error

    @property
    def environment(self) -> dict[str, str]:
        """The variables by which a worker has the same; a default leaves what the environment says."""
        chosen = {name: value for name, value in msgspec.structs.asdict(self).items() if value not in ("auto", False)}
        return {_PREFIX + name.upper(): str(value).lower() for name, value in chosen.items()}

    def check(self) -> None:
        """Raises InvalidInput if what was chosen is not installed, or excludes each other."""
        package = _PACKAGES.get(self.attention)
        if package is not None and find_spec(package) is None:
            raise InvalidInput(
                "--attention {kind} needs the package {package}, which is not installed. Install it, or leave the "
                "option out: torch chooses a fast kernel by itself.",
                kind=self.attention,
                package=package,
            )
        if self.compile and self.memory in ("offloaded", "quantized"):
            raise InvalidInput(
                "--compile and the memory plan {plan} exclude each other: leave one of them out.",
                code="exclusive",
                plan=self.memory,
            )
        if self.memory == "quantized":
            check_can_quantize()


def can_quantize() -> bool:
    """Whether torchao is installed."""
    return find_spec("torchao") is not None


def check_can_quantize() -> None:
    """Raises InvalidInput if torchao is not installed."""
    if not can_quantize():
        raise InvalidInput(
            "The memory plan quantized needs the package torchao, which is not installed: "
            "pip install 'motionbooth[quantize]'"
        )
