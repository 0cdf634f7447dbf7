"""The subject's cut-outs on the base's own places: where, how large, how soft, and what the loss makes of them."""

from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np
import platformdirs
import pytest
import torch
from motionbooth.control.boxes import BoxControl
from motionbooth.finetuning.dataset import SubjectPicture, TrainingData, encode_training_data
from motionbooth.finetuning.finetune import training_pictures
from motionbooth.finetuning.gradient_checkpointing import enable_gradient_checkpointing
from motionbooth.finetuning.losses import mask_cells
from motionbooth.finetuning.pasting import Background, cut_out, pasted_pictures
from motionbooth.finetuning.prior_preservation import generated_backgrounds, missing_backgrounds
from motionbooth.finetuning.recipes import with_recipe
from motionbooth.finetuning.trainer import StepLosses, Trainer, train
from motionbooth.models.base import Base
from motionbooth.models.registry import load_base
from motionbooth.models.settings import BaseSettings, PasteSettings, TrainSettings
from motionbooth.models.sources import Source, source_named
from motionbooth.pictures.images import TrainingPicture
from motionbooth_protocol.errors import InvalidInput
from motionbooth_protocol.jobs import Picture, SubjectSpec
from motionbooth_protocol.text import Text
from refused import refused

SUBJECT = SubjectSpec("Rex", "sks", "dog", [Picture("0" * 64)])
BACKGROUNDS = {"on the grass": "the grass", "in the sea": "the sea"}
WIDTH, HEIGHT = 192, 128
BLUE, RED = (10, 20, 200), (200, 30, 40)


class Silent:
    def progress(self, stage: str, step: int, steps: int, note: Text | None = None) -> None:
        pass


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platformdirs, "user_cache_path", lambda name: tmp_path / "cache" / name)


def red_disc(size: tuple[int, int] = (300, 200)) -> tuple[np.ndarray, np.ndarray]:
    """A picture, its upper half red on green, its lower half green; the mask of the subject, an upright ellipse."""
    y, x = np.mgrid[: size[0], : size[1]]
    mask = ((y - size[0] / 2) / (size[0] * 0.4)) ** 2 + ((x - size[1] / 2) / (size[1] * 0.3)) ** 2 <= 1
    rgb = np.zeros((*size, 3), np.uint8)
    rgb[:] = (0, 255, 0)
    rgb[mask] = RED
    return rgb, mask.astype(np.float32)


def plain_backgrounds() -> list[Background]:
    frames = np.zeros((2, HEIGHT, WIDTH, 3), np.uint8)
    frames[:] = BLUE
    return [Background(phrase, frames) for phrase in BACKGROUNDS]


def pasted(settings: PasteSettings, seed: int = 0) -> list[TrainingPicture]:
    cutout = cut_out(*red_disc(), frame_px=128)
    return pasted_pictures([cutout], plain_backgrounds(), settings, np.random.default_rng(seed))


def bounds(mask: np.ndarray) -> tuple[int, int, int, int]:
    rows, columns = mask.nonzero()
    return columns.min(), rows.min(), columns.max() + 1, rows.max() + 1


def test_a_cutout_ends_where_the_subject_ends_and_is_no_longer_than_four_frames() -> None:
    cutout = cut_out(*red_disc(), frame_px=30)
    assert cutout.shape == (120, 60, 4)  # the ellipse is 240 x 120
    assert cutout[60, 30].tolist() == [*RED, 255]
    assert cutout[0, 0].tolist() == [0, 0, 0, 0]


def test_pasted_subjects_have_the_sizes_asked_for_and_lie_in_the_frame_anywhere() -> None:
    pictures = pasted(PasteSettings(pool=60, min_height=0.5, max_height=0.9, max_roll=0))
    edges = np.array([bounds(picture.mask) for picture in pictures])
    heights = (edges[:, 3] - edges[:, 1]) / HEIGHT
    assert heights.min() >= 0.5 - 2 / HEIGHT  # a pixel at each end: where half of it is not the subject's
    assert heights.max() <= 0.9 + 2 / HEIGHT
    assert np.ptp(heights) > 0.25
    free_x = WIDTH - (edges[:, 2] - edges[:, 0])
    assert np.ptp(edges[:, 0] / free_x) > 0.8
    assert {picture.caption_suffix for picture in pictures} == set(BACKGROUNDS)


def test_a_pasted_picture_is_the_place_the_subject_and_a_soft_edge_and_nothing_of_its_old_background() -> None:
    for picture in pasted(PasteSettings(pool=10, max_gain=0.0)):
        rgb = picture.rgb.astype(int)
        from_subject = (rgb[..., 0] - BLUE[0]) / (RED[0] - BLUE[0])  # 0: the place, 1: the subject
        expected = np.array(BLUE) + from_subject[..., None] * (np.array(RED) - BLUE)
        assert np.abs(rgb - expected).max() <= 2  # mixtures of the two, rounded twice; no green
        assert ((from_subject > 0.2) & (from_subject < 0.8)).any()
        assert np.array_equal(picture.mask > 0, from_subject >= 0.5) or (
            np.abs(from_subject[(picture.mask > 0) != (from_subject >= 0.5)] - 0.5).max() < 0.02
        )


def test_a_subject_wider_than_the_frame_is_made_to_fit() -> None:
    rgb = np.full((40, 400, 3), 200, np.uint8)
    cutout = cut_out(rgb, np.ones((40, 400), np.float32), 128)
    settings = PasteSettings(pool=8, max_roll=30.0)
    for picture in pasted_pictures([cutout], plain_backgrounds(), settings, np.random.default_rng(0)):
        left, _, right, _ = bounds(picture.mask)
        assert 0.7 * WIDTH < right - left <= 0.97 * WIDTH


def test_mirrored_only_where_asked_for() -> None:
    rgb = np.zeros((60, 60, 3), np.uint8)
    rgb[:, :30], rgb[:, 30:] = (250, 250, 250), (5, 5, 5)  # white on the left

    def whiter_on_the_left(flip: bool) -> set[bool]:
        settings = PasteSettings(pool=20, max_roll=0, flip=flip)
        cutout = cut_out(rgb, np.ones((60, 60), np.float32), 128)
        pictures = pasted_pictures([cutout], plain_backgrounds(), settings, np.random.default_rng(1))
        found = set()
        for picture in pictures:
            left, top, right, bottom = bounds(picture.mask)
            inside = picture.rgb[top:bottom, left:right]
            middle = (right - left) // 2
            found.add(bool(inside[:, :middle].mean() > inside[:, middle:].mean()))
        return found

    assert whiter_on_the_left(flip=False) == {True}
    assert whiter_on_the_left(flip=True) == {True, False}


def test_the_same_seed_pastes_the_same_pictures() -> None:
    settings = PasteSettings(pool=9)
    one, again, other = pasted(settings, 4), pasted(settings, 4), pasted(settings, 5)
    assert len(one) == 9
    assert all(np.array_equal(a.rgb, b.rgb) for a, b in zip(one, again, strict=True))
    assert not all(np.array_equal(a.rgb, b.rgb) for a, b in zip(one, other, strict=True))


@pytest.fixture
def source(tmp_path: Path, tiny_source: Source) -> Source:
    """The tiny base with two backgrounds."""
    settings = msgspec.json.decode(tiny_source.settings_file.read_bytes())
    path = tmp_path / "motionbooth.json"
    path.write_bytes(msgspec.json.encode(settings | {"backgrounds": BACKGROUNDS}))
    return Source("tiny", tiny_source.folder, path)


@pytest.fixture
def base(source: Source) -> Base:
    return load_base(source, device="cpu")


def pasting(base: Base, **paste: object) -> TrainSettings:
    """The base's settings with pasting; all of its weights are trained."""
    base.network.requires_grad_(True)
    return msgspec.structs.replace(base.settings.lora, image_batch=4, paste=PasteSettings(pool=6, **paste))


def subject_pictures() -> list[SubjectPicture]:
    rgb, mask = red_disc()
    framed = TrainingPicture(np.zeros((HEIGHT, WIDTH, 3), np.uint8), np.ones((HEIGHT, WIDTH), np.float32))
    return [SubjectPicture([framed], cut_out(rgb, mask, 128))]


def pasted_data(base: Base, settings: TrainSettings) -> TrainingData:
    pictures = training_pictures(base, settings, subject_pictures(), 3, Silent())
    clips = torch.randn(1, 4, 2, *base.latent_size, generator=torch.Generator().manual_seed(0))
    return encode_training_data(base, SUBJECT, pictures, clips, ["a cat"])


def test_backgrounds_are_generated_once_for_a_base(base: Base) -> None:
    settings = pasting(base)
    assert missing_backgrounds(base.source, settings) == 2
    told: list[int] = []
    first = generated_backgrounds(base, settings, lambda done, steps: told.append(done))
    assert told
    told.clear()
    assert missing_backgrounds(base.source, settings) == 0
    again = generated_backgrounds(base, settings, lambda done, steps: told.append(done))
    assert told == []
    assert [place.caption_suffix for place in first] == list(BACKGROUNDS)
    assert all(place.frames.shape == (3, HEIGHT, WIDTH, 3) for place in first)
    assert all(np.array_equal(a.frames, b.frames) for a, b in zip(first, again, strict=True))
    assert not np.array_equal(first[0].frames, first[1].frames)


def test_each_pasted_picture_has_its_own_caption_and_box(base: Base) -> None:
    settings = pasting(base)
    pictures = training_pictures(base, settings, subject_pictures(), 3, Silent())
    data = pasted_data(base, settings)
    captions = [f"a sks dog {picture.caption_suffix}" for picture in pictures]
    assert set(captions) == {"a sks dog on the grass", "a sks dog in the sea"}
    torch.testing.assert_close(data.text, base.embed(captions))
    assert data.positions.tolist() == [[2, 3, 4]]
    for picture, edit in zip(pictures, data.edits, strict=True):
        ((box,),) = edit.boxes
        assert box is not None
        assert np.round(np.multiply(box.as_tuple(), (WIDTH, HEIGHT) * 2)).tolist() == list(bounds(picture.mask))
        assert edit.tokens.subjects == ((2, 3, 4),)


def test_the_region_grows_by_whole_cells() -> None:
    masks = torch.zeros(1, 1, 64, 96)
    masks[..., 32:40, 40:48] = 1
    assert mask_cells(masks, (8, 12)).sum() == 1
    assert mask_cells(masks, (8, 12), grow=1).sum() == 9
    assert mask_cells(masks, (8, 12), grow=1)[0, 0, 0, 3:6, 4:7].all()


def test_what_is_outside_the_grown_region_is_not_trained(base: Base) -> None:
    settings = msgspec.structs.replace(pasting(base), stca_weight=0.0, prior_preservation="nothing")
    data = pasted_data(base, settings)

    def region_loss(outside: float, grow: int) -> float:
        """Of a step in which the target, outside the region of one cell more than the subject's, is another."""
        paste = msgspec.structs.replace(settings.paste, grow_cells=grow)
        trainer = Trainer(base, msgspec.structs.replace(settings, paste=paste), data, seed=0)
        drawn = trainer._at_random_times

        def changed(latents: torch.Tensor, noise: torch.Tensor) -> object:
            noisy = drawn(latents, noise)
            noisy.target.add_(outside * ~cells[0])
            return noisy

        chosen = torch.randperm(len(data.mean), generator=torch.Generator().manual_seed(0))[: settings.image_batch]
        cells = [mask_cells(data.masks[chosen], base.latent_size, grow=1)]
        trainer._at_random_times = changed  # type: ignore[method-assign, assignment]
        with torch.no_grad():
            return trainer._picture_loss().parts["region"].item()

    assert region_loss(5.0, grow=1) == region_loss(0.0, grow=1)
    assert region_loss(5.0, grow=2) > region_loss(0.0, grow=2) + 1


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_the_share_of_a_batch_that_is_edited_is_the_one_asked_for(base: Base, share: float) -> None:
    settings = pasting(base, box_share=share)
    data = pasted_data(base, settings)
    trainer = Trainer(base, settings, data, seed=0)
    asked: list[list[BoxControl | None]] = []
    set_boxes = base.control.set_boxes
    base.control.set_boxes = lambda controls, *rest, **named: (  # type: ignore[method-assign, assignment]
        asked.append(list(controls)),
        set_boxes(controls, *rest, **named),
    )
    parts = trainer._picture_loss().parts
    edited = [control for controls in asked for control in controls if control is not None]
    assert len(edited) == round(4 * share)
    assert all(replaced_in(control, data.edits) for control in edited)
    assert ("attention" in parts) == (share < 1)


def replaced_in(control: BoxControl, edits: tuple[BoxControl, ...]) -> bool:
    return (control.boxes, control.tokens) in [(edit.boxes, edit.tokens) for edit in edits]


def test_an_edited_step_with_gradient_checkpointing_has_the_same_gradients(source: Source) -> None:
    def gradients(recompute: bool) -> list[torch.Tensor]:
        base = load_base(source, device="cpu")
        settings = pasting(base, box_share=0.5)
        data = pasted_data(base, settings)
        if recompute:
            enable_gradient_checkpointing(base.network, base.control)
        trainer = Trainer(base, msgspec.structs.replace(settings, max_grad_norm=1e9), data, seed=0)
        taken: list[torch.Tensor] = []
        trainer._optimizer.step = lambda: taken.extend(  # type: ignore[assignment]
            parameter.grad.clone() for parameter in trainer._trainable.values() if parameter.grad is not None
        )
        trainer.take_step()
        return taken

    for expected, found in zip(gradients(False), gradients(True), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6)


def test_a_pasted_training_broken_off_and_resumed_ends_with_the_same_weights(source: Source, tmp_path: Path) -> None:
    def begin() -> Trainer:
        base = load_base(source, device="cpu")
        settings = msgspec.structs.replace(pasting(base, box_share=0.5), steps=3, checkpoint_every=1)
        return Trainer(base, settings, pasted_data(base, settings), seed=7)

    class Power(Exception):
        pass

    def switch_off(step: int, steps: int, losses: StepLosses) -> None:
        if step == 2:
            raise Power

    whole, broken, resumed = begin(), begin(), begin()
    train(whole, tmp_path / "unused.pt", lambda *_: None)
    with pytest.raises(Power):
        train(broken, tmp_path / "checkpoint.pt", switch_off)
    train(resumed, tmp_path / "checkpoint.pt", lambda *_: None)
    assert whole.history == resumed.history
    for name, weight in whole._trainable.items():
        assert torch.equal(weight, resumed._trainable[name])


@pytest.mark.parametrize("recipe", ["dreambooth", "customvideo", "no-region", "no-paste"])
def test_whole_pictures_are_trainable_as_they_are(base: Base, recipe: str) -> None:
    settings = with_recipe(pasting(base), recipe)
    assert settings.pasting is None
    pictures = subject_pictures()
    assert training_pictures(base, settings, pictures, 0, Silent()) == pictures[0].placed


def test_a_subject_of_which_nothing_is_left_is_refused_in_a_sentence(base: Base) -> None:
    settings = pasting(base, max_roll=0.0, min_height=0.01, max_height=0.01)
    hair = np.full((1, 4, 4), 255, np.uint8)
    picture = SubjectPicture(subject_pictures()[0].placed, hair)
    with refused(InvalidInput, model="Tiny"):
        training_pictures(base, settings, [picture], 0, Silent())


def test_pasting_without_backgrounds_is_refused_when_the_settings_are_read(tmp_path: Path, tiny_source: Source) -> None:
    settings = msgspec.json.decode(tiny_source.settings_file.read_bytes())
    settings["lora"]["paste"] = {}
    path = tmp_path / "motionbooth.json"
    path.write_bytes(msgspec.json.encode(settings))
    with refused(InvalidInput, path=str(path), problem=...):
        BaseSettings.read(path)
    path.write_bytes(msgspec.json.encode(settings | {"backgrounds": BACKGROUNDS}))
    assert BaseSettings.read(path).lora.paste == PasteSettings()


def test_the_bundled_model_can_tell_its_backgrounds_from_each_other() -> None:
    base = load_base(source_named("toybox"), device="cpu")
    captions = [f"a sks dog {phrase}" for phrase in base.settings.backgrounds]
    assert len({tuple(base.tokenizer(caption, truncation=True).input_ids) for caption in captions}) == len(captions) > 1
