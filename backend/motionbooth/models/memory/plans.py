"""Memory plans as data, from the fastest to the smallest. Imports no torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from motionbooth_protocol.errors import InvalidInput
from motionbooth_protocol.text import Text


@dataclass(frozen=True)
class Plan:
    """Where the parts of a base model are, and in what pieces they compute."""

    name: str
    summary: str
    """For people, as the end of "on this card: ..."."""
    text: Literal["device", "visit", "cpu"] = "device"
    """The text encoder stays on the device, comes for each prompt, or computes on the CPU."""
    vae_visits: bool = False
    """The autoencoder comes while it encodes or decodes."""
    in_turn: bool = False
    """The two passes of classifier-free guidance run one after the other. A transformer's always do."""
    tiled: bool = False
    """The autoencoder works tile by tile and frame by frame. The blended edges of the tiles change a clip a little."""
    layers_visit: bool = False
    """Each layer of the network comes when it is its turn."""
    quantized: bool = False
    """The weights of the network's layers are in 8 bits, which changes a clip. It waits until `quantize` brings it."""

    def waiting(self, networks: Sequence[str]) -> set[str]:
        """The folders' names of the parts that wait in main memory. `networks`: those of the networks."""
        found = {"text_encoder"} if self.text != "device" else set()
        found |= {"vae"} if self.vae_visits else set()
        return found | set(networks) if self.layers_visit or self.quantized else found


ALL = Plan("all", "all parts stay on the card")
PARKED = Plan("parked", "the text encoder comes for each prompt only", text="visit")
CHUNKED = Plan(
    "chunked",
    "the text encoder runs on the CPU, guidance takes two passes, and frames are decoded in tiles",
    text="cpu",
    in_turn=True,
    tiled=True,
)
OFFLOADED = Plan(
    "offloaded",
    "as chunked, and the network's layers come from main memory one by one",
    text="cpu",
    vae_visits=True,
    in_turn=True,
    tiled=True,
    layers_visit=True,
)
QUANTIZED = replace(
    CHUNKED, name="quantized", summary="as chunked, and the network's weights are in 8 bits", quantized=True
)
"""Only for those who ask for it, because the clip changes."""
PLANS = (ALL, PARKED, CHUNKED, OFFLOADED)
"""From the fastest to the smallest; each does all that the one before does."""


def plan_named(name: str) -> Plan:
    """Raises InvalidInput."""
    plans = (*PLANS, QUANTIZED)
    for plan in plans:
        if plan.name == name:
            return plan
    raise InvalidInput(
        "There is no memory plan {name}, only: {plans}.", name=name, plans=", ".join(plan.name for plan in plans)
    )


def smaller_plan(plan: Plan, device: str) -> Plan | None:
    """The next plan of a device; None after the smallest.

    On the CPU, where all parts are in main memory anyway, only work in smaller pieces saves memory.
    """
    if device == "cpu":
        return CHUNKED if plan in (ALL, PARKED) else None
    later = (OFFLOADED,) if plan == QUANTIZED else PLANS[PLANS.index(plan) + 1 :]
    return later[0] if later else None


def retry_note(before: str, now: str) -> Text:
    """For the user of a job that ran out of memory and is tried once more: the names of both plans."""
    return Text.of(
        "the memory did not suffice with the plan {before}; trying once more with the plan {now}",
        before=before,
        now=now,
    )


def is_out_of_memory(error: BaseException) -> bool:
    """Python's MemoryError, torch.OutOfMemoryError, or RuntimeErrors: CUDA's and cuBLAS's own, or of torch's allocators
    for MPS and CPU.
    """
    words = str(error)
    return (
        isinstance(error, MemoryError)
        or type(error).__name__ == "OutOfMemoryError"
        or "MPS backend out of memory" in words
        or "error: out of memory" in words
        or "CUBLAS_STATUS_ALLOC_FAILED" in words
        or "can't allocate memory" in words
        or "not enough memory" in words
    )
