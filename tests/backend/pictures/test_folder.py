"""A user's folder of pictures: masks by name, hints, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from motionbooth.pictures.folder import read_folder
from motionbooth_protocol.errors import InvalidInput
from motionbooth_protocol.motion import Box
from PIL import Image
from refused import refused


def draw(path: Path, grey: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("L", (8, 8), grey).save(path)


def test_masks_belong_to_pictures_by_name_and_never_by_order(tmp_path: Path) -> None:
    for number, name in enumerate(["b.png", "a.jpg", "c.webp"]):
        draw(tmp_path / name, number)
    draw(tmp_path / "masks" / "c.png", 10)
    draw(tmp_path / "masks" / "a.png", 11)
    (tmp_path / "notes.txt").write_text("not a picture")
    pictures, files = read_folder(tmp_path, None)
    assert [picture.name for picture in pictures] == ["a.jpg", "b.png", "c.webp"]
    masks = [None if picture.mask is None else files[picture.mask].name for picture in pictures]
    assert masks == ["a.png", None, "c.png"]
    assert [files[picture.image].name for picture in pictures] == ["a.jpg", "b.png", "c.webp"]


def test_masks_may_lie_beside_their_pictures(tmp_path: Path) -> None:
    for number, name in enumerate(["a.jpg", "a_mask.png", "b.png", "gas_mask.png", "._b.png"]):
        draw(tmp_path / name, number)
    pictures, files = read_folder(tmp_path, None)
    masks = {picture.name: picture.mask and files[picture.mask].name for picture in pictures}
    assert masks == {"a.jpg": "a_mask.png", "b.png": None, "gas_mask.png": None}
    draw(tmp_path / "masks" / "a.png", 7)
    pictures, files = read_folder(tmp_path, None)
    assert files[pictures[0].mask or ""].parent.name == "masks"


def test_another_folder_of_masks_can_be_named(tmp_path: Path) -> None:
    draw(tmp_path / "in" / "a.png", 0)
    draw(tmp_path / "cut" / "a.tif", 9)
    pictures, files = read_folder(tmp_path / "in", tmp_path / "cut")
    assert files[pictures[0].mask or ""].name == "a.tif"


def test_hints_lead_to_the_subject(tmp_path: Path) -> None:
    draw(tmp_path / "a.png", 0)
    draw(tmp_path / "b.png", 1)
    (tmp_path / "hints.json").write_text('{"a.png": {"box": [0.1, 0.2, 0.5, 0.6]}, "b.png": {"point": [0.5, 0.25]}}')
    first, second = read_folder(tmp_path, None)[0]
    assert first.box == Box(0.1, 0.2, 0.5, 0.6)
    assert second.point == (0.5, 0.25)


@pytest.mark.parametrize(
    ("hints", "values"),
    [
        ("{", {"problem": ...}),
        ('{"z.png": {}}', {"picture": "z.png"}),
        ('{"a.png": {"point": [0.5, 2]}}', {"picture": "a.png", "problem": ...}),
        ('{"a.png": {"box": [0.5, 0.5, 0.2, 0.6]}}', {"picture": "a.png", "problem": ...}),
    ],
)
def test_hints_that_cannot_be_used_say_why(tmp_path: Path, hints: str, values: dict[str, Any]) -> None:
    draw(tmp_path / "a.png", 0)
    (tmp_path / "hints.json").write_text(hints)
    with refused(InvalidInput, **values):
        read_folder(tmp_path, None)


def test_a_mask_without_its_one_picture_is_named(tmp_path: Path) -> None:
    draw(tmp_path / "a.png", 0)
    draw(tmp_path / "masks" / "A1.png", 0)
    with refused(InvalidInput, mask=..., pictures="no picture"):
        read_folder(tmp_path, None)
    draw(tmp_path / "A1.png", 0)
    draw(tmp_path / "A1.jpg", 0)
    with refused(InvalidInput, mask=..., pictures="more than one picture"):
        read_folder(tmp_path, None)


def test_from_one_to_twenty_pictures(tmp_path: Path) -> None:
    with refused(InvalidInput, kind="pictures"):
        read_folder(tmp_path / "nowhere", None)
    with refused(InvalidInput, count=0):
        read_folder(tmp_path, None)
    for number in range(21):
        draw(tmp_path / f"{number}.png", number)
    with refused(InvalidInput, count=21):
        read_folder(tmp_path, None)
