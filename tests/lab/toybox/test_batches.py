"""Composed scenes match their numbers, and the training uses the product's attention edit."""

import numpy as np
import pytest
import torch
from motionbooth.control.boxes import BoxControl, batch_bias
from motionbooth.control.prompt import prompt_tokens
from motionbooth_lab.toybox.autoencoder import latents_of_noise
from motionbooth_lab.toybox.backgrounds import PLACES
from motionbooth_lab.toybox.bank import Bank, build_bank
from motionbooth_lab.toybox.batches import GRIDS, Batches, bias, moved_by_phase, noise_of
from motionbooth_lab.toybox.compose import compose
from motionbooth_lab.toybox.draw import FRAMES, HEIGHT_PX, WIDTH_PX, is_held_out
from motionbooth_lab.toybox.scenes import SceneMaker
from motionbooth_lab.toybox.tokenizer import build_tokenizer
from motionbooth_protocol.motion import Box
from transformers import CLIPTokenizer


@pytest.fixture(scope="module")
def bank() -> Bank:
    return build_bank(characters=2, toys=3, textures=1, seed=1)


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> CLIPTokenizer:
    return build_tokenizer(tmp_path_factory.mktemp("tokenizer"))


def test_boxes_are_the_bounds_of_what_is_covered_and_captions_say_what_is_there(bank: Bank) -> None:
    scenes = SceneMaker(bank).draw(40, FRAMES, np.random.default_rng(2))
    composed = compose(scenes, bank)
    assert composed.pixels.shape == (40 * FRAMES, 3, HEIGHT_PX, WIDTH_PX)
    assert composed.pixels.abs().max() <= 1
    cover = composed.cover.unflatten(0, (40, FRAMES))[:, :, 0] > 0.5
    for row in range(40):
        rows, columns = (np.flatnonzero(cover[row, 3].any(axis).numpy()) for axis in (1, 0))
        x1, y1, x2, y2 = composed.boxes[row, 3].numpy() * [WIDTH_PX, HEIGHT_PX, WIDTH_PX, HEIGHT_PX]
        if not scenes.phrases[row]:
            assert rows.size == 0
            continue
        assert (round(x1), round(y1)) == (columns[0], rows[0])
        assert (round(x2), round(y2)) == (columns[-1] + 1, rows[-1] + 1)
        assert scenes.phrases[row] in scenes.captions[row]
    assert any(not phrase for phrase in scenes.phrases)


def test_no_kind_is_seen_in_a_combination_that_is_held_out(bank: Bank) -> None:
    scenes = SceneMaker(bank).draw(600, 1, np.random.default_rng(3))
    seen = 0
    for row, first in enumerate(scenes.sprite[:, 0]):
        entry = next((entry for entry in bank.entries if entry.first == first), None)
        if entry is not None and entry.kind:
            seen += 1
            assert not is_held_out(entry.noun, entry.colors[0], list(PLACES)[scenes.place[row]])
    assert seen > 100


def test_the_background_moves_against_the_camera(bank: Bank) -> None:
    scenes = SceneMaker(bank).draw(1, FRAMES, np.random.default_rng(0))
    scenes.camera[:] = np.arange(FRAMES)[:, None] * np.array([3.0, 2.0])
    scenes.zoom[:], scenes.roll[:], scenes.sprite[:], scenes.corner[:] = 1, 0, -1, 100
    pixels = compose(scenes, bank).pixels
    torch.testing.assert_close(pixels[2, :, :-4, :-6], pixels[0, :, 4:, 6:], atol=1e-4, rtol=0)


def test_the_edit_of_a_batch_is_the_products_own(bank: Bank, tokenizer: CLIPTokenizer) -> None:
    batches = Batches(bank, tokenizer)
    captions, phrases = ["a clip of a red ball on the grass", "a sks robot in the sea"], ["red ball", "sks robot"]
    generator = torch.Generator().manual_seed(1)
    corner = torch.rand(2, FRAMES, 2, generator=generator) * 0.8
    boxes = torch.cat([corner, (corner + 0.02 + 0.5 * torch.rand(2, FRAMES, 2, generator=generator)).clamp(max=1)], -1)
    worded = batches.words(captions, phrases)
    alpha = torch.tensor([2.5, 0.0])
    for grid in GRIDS:
        ours = bias(boxes, worded, torch.tensor([True, True]), alpha, grid)
        for row in range(2):
            tokens = prompt_tokens(tokenizer, captions[row], [phrases[row]])
            assert worded.ids[row].tolist() == tokenizer(captions[row], padding="max_length").input_ids
            track = [Box(*map(float, box)) for box in boxes[row]]
            control = BoxControl([track], tokens, float(alpha[row]), amplify=row == 0)
            theirs = batch_bias([control], grid, FRAMES, torch.zeros(0))
            assert theirs is not None
            torch.testing.assert_close(ours[row * FRAMES : (row + 1) * FRAMES], theirs, atol=1e-5, rtol=1e-5)


def test_common_noise_moves_by_the_cameras_whole_cells(bank: Bank) -> None:
    scenes = SceneMaker(bank).draw(64, FRAMES, np.random.default_rng(1))
    scenes.camera[:] = np.arange(FRAMES)[:, None] * np.array([4.0, 0.0])  # one cell a frame
    noise = noise_of(scenes, np.random.default_rng(7), torch.Generator().manual_seed(1))
    assert abs(float(noise.var()) - 1) < 0.02
    moved, still = noise[:, :, 1, :, :-1], noise[:, :, 0, :, :-1]
    follows = float((moved * noise[:, :, 0, :, 1:]).mean())
    assert follows > 0.3
    assert abs(float((moved * still).mean())) < 0.05


def test_common_noise_moves_by_parts_of_a_cell_as_pixels_do_and_stays_white() -> None:
    canvas = torch.randn(4, 3, 64, 96, generator=torch.Generator().manual_seed(3))
    travel = torch.tensor([[[0.0, 0.0], [3.0, -2.0], [1.5, 0.5]]]).expand(4, -1, -1)
    moved = moved_by_phase(canvas, travel)
    assert torch.allclose(moved[:, 1], canvas.roll((2, -3), (-2, -1)), atol=1e-4)
    latents = latents_of_noise(moved.flatten(0, 1))
    assert latents.shape == (12, 12, 16, 24)
    flat = latents.transpose(0, 1).flatten(1)
    # Of 4,608 numbers a channel, in three frames that are not independent: a covariance is off by 0.026 at most once in
    # a few hundred, and there are 78 of them.
    assert torch.allclose(flat @ flat.T / flat.shape[1], torch.eye(12), atol=0.1)


def test_a_batch_is_the_same_for_the_same_draws(bank: Bank, tokenizer: CLIPTokenizer) -> None:
    batches = Batches(bank, tokenizer)
    one, other = (batches.draw(3, 1, np.random.default_rng(5), torch.float32) for _ in range(2))
    for mine, its in zip(one.tensors(), other.tensors(), strict=True):
        assert torch.equal(mine, its)
