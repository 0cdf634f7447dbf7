"""Pictures and their masks in a folder, as extension and backend find them."""

from __future__ import annotations

from pathlib import Path

from motionbooth_protocol.picture_files import caption_beside, pictures_with_masks


def test_a_mask_belongs_to_the_picture_beside_it_and_other_files_are_no_pictures(tmp_path: Path) -> None:
    for name in ("dog.JPG", "dog_mask.png", "gas_mask.png", "cat.heic", "._dog.jpg", "notes.txt"):
        (tmp_path / name).touch()
    (tmp_path / "folder.png").mkdir()
    found = [(picture.name, mask and mask.name) for picture, mask in pictures_with_masks(tmp_path)]
    assert found == [("cat.heic", None), ("dog.JPG", "dog_mask.png"), ("gas_mask.png", None)]
    assert pictures_with_masks(tmp_path / "nowhere") == []


def test_a_caption_is_the_text_beside_the_picture_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "dog.txt").write_text(" a sks dog\n\non grass ", encoding="utf-8")
    assert caption_beside(tmp_path / "dog.jpg") == "a sks dog on grass"
    (tmp_path / "imp.txt").write_text("a sks imp", encoding="utf-8-sig")  # as Windows' editor writes it
    assert caption_beside(tmp_path / "imp.jpg") == "a sks imp"
    assert caption_beside(tmp_path / "cat.jpg") == ""
