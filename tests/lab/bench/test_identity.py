"""The identity figures of bench control, their controls, and subjects from photographs."""

from pathlib import Path

import cv2
import numpy as np
import pytest
from motionbooth.models.base import Base
from motionbooth.models.registry import load_base
from motionbooth.models.sources import source_named
from motionbooth_lab.bench.cases import subject_cases
from motionbooth_lab.bench.identity import (
    GALLERIES,
    Identity,
    codec_db,
    controls_of,
    galleries_of,
    identity_measures,
    identity_of,
    pasted,
    through_codec,
)
from motionbooth_lab.bench.photographs import photographed_subjects
from motionbooth_lab.bench.subjects import SOLIDS, gallery_fillers, unseen_subjects
from motionbooth_protocol.errors import InvalidInput
from motionbooth_protocol.motion import Box
from refused import refused


@pytest.fixture(scope="module")
def base() -> Base:
    return load_base(source_named("toybox"))


def test_twenty_galleries_ten_of_them_of_the_benchs_subjects() -> None:
    subjects = unseen_subjects()
    assert len(subjects) == 10
    galleries = galleries_of(subjects)
    assert len(galleries) == GALLERIES
    assert list(galleries)[:10] == [subject.name for subject in subjects]
    assert set(SOLIDS) < set(galleries)
    again = gallery_fillers(1)[0]
    np.testing.assert_array_equal(again.pictures[0], gallery_fillers(1)[0].pictures[0])


@pytest.mark.slow
def test_blobs_and_shuffled_patches_are_not_recognized_and_the_subjects_own_pictures_are(base: Base) -> None:
    subjects = unseen_subjects()
    galleries = galleries_of(subjects)
    hits: dict[str, list[bool]] = {}
    for subject in subjects[::3]:
        tracks = [case.boxes for case in subject_cases(subject, "0" * 64)][:2]
        for name, found in controls_of(base, subject, galleries, tracks).items():
            hits.setdefault(name, []).extend(found)
    shares = {name: np.mean(found) for name, found in hits.items()}
    assert shares["top1_ceiling"] > 0.6
    assert shares["blob_top1"] <= 0.15
    assert shares["blob_top1_forced"] > shares["blob_top1"]  # color alone helps, but is not enough
    assert shares["shuffled_top1"] <= 0.15


def test_pasted_clips_of_the_subject_are_recognized_and_the_figures_keep_their_names(base: Base) -> None:
    subjects = unseen_subjects()[:2]
    galleries = galleries_of(unseen_subjects())
    identities = []
    for subject in subjects:
        boxes = next(subject_cases(subject, "0" * 64)).boxes
        ground = np.full((64, 96, 3), 120, np.uint8)
        frames = [pasted(ground, subject.pictures[2], subject.masks[2], box)[0] for box in boxes]
        clip = through_codec(base, np.stack(frames)), boxes
        empty = np.stack([ground] * len(boxes)), boxes
        identities.append(identity_of(base, subject, galleries, [clip], [empty]))
    measures = {measure.name: measure.value for measure in identity_measures(identities)}
    assert measures.keys() == {
        "identity_top1",
        "identity_top1_forced",
        "identity_top1_off",
        "identity_top1_ceiling",
        "identity_blob_top1",
        "identity_blob_top1_forced",
        "identity_shuffled_top1",
        "identity_grey_top1",
        "identity_grey_ceiling",
        "identity_steady",
    }
    assert measures["identity_top1"] > 0.6
    assert measures["identity_top1_off"] < 0.3
    assert measures["identity_steady"] > 0.2


def test_steadiness_compares_the_ends_of_a_clip_and_subtracts_chance() -> None:
    one, other = np.eye(2, dtype=np.float32)
    steady = [Identity({}, np.stack([[each, each]])) for each in (one, other)]
    swapping = [Identity({}, np.stack([[one, other]])), Identity({}, np.stack([[other, one]]))]
    assert identity_measures(steady)[-1].value == pytest.approx(1)
    assert identity_measures(swapping)[-1].value == pytest.approx(-1)


def test_a_pasted_subject_fills_its_box_with_its_aspect_kept() -> None:
    picture, mask = np.full((40, 40, 3), 200, np.uint8), np.zeros((40, 40), np.uint8)
    mask[10:30, 15:25] = 255
    frame, where = pasted(np.zeros((64, 96, 3), np.uint8), picture, mask, Box(0.25, 0.25, 0.75, 0.75))
    rows, columns = np.nonzero(where > 0.5)
    assert (rows.min(), rows.max() + 1) == (16, 48)
    assert np.ptp(columns) + 1 == 16
    assert (frame[where > 0.99] == 200).all()


def test_the_codecs_figure_is_that_of_the_subjects_pixels(base: Base) -> None:
    figure = codec_db(base, unseen_subjects()[:1])
    assert figure.name == "codec_db"
    assert 12 < figure.value < 45


def test_photographs_become_subjects_with_detected_masks(tmp_path: Path) -> None:
    duck = unseen_subjects()[1]
    folder = tmp_path / "my duck" / "yellow_duck2"
    folder.mkdir(parents=True)
    for number, picture in enumerate(duck.pictures[:2]):
        large = cv2.resize(picture, (480, 480), interpolation=cv2.INTER_CUBIC)
        cv2.imwrite(str(folder / f"{number}.png"), cv2.cvtColor(large, cv2.COLOR_RGB2BGR))
    (found,) = photographed_subjects(tmp_path / "my duck")
    assert (found.name, found.class_word, len(found.pictures)) == ("yellow_duck2", "duck", 2)
    for picture, mask, own in zip(found.pictures, found.masks, duck.masks, strict=False):
        assert picture.shape == (384, 384, 3)
        real = cv2.resize(own, (384, 384)) > 127
        assert ((mask > 127) & real).sum() / ((mask > 127) | real).sum() > 0.8


def test_a_folder_without_folders_of_photographs_is_rejected(tmp_path: Path) -> None:
    with refused(InvalidInput, folder=str(tmp_path)):
        photographed_subjects(tmp_path)
