"""LaVie's UNet against recordings of the authors' network, and against the names of its published checkpoint."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from motionbooth.control.boxes import AttentionControl, BoxControl
from motionbooth.control.prompt import PromptTokens
from motionbooth.finetuning.gradient_checkpointing import enable_gradient_checkpointing
from motionbooth.finetuning.losses import subject_attention
from motionbooth.models.lavie.blocks import position_bucket
from motionbooth.models.lavie.unet import LaVieUNet
from motionbooth_protocol.motion import Box
from rounding import assert_equal_but_for_the_time_embedding
from safetensors.torch import load_file

pytestmark = pytest.mark.numeric

GOLDEN = Path(__file__).parents[3] / "golden"
TINY = GOLDEN / "lavie_tiny_a"
CASES = ["video_b1_f5", "video_b2_f3", "image_b2_f1", "odd_size_b1_f2", "scalar_t_b1_f2"]


def tiny_lavie() -> LaVieUNet:
    return LaVieUNet(
        block_out_channels=(32, 64),
        layers_per_block=1,
        cross_attention_dim=16,
        attention_head_dim=(1, 2),
        norm_num_groups=8,
    )


@pytest.fixture(scope="module")
def unet() -> LaVieUNet:
    unet = tiny_lavie()
    unet.load_state_dict(load_file(TINY / "diffusion_pytorch_model.safetensors"))
    return unet.double().eval()


@pytest.fixture(scope="module")
def recorded() -> dict[str, np.ndarray]:
    with np.load(TINY / "io.npz") as arrays:
        return dict(arrays)


def answer(unet: LaVieUNet, recorded: dict[str, np.ndarray], case: str) -> torch.Tensor:
    sample, time, text = (
        torch.from_numpy(np.asarray(recorded[f"{case}/{name}"]))
        for name in ("sample", "timestep", "encoder_hidden_states")
    )
    with torch.no_grad():
        return unet(sample.double(), time, text.double()).sample


@pytest.mark.parametrize("case", CASES)
def test_the_network_is_the_authors(unet: LaVieUNet, recorded: dict[str, np.ndarray], case: str) -> None:
    expected = torch.from_numpy(recorded[f"{case}/out_f64"])
    assert_equal_but_for_the_time_embedding(answer(unet, recorded, case), expected)


def test_full_size_has_every_parameter_of_the_published_checkpoint_and_no_other() -> None:
    expected = json.loads((GOLDEN / "lavie_real_state_dict.json").read_text())["keys"]
    with torch.device("meta"):
        names = {name: list(tensor.shape) for name, tensor in LaVieUNet().state_dict().items()}
    assert names == expected


def test_boxes_edit_its_text_attention_as_the_authors_do(recorded: dict[str, np.ndarray]) -> None:
    how: dict[str, Any] = json.loads((TINY / "io.json").read_text())["edit"]
    unet = tiny_lavie()
    unet.load_state_dict(load_file(TINY / "diffusion_pytorch_model.safetensors"))
    control = AttentionControl.install(unet.double().eval())
    tracks = np.asarray(recorded["edit/bbox"]) / how["image_width"]  # (F, subjects, 4), a square frame
    boxes = [[Box(*map(float, frame)) for frame in track] for track in np.moveaxis(tracks, 1, 0)]
    tokens = PromptTokens(
        length=recorded[f"{how['input']}/encoder_hidden_states"].shape[1],
        content=range(1, how["prompt_length"] - 1),
        subjects=tuple(map(tuple, how["phrase_indices"])),
        background=tuple(how["bg_phrase_indices"]),
    )
    height, width = recorded[f"{how['input']}/sample"].shape[-2:]
    control.set_boxes([BoxControl(boxes, tokens, how["edit_scale"], how["is_amp"])], (height, width), how["num_frames"])
    assert_equal_but_for_the_time_embedding(
        answer(unet, recorded, how["input"]), torch.from_numpy(recorded["edit/out_f64"])
    )


def test_a_subjects_attention_is_seen_as_the_authors_see_it(recorded: dict[str, np.ndarray]) -> None:
    how: dict[str, Any] = json.loads((TINY / "io.json").read_text())["store"]
    unet = tiny_lavie()
    unet.load_state_dict(load_file(TINY / "diffusion_pytorch_model.safetensors"))
    control = AttentionControl.install(unet.double().eval())
    control.record(how["phrase_indices"], (8, 8))
    answer(unet, recorded, how["input"])
    layers = control.stop_recording()
    assert len(layers) == how["n_maps"]
    seen = subject_attention(layers, "mean").reshape(recorded["store/aggregate"].shape)
    assert_equal_but_for_the_time_embedding(seen, torch.from_numpy(recorded["store/aggregate"]))


def test_near_offsets_have_buckets_of_their_own_and_directions_differ() -> None:
    offsets = torch.arange(-40, 41)
    buckets = dict(zip(offsets.tolist(), position_bucket(offsets).tolist(), strict=True))
    assert [buckets[-i] for i in range(8)] == list(range(8))
    assert [buckets[i] for i in range(1, 8)] == [16 + i for i in range(1, 8)]
    assert buckets[-40] == 15
    assert buckets[40] == 31


def test_layers_that_compute_twice_give_the_same_gradients(recorded: dict[str, np.ndarray]) -> None:
    def gradients(twice: bool) -> list[torch.Tensor]:
        unet = tiny_lavie()
        unet.load_state_dict(load_file(TINY / "diffusion_pytorch_model.safetensors"))
        control = AttentionControl.install(unet.eval())
        if twice:
            enable_gradient_checkpointing(unet, control)
        sample, text = (
            torch.from_numpy(recorded[f"video_b1_f5/{name}"]).float() for name in ("sample", "encoder_hidden_states")
        )
        unet(sample, 500, text).sample.square().mean().backward()
        return [parameter.grad for parameter in unet.parameters() if parameter.grad is not None]

    once, again = gradients(False), gradients(True)
    assert len(once) == len(again) > 100
    assert all(torch.equal(a, b) for a, b in zip(once, again, strict=True))
