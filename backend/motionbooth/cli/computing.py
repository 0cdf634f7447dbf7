"""The options of commands that compute, see models/memory/options.py."""

from __future__ import annotations

from typing import Annotated

import typer

from motionbooth.models.memory.options import Attention, Device, Memory, Precision, TrainingMemory

DeviceOption = Annotated[
    Device, typer.Option(help="Device, by torch's names. cuda is also AMD's ROCm. auto is never mps.")
]
MemoryOption = Annotated[
    Memory,
    typer.Option(help="Memory plan. auto: the fastest that fits the GPU, but never quantized, which changes the clip."),
]
TrainingMemoryOption = Annotated[
    TrainingMemory, typer.Option(help="Memory plan of the training. auto: the fastest that fits the GPU.")
]
PrecisionOption = Annotated[
    Precision, typer.Option(help="Precision of the weights. auto: half on a GPU, float32 on a CPU.")
]
AttentionOption = Annotated[
    Attention, typer.Option(help="Kernel of Wan's self-attention. flash and sage need their packages.")
]
CompileOption = Annotated[bool, typer.Option("--compile", help="Compile the network's layers with torch.compile.")]
