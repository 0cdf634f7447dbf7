"""The subject's pictures as kohya's scripts and diffusion-pipe keep them."""

from __future__ import annotations

from pathlib import Path

import pytest
from motionbooth.pictures.training_set import read_training_set
from motionbooth_protocol.errors import InvalidInput
from PIL import Image
from refused import refused


def pictures(folder: Path, *names: str) -> Path:
    folder.mkdir(parents=True)
    for number, name in enumerate(names):
        Image.new("RGB", (8, 8), (20 * number, len(folder.name), 0)).save(folder / f"{name}.png")
    return folder


def names(place: Path) -> list[str]:
    return [picture.name.removesuffix(".png") for picture in read_training_set(place).pictures]


def test_captions_are_beside_the_pictures_in_one_line(tmp_path: Path) -> None:
    folder = pictures(tmp_path / "in", "a", "b")
    (folder / "a.txt").write_text("a sks dog\n on grass \n", encoding="utf-8")
    (folder / "readme.txt").write_text("no caption")
    assert [picture.caption for picture in read_training_set(folder).pictures] == ["a sks dog on grass", ""]
    (folder / "b.txt").write_text("x" * 1001)
    with refused(InvalidInput, picture="b.png", bound=1000):
        read_training_set(folder)


def test_a_folder_in_kohyas_form_names_token_and_class(tmp_path: Path) -> None:
    folder = pictures(tmp_path / "train" / "10_sks toy car", "a", "b")
    for place in (folder, tmp_path / "train"):
        found = read_training_set(place)
        assert (found.token, found.class_word, len(found.pictures)) == ("sks", "toy car", 2)
        assert set(found.files.values()) == {folder / "a.png", folder / "b.png"}
    plain = read_training_set(pictures(tmp_path / "plain", "a"))
    assert (plain.token, plain.class_word) == (None, None)


def test_repeats_count_relative_to_each_other(tmp_path: Path) -> None:
    pictures(tmp_path / "train" / "10_sks dog", "a", "b")
    pictures(tmp_path / "train" / "5_sks dog", "c")
    assert names(tmp_path / "train") == ["a", "b", "a", "b", "c"]
    pictures(tmp_path / "train" / "999_sks dog", "d")
    with refused(InvalidInput, count=..., most=20):
        read_training_set(tmp_path / "train")


def test_folders_of_several_subjects_are_refused(tmp_path: Path) -> None:
    for name in ("10_sks dog", "10_ohwx cat"):
        pictures(tmp_path / name, "a")
    with refused(InvalidInput, subjects="ohwx cat, sks dog"):
        read_training_set(tmp_path)


def test_the_directories_of_diffusion_pipe_are_read_with_their_masks(tmp_path: Path) -> None:
    pictures(tmp_path / "one", "a")
    pictures(tmp_path / "two", "b")
    pictures(tmp_path / "cut", "b")
    file = tmp_path / "dataset.toml"
    file.write_text(
        "resolutions = [512]\nenable_ar_bucket = true\n"
        "[[directory]]\npath = 'one'\nnum_repeats = 2\n"
        f"[[directory]]\npath = '{(tmp_path / 'two').as_posix()}'\nnum_repeats = 4\nmask_path = 'cut'\n"
    )
    found = read_training_set(file)
    assert [(picture.name, picture.mask is not None) for picture in found.pictures] == [
        ("a.png", False),
        ("b.png", True),
        ("b.png", True),
    ]
    with refused(InvalidInput, place=str(file), count=2):
        read_training_set(file, tmp_path / "cut")


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ("resolutions = [512]", 'has no "directory"'),
        ("[[directory]]\npath = 3", "path must be text, not a whole number"),
        ("[[directory]]\npath = 'x'\nnum_repeats = 0", "num_repeats must be at least 1"),
        ("[[directory]", "Expected ']]'"),
        ("[[directory]]\npath = 'nowhere'", "no folder of pictures at"),
    ],
)
def test_a_wrong_dataset_file_is_one_sentence(tmp_path: Path, content: str, problem: str) -> None:
    (tmp_path / "dataset.toml").write_text(content)
    with pytest.raises(InvalidInput) as refusal:
        read_training_set(tmp_path / "dataset.toml")
    assert problem in str(refusal.value)


def test_very_many_repeats_are_counted_and_not_made(tmp_path: Path) -> None:
    for name in ("1_sks dog", "1000000000000_sks dog"):
        pictures(tmp_path / name, "dog")
    with refused(InvalidInput, count=1000000000001):
        read_training_set(tmp_path)
