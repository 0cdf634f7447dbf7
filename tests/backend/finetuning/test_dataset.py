"""Pictures become VAE posteriors, masks and an embedded prompt."""

from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np
import torch
from motionbooth.finetuning.dataset import covers_cells, encode_training_data, read_pictures
from motionbooth.models.base import Base
from motionbooth.pictures.images import TrainingPicture
from motionbooth_protocol.errors import InvalidInput
from motionbooth_protocol.jobs import Picture, SubjectSpec, TrainSpec
from PIL import Image, ImageDraw
from refused import refused

SUBJECT = SubjectSpec("Dot", "sks", "dog", [Picture("0" * 64)])
SPEC = TrainSpec(SUBJECT, seed=5)


def drawn(path: Path, ellipse: tuple[int, int, int, int]) -> Path:
    picture = Image.new("RGBA", (400, 400))
    ImageDraw.Draw(picture).ellipse(ellipse, fill=(200, 30, 30, 255))
    picture.save(path, "PNG")
    return path


def test_each_picture_is_placed_as_often_as_the_base_asks(tiny_single: Base, tmp_path: Path) -> None:
    path = drawn(tmp_path / "p", (100, 100, 300, 300))
    settings = msgspec.structs.replace(tiny_single.settings.lora, placements=3, min_height=0.5)
    (picture,), (repeated,) = (read_pictures(SPEC, lambda _: path, tiny_single, settings) for _ in range(2))
    pictures, again = picture.placed, repeated.placed
    areas = [float(picture.mask.sum()) for picture in pictures]
    assert len(areas) == 3
    assert areas[0] == max(areas)
    assert min(areas) >= 0.24 * areas[0]
    assert all(np.array_equal(a.rgb, b.rgb) for a, b in zip(pictures, again, strict=True))


def test_a_subject_too_thin_for_the_base_is_named(tiny_single: Base, tmp_path: Path) -> None:
    path = drawn(tmp_path / "p", (20, 199, 380, 200))
    with refused(InvalidInput, label=..., width=192, height=128):
        read_pictures(SPEC, lambda _: path, tiny_single, tiny_single.settings.lora)


def test_a_thin_subject_is_left_out_where_it_is_too_small_and_kept_where_it_is_not(
    tiny_single: Base, tmp_path: Path
) -> None:
    path = drawn(tmp_path / "p", (20, 188, 380, 212))
    settings = msgspec.structs.replace(tiny_single.settings.lora, placements=40, min_height=0.1)
    (picture,) = read_pictures(SPEC, lambda _: path, tiny_single, settings)
    assert 1 <= len(picture.placed) < 40
    assert all(covers_cells(each, tiny_single) for each in picture.placed)


def test_posteriors_are_those_of_the_vae_in_the_latents_scale(tiny_single: Base) -> None:
    rgb = np.random.default_rng(0).integers(0, 256, (128, 192, 3), dtype=np.uint8)
    picture = TrainingPicture(rgb, np.ones((128, 192), np.float32))
    data = encode_training_data(tiny_single, SUBJECT, [picture], torch.zeros(0), [])
    pixels = torch.from_numpy(rgb).permute(2, 0, 1)[None] / 127.5 - 1
    with torch.no_grad():
        posterior = tiny_single.vae.encode(pixels).latent_dist
    torch.testing.assert_close(data.mean[:, :, 0], posterior.mean * 0.18215)
    torch.testing.assert_close(data.std[:, :, 0], posterior.std * 0.18215)
    assert data.masks.shape == (1, 1, 128, 192)


def test_the_prompt_is_the_papers_and_its_phrase_is_found(tiny_single: Base) -> None:
    picture = TrainingPicture(np.zeros((128, 192, 3), np.uint8), np.ones((128, 192), np.float32))
    data = encode_training_data(tiny_single, SUBJECT, [picture], torch.zeros(0), [])
    assert torch.equal(data.text, tiny_single.embed(["a sks dog"]))
    assert data.positions.tolist() == [[2, 3, 4]]


def test_captions_replace_the_prompt_and_the_attention_loss_reads_each_ones_own_tokens(tiny_single: Base) -> None:
    rgb, mask = np.zeros((128, 192, 3), np.uint8), np.ones((128, 192), np.float32)
    captions = ["", "on grass, a sks dog", "a sks dog and a sks dog"]
    pictures = [TrainingPicture(rgb, mask, caption=caption) for caption in captions]
    data = encode_training_data(tiny_single, SUBJECT, pictures, torch.zeros(0), [])
    expected = [tiny_single.prompt_tokens(caption or "a sks dog", ["sks dog"]).subjects[0][:3] for caption in captions]
    assert data.positions.tolist() == [list(positions) for positions in expected]
    assert len({tuple(row) for row in data.positions.tolist()}) == 2  # the third names it where the first does
    assert torch.equal(data.text, tiny_single.embed([caption or "a sks dog" for caption in captions]))
    noise = torch.randn(3, 4, 1, 16, 24, generator=torch.Generator().manual_seed(0))
    noisy = tiny_single.add_noise(noise, noise.flip(0), torch.tensor([100, 500, 900]))
    grid, control = tiny_single.attention_grid((16, 24)), tiny_single.control

    def recorded(positions: torch.Tensor, rows: slice) -> torch.Tensor:
        control.record(positions, grid)
        tiny_single.network(noisy.sample[rows], noisy.times[rows], data.text[rows])
        return torch.cat(control.stop_recording())

    with torch.no_grad():
        together = recorded(data.positions, slice(None))
        alone = [recorded(data.positions[row], slice(row, row + 1)) for row in range(3)]
    # The same numbers from other batch sizes: float32 rounding.
    for row in range(3):
        torch.testing.assert_close(together[row::3], alone[row], rtol=1e-4, atol=1e-6)


def test_a_caption_may_name_the_subject_again_where_the_model_reads_no_longer(tiny_single: Base) -> None:
    caption = f"a sks dog {'on grass ' * 80}and a sks dog"
    picture = TrainingPicture(np.zeros((128, 192, 3), np.uint8), np.ones((128, 192), np.float32), caption=caption)
    data = encode_training_data(tiny_single, SUBJECT, [picture], torch.zeros(0), [])
    assert data.positions.tolist() == [list(tiny_single.prompt_tokens("a sks dog", ["sks dog"]).subjects[0])]


def test_a_caption_that_does_not_name_the_subject_is_refused(tiny_single: Base) -> None:
    picture = TrainingPicture(np.zeros((128, 192, 3), np.uint8), np.ones((128, 192), np.float32), caption="a red dog")
    with refused(InvalidInput, phrase="sks dog", prompt="a red dog"):
        encode_training_data(tiny_single, SUBJECT, [picture], torch.zeros(0), [])


def test_a_caption_whose_signs_run_into_the_subjects_tokens_is_refused(tiny_single: Base) -> None:
    """The tokenizer of these tests splits a quotation mark and what follows it otherwise than the word alone."""
    caption = "a 'sks dog' on grass"
    alone, quoted = (tiny_single.prompt_tokens(text, ["sks dog"]).subjects[0] for text in ("a sks dog", caption))
    assert len(alone) != len(quoted)
    picture = TrainingPicture(np.zeros((128, 192, 3), np.uint8), np.ones((128, 192), np.float32), caption=caption)
    with refused(InvalidInput, caption=caption, phrase="sks dog"):
        encode_training_data(tiny_single, SUBJECT, [picture], torch.zeros(0), [])
