"""--compile: layers that torch has traced make the same controlled clip."""

from __future__ import annotations

import pytest
import torch
from motionbooth.bench.gpu.precision import pan_spec
from motionbooth.generation.sampling import generate_clip
from motionbooth.models.memory.loading import compile_layers, load_planned
from motionbooth.models.memory.options import Computing
from motionbooth.models.sources import Source
from msgspec.structs import replace


@pytest.mark.slow
def test_traced_layers_make_the_same_clip(wan_source: Source) -> None:
    """Traced and run by torch without a compiler, which not every machine has."""
    spec = replace(pan_spec(wan_source.settings), num_inference_steps=2)
    plain, traced = (load_planned(wan_source, Computing("cpu")) for _ in range(2))
    compile_layers(traced, backend="eager")
    assert torch.equal(generate_clip(traced, spec), generate_clip(plain, spec))
