"""Training on Wan: flow matching, pictures as clips of one frame, and a LoRA that plain diffusers loads."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import platformdirs
import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler, WanPipeline, WanTransformer3DModel
from motionbooth.finetuning.dataset import TrainingData, encode_training_data
from motionbooth.finetuning.finetune import TrainingOptions, finetune, preserved_clips, validation_sample
from motionbooth.finetuning.losses import mask_cells
from motionbooth.finetuning.prior_preservation import prior_clips
from motionbooth.finetuning.recipes import with_recipe
from motionbooth.finetuning.trainable import set_trainable
from motionbooth.finetuning.trainer import Trainer, clip_loss, image_loss
from motionbooth.models.base import Base
from motionbooth.models.memory.options import can_quantize
from motionbooth.models.parts import read_json
from motionbooth.models.registry import load_base
from motionbooth.models.sources import Source, source_named
from motionbooth.models.subject_weights import load_subject
from motionbooth.models.wan.base import WanBase
from motionbooth.pictures.images import TrainingPicture
from motionbooth.progress import stages
from motionbooth.progress.time_left import Stage
from motionbooth_protocol.jobs import Picture, SubjectSpec, TrainSpec
from motionbooth_protocol.text import Text
from PIL import Image
from safetensors.torch import load_file
from tiny_wan import SAMPLERS
from torch import Tensor

pytestmark = pytest.mark.numeric

SUBJECT = SubjectSpec("Rex", "sks", "dog", [Picture("0" * 64, "1" * 64)])


class Silent:
    def plan(self, stages: Sequence[Stage]) -> None:
        pass

    def progress(self, stage: str, step: int, steps: int, note: Text | None = None) -> None:
        pass


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platformdirs, "user_cache_path", lambda name: tmp_path / "cache" / name)


def picture(seed: int) -> TrainingPicture:
    rng = np.random.default_rng(seed)
    mask = np.zeros((48, 64), np.float32)
    mask[12:36, 16:40] = 1
    return TrainingPicture(rng.integers(0, 256, (48, 64, 3), np.uint8), mask)


def training_data(base: Base) -> TrainingData:
    clips = torch.randn(2, *base.of_length(5).latent_shape, generator=torch.Generator().manual_seed(0))
    return encode_training_data(base, SUBJECT, [picture(1), picture(2)], clips, ["a red cat", "the snow"])


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_times_of_training_are_as_dense_as_the_samplers(wan: Base, sampler: str) -> None:
    wan.scheduler = SAMPLERS[sampler]()
    times = wan.random_times(20_000, torch.Generator().manual_seed(0))
    shares = torch.tensor([0.1, 0.25, 0.5, 0.75, 0.9])
    euler = FlowMatchEulerDiscreteScheduler(shift=3.0)
    euler.set_timesteps(1000)
    # The median of 20,000 draws scatters by 0.5 / sqrt(20,000) = 0.0035 in its share; the slope is 3 at most.
    expected = euler.timesteps.double().quantile(shares.double())
    torch.testing.assert_close(times.double().quantile(shares.double()), expected, rtol=0, atol=5 * 0.0035 * 3 * 1000)
    assert 0 < times.min() < times.max() <= 1000


def test_a_batch_is_of_one_expert_and_all_batches_together_of_both(wan22_source: Source) -> None:
    base = load_base(wan22_source, device="cpu")
    generator = torch.Generator().manual_seed(0)
    high = torch.stack([base.random_times(3, generator) >= 875 for _ in range(2000)])
    assert (high == high[:, :1]).all()
    # Noise above 0.875 before a shift of 3: 1 - 0.875 / (3 - 2 * 0.875) = 0.3 of the times; 2000 draws scatter by 0.01.
    assert high.double().mean().item() == pytest.approx(0.3, abs=0.05)


def test_noise_and_target_are_those_of_diffusers_flow(wan: Base) -> None:
    generator = torch.Generator().manual_seed(0)
    latents, noise = torch.randn(2, 3, *wan.latent_shape, generator=generator)
    euler = FlowMatchEulerDiscreteScheduler(shift=3.0)
    times = euler.timesteps[[100, 600, 900]]
    noisy = wan.add_noise(latents, noise, times)
    # Three products and sums of numbers below 8, each rounded by 2**-24.
    torch.testing.assert_close(noisy.sample, euler.scale_noise(latents, times, noise), rtol=0, atol=2.0**-19)
    # One step of diffusers' sampler along the target, from the noise to the end, is the clean latents.
    euler.set_timesteps(1)
    torch.testing.assert_close(euler.step(noisy.target, euler.timesteps[0], noise).prev_sample, latents)


def test_a_picture_is_a_clip_of_one_frame_and_trains_on_the_subjects_cells(wan: Base) -> None:
    data = training_data(wan)
    assert data.mean.shape == (2, 16, 1, 6, 8)
    noisy = wan.add_noise(data.mean, torch.randn(data.mean.shape), torch.tensor([300.0, 700.0]))
    settings = msgspec.structs.replace(wan.settings.lora, stca_weight=0.0)
    loss = image_loss(wan, settings, noisy, data.text, data.masks, data.positions)
    with torch.no_grad():
        error = (wan.network(noisy.sample, noisy.times, data.text.expand(2, -1, -1)).sample - noisy.target) ** 2
    inside = error[mask_cells(data.masks, (6, 8)).expand_as(error)]
    assert loss.total.item() == pytest.approx(4 * inside.mean().item(), rel=1e-5)


def test_the_attention_loss_sees_the_middle_layers_alone(wan: Base, wan_source: Source) -> None:
    data = training_data(wan)
    noisy = wan.add_noise(data.mean, torch.randn(data.mean.shape), torch.tensor([300.0, 700.0]))
    wan.control.record(data.positions, (3, 4))
    wan.network(noisy.sample, noisy.times, data.text.expand(2, -1, -1))
    recorded = wan.control.stop_recording()
    assert [layer.shape for layer in recorded] == [
        (2, 12, data.positions.shape[1])
    ] * 2  # of two, both are in the middle
    middle = [block.attn2.processor._is_middle for block in wan.network.blocks]
    assert middle == [True, True]
    assert all(layer.min() > 0 and layer.max() < 1 for layer in recorded)


@pytest.mark.parametrize("name", ["wan_source", "wan22_source"])
def test_training_lowers_the_losses_and_moves_the_lora_alone(name: str, request: pytest.FixtureRequest) -> None:
    base = load_base(request.getfixturevalue(name), device="cpu")
    settings = msgspec.structs.replace(base.settings.lora, learning_rate=1e-2, stca_weight=0.1)
    data = training_data(base)
    before = {key: value.clone() for key, value in base.network.state_dict().items()}
    set_trainable(base, settings, "lora", seed=0)
    trainer = Trainer(base, settings, data, seed=0)

    def fixed() -> tuple[float, float, float]:
        """The losses with the same noise at every call."""
        generator = torch.Generator().manual_seed(5)
        losses: dict[str, Tensor] = {}
        with torch.no_grad():
            for time in (900.0, 500.0):
                noise = torch.randn(data.mean.shape, generator=generator)
                noisy = base.add_noise(data.mean, noise, torch.full((2,), time))
                losses |= image_loss(base, settings, noisy, data.text, data.masks, data.positions).parts
                noise = torch.randn(data.clips.shape, generator=generator)
                noisy = base.add_noise(data.clips, noise, torch.full((2,), time))
                losses |= clip_loss(base, settings, noisy, data.clip_text).parts
        return losses["region"].item(), losses["attention"].item(), losses["preservation"].item()

    first = fixed()
    history = [trainer.take_step() for _ in range(25)]
    assert all(np.isfinite(step.total) and step.attention and step.preservation for step in history)
    assert all(after < 0.95 * before for after, before in zip(fixed(), first, strict=True))
    state = base.network.state_dict()
    assert all(torch.equal(value, state[_inside_lora(key, state)]) for key, value in before.items())


def _inside_lora(name: str, state: dict[str, Tensor]) -> str:
    stem, _, kind = name.rpartition(".")
    return name if name in state else f"{stem}.base_layer.{kind}"


def test_many_captions_are_embedded_a_few_at_a_time(wan: Base, monkeypatch: pytest.MonkeyPatch) -> None:
    prompts, encode = [f"a dog {number}" for number in range(20)], wan.text_encoder.forward
    sizes: list[int] = []

    def forward(tokens: Tensor, mask: Tensor) -> Any:
        sizes.append(len(tokens))
        return encode(tokens, mask)

    monkeypatch.setattr(wan.text_encoder, "forward", forward)
    together = wan.embed(prompts)
    assert max(sizes) <= 8
    torch.testing.assert_close(together, torch.cat([wan.embed([prompt]) for prompt in prompts]))


def test_checkpointing_changes_no_gradient(wan_source: Source) -> None:
    def gradients(checkpointing: bool) -> dict[str, Tensor]:
        base = load_base(wan_source, device="cpu")
        settings = msgspec.structs.replace(base.settings.lora, gradient_checkpointing=checkpointing)
        set_trainable(base, settings, "full", seed=0)
        data = training_data(base)
        noisy = base.add_noise(data.mean, torch.ones_like(data.mean), torch.tensor([300.0, 700.0]))
        image_loss(base, settings, noisy, data.text, data.masks, data.positions).total.backward()
        return {key: value.grad for key, value in base.network.named_parameters() if value.grad is not None}

    plain, twice = gradients(False), gradients(True)
    assert plain.keys() == twice.keys()
    assert all(torch.equal(gradient, twice[key]) for key, gradient in plain.items())


def test_prior_clips_have_their_own_length_and_class_pictures_one_frame(wan: Base) -> None:
    settings = msgspec.structs.replace(wan.settings.lora, prior_clips=2, clip_frames=5)
    clips, captions = prior_clips(wan, settings)
    assert clips.shape == (2, 16, 2, 6, 8)
    assert captions == wan.settings.prior_prompts[:2]
    longer, _ = prior_clips(wan, msgspec.structs.replace(settings, clip_frames=9))
    assert longer.shape == (2, 16, 3, 6, 8)
    pictures, _ = preserved_clips(wan, with_recipe(settings, "dreambooth"), SUBJECT, None, Silent())
    of_class, _ = preserved_clips(wan, with_recipe(settings, "class-clips"), SUBJECT, None, Silent())
    assert torch.equal(pictures, of_class[:, :, :1])


def test_the_text_encoder_of_a_training_may_be_in_half_precision(wan_source: Source) -> None:
    """As on a GPU, where it would take 23 GB in float32."""
    exact = load_base(wan_source, device="cpu", training=True)
    assert dtypes(exact.text_encoder) == dtypes(exact.network) == {torch.float32}
    index = read_json(wan_source.folder / "model_index.json")
    base = WanBase.load(wan_source, index, "cpu", torch.float32, torch.bfloat16)
    assert dtypes(base.text_encoder) == {torch.bfloat16}
    assert dtypes(base.network) == dtypes(base.vae) == {torch.float32}
    data, expected = training_data(base), training_data(exact)
    assert data.text.dtype == data.clip_text.dtype == torch.float32
    error = (data.text - expected.text).norm() / expected.text.norm()
    assert 0 < error < 0.05  # two layers of operations rounded to 8 bits each
    set_trainable(base, base.settings.lora, "lora", seed=0)
    assert np.isfinite(Trainer(base, base.settings.lora, data, seed=0).take_step().total)


@pytest.mark.gpu
@pytest.mark.parametrize(("name", "half"), [("toybox", torch.float16), ("wantoy", torch.bfloat16)])
def test_on_a_gpu_the_text_encoder_of_a_training_is_in_half_precision(name: str, half: torch.dtype, gpu: str) -> None:
    base = load_base(source_named(name), device=gpu, training=True)
    assert dtypes(base.network) == dtypes(base.vae) == {torch.float32}
    assert dtypes(base.text_encoder) == {half}
    assert base.embed(["a red ball on the road"]).dtype == torch.float32


@pytest.mark.gpu
def test_the_text_encoder_is_on_a_gpu_only_while_it_embeds(gpu: str) -> None:
    counter = torch.get_device_module(gpu)
    if not hasattr(counter, "max_memory_allocated"):
        pytest.skip(f"torch counts no peak of memory on {gpu}")
    base = load_base(source_named("wantoy"), device=gpu)
    before = counter.memory_allocated()
    assert base.embed(["a red ball on the road"]).device.type == gpu
    counter.reset_peak_memory_stats()
    base.embed(["a red ball on the road"])
    weights = sum(parameter.numel() * parameter.element_size() for parameter in base.text_encoder.parameters())
    assert counter.max_memory_allocated() - before > weights
    assert base.text_encoder.device.type == "cpu"


def dtypes(module: torch.nn.Module) -> set[torch.dtype]:
    return {parameter.dtype for parameter in module.parameters()}


def test_customvideo_trains_the_texts_keys_and_values_alone(wan: Base) -> None:
    set_trainable(wan, with_recipe(wan.settings.lora, "customvideo"), "lora", seed=0)
    trained = {name for name, parameter in wan.network.named_parameters() if parameter.requires_grad}
    layers = [f"blocks.{n}.attn2.to_{part}" for n in range(2) for part in "kv"]
    assert trained == {f"{layer}.lora_{side}.default.weight" for layer in layers for side in "AB"}


def test_a_validation_sample_is_a_clip(wan: Base) -> None:
    settings = msgspec.structs.replace(wan.settings.lora, clip_frames=5, validation_inference_steps=1)
    assert validation_sample(wan, settings, "a sks dog").shape == (5, 48, 64, 3)


@pytest.fixture(scope="module")
def trained(wan_source: Source, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file of a subject that a job has trained on the tiny Wan."""
    return trained_in(tmp_path_factory.mktemp("trained"), wan_source, TrainingOptions())


def trained_in(folder: Path, wan_source: Source, options: TrainingOptions, reporter: Silent | None = None) -> Path:
    models = folder / "models"
    models.mkdir()
    (models / "tinywan").symlink_to(wan_source.folder)
    shown = picture(3)
    Image.fromarray(shown.rgb).save(folder / "p.png")
    Image.fromarray((shown.mask * 255).astype(np.uint8)).save(folder / "m.png")
    files = {"0" * 64: folder / "p.png", "1" * 64: folder / "m.png"}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(platformdirs, "user_cache_path", lambda name: folder / "cache" / name)
        patch.setenv("MOTIONBOOTH_MODELS", str(models))
        spec = TrainSpec(SUBJECT, model="tinywan", steps=3, learning_rate=0.05)
        results = finetune(spec, files.__getitem__, folder, reporter or Silent(), options)
    return results["subject"]


def test_the_finished_subject_has_the_averaged_weights(wan_source: Source, trained: Path, tmp_path: Path) -> None:
    """After three steps of nearly 0.05 each, the average lags behind the last weights by a part of a step."""
    averaged = load_file(trained_in(tmp_path, wan_source, TrainingOptions(settings={"ema_decay": 0.5})))
    last = load_file(trained)
    gaps = [(averaged[name] - last[name]).abs().max().item() for name in last]
    assert 1e-3 < max(gaps) < 0.1


class Heard(Silent):
    """Remembers the notes while loading, and how many steps were done in each report of the training."""

    def __init__(self) -> None:
        self.notes: list[str] = []
        self.steps: list[int] = []

    def progress(self, stage: str, step: int, steps: int, note: Text | None = None) -> None:
        if stage == stages.TRAINING:
            self.steps.append(step)
        elif stage == stages.LOADING and note is not None:
            self.notes.append(str(note))


def test_a_training_that_runs_out_of_memory_goes_on_with_a_smaller_plan(
    wan_source: Source, trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From its last checkpoint, with the result of a training that did not."""
    forward, calls = WanTransformer3DModel.forward, []

    def limited(self: WanTransformer3DModel, *inputs: Any, **named: Any) -> Any:
        if torch.is_grad_enabled():
            calls.append(self)
            if len(calls) == 4:  # of the second step
                torch.empty(2**56)
        return forward(self, *inputs, **named)

    monkeypatch.setattr(WanTransformer3DModel, "forward", limited)
    heard = Heard()
    found = load_file(trained_in(tmp_path, wan_source, TrainingOptions(settings={"checkpoint_every": 1}), heard))
    assert heard.notes == ["the memory did not suffice with the plan all; trying once more with the plan checkpointed"]
    assert heard.steps == [0, 1, 2, 3]
    for name, weights in load_file(trained).items():
        torch.testing.assert_close(found[name], weights, rtol=1e-2, atol=1e-4)  # saved in half precision


@pytest.mark.skipif(not can_quantize(), reason="pip install 'motionbooth[quantize]'")
def test_a_job_trains_over_weights_in_8_bits(wan_source: Source, trained: Path, tmp_path: Path) -> None:
    found = load_file(trained_in(tmp_path, wan_source, TrainingOptions(memory="quantized")))
    exact = load_file(trained)
    assert {name: value.shape for name, value in found.items()} == {name: value.shape for name, value in exact.items()}
    assert any(not torch.equal(found[name], exact[name]) for name in exact), "the weights below were rounded"
    tuned = load_base(wan_source, device="cpu")
    plain = prediction(tuned.network)
    load_subject(tuned, tmp_path / "subject.safetensors")
    assert (prediction(tuned.network) - plain).abs().max() > 1e-3


def prediction(transformer: torch.nn.Module) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    sample, text = torch.randn(1, 16, 3, 6, 8, generator=generator), torch.randn(1, 24, 32, generator=generator)
    with torch.no_grad():
        return transformer(sample, torch.tensor([700.0]), text, return_dict=False)[0]


def test_a_trained_subject_is_loaded_by_diffusers_own_pipeline(wan_source: Source, trained: Path) -> None:
    key = re.compile(r"diffusion_model\.blocks\.[01]\.(self_attn|cross_attn)\.[qkvo]\.lora_[AB]\.weight")
    names = set(load_file(trained))
    assert len(names) == 2 * 8 * 2
    assert all(key.fullmatch(name) for name in names)
    tuned = load_base(wan_source, device="cpu")
    load_subject(tuned, trained)
    pipeline = WanPipeline.from_pretrained(wan_source.folder)
    plain = prediction(pipeline.transformer)
    pipeline.load_lora_weights(str(trained.parent), weight_name=trained.name)
    adapted = prediction(pipeline.transformer)
    assert (adapted - plain).abs().max() > 1e-3
    # The same float32 products in another order, as ours are added to the weights: a few units in the last place.
    torch.testing.assert_close(prediction(tuned.network), adapted, rtol=1e-4, atol=1e-4 * float(plain.abs().max()))
