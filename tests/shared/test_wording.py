"""Decoding errors for people, and the valid tokens and classes of a subject."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
from motionbooth_protocol.errors import InvalidInput
from motionbooth_protocol.jobs import GenerateSpec, Picture, SubjectSpec, TrainSpec, check_spec
from motionbooth_protocol.motion import Box, CameraPath, Shot, SubjectTrack
from motionbooth_protocol.wording import class_fault, in_words, token_fault


class Script(msgspec.Struct, forbid_unknown_fields=True):
    prompt: str
    bbox: list[tuple[float, float, float, float]] = []
    picture: Picture | None = None


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "it is not complete JSON"),
        ('{"prompt"', "it is not complete JSON"),
        ('{"prompt": ?}', "it is not JSON (invalid character (byte 11))"),
        ("[]", "it must be a group of named values, not a list"),
        ("{}", 'it has no "prompt"'),
        ('{"prompt": 1}', "prompt must be text, not a whole number"),
        ('{"prompt": "", "boxes": []}', 'it has an unknown entry "boxes"'),
        ('{"prompt": "", "bbox": [[0, 0, 1]]}', "bbox[0] must have 4 entries"),
        ('{"prompt": "", "bbox": [[0, 0, 1, "x"]]}', "bbox[0][3] must be a number, not text"),
        ('{"prompt": "", "picture": {"image": "x"}}', "picture.image has the wrong format"),
    ],
)
def test_decoding_errors_are_reported_without_the_decoders_notation(text: str, said: str) -> None:
    with pytest.raises(msgspec.MsgspecError) as caught:
        msgspec.json.decode(text, type=Script)
    assert str(in_words(caught.value)) == said


def test_every_bound_of_the_contract_is_reported_without_the_decoders_notation() -> None:
    """Each bounded field of the specs, with values out of its bounds, through the real decoder."""
    train = TrainSpec(SubjectSpec("Rex", "sks", "dog", [Picture("0" * 64)]))
    track = SubjectTrack("Rex", "dog", [Box(0, 0, 1, 1)] * 2)
    generate = GenerateSpec(Shot("s", 1, 9, 24, 96, 64, CameraPath.still(2), [track]), "a dog")
    change = msgspec.structs.replace
    wrong = [
        (change(train, subject=change(train.subject, class_word="")), "the class is empty"),
        (change(train, subject=change(train.subject, token="x" * 201)), "the token must have at most 200 characters"),
        (change(train, subject=change(train.subject, pictures=[])), "the list of pictures is empty"),
        (change(train, learning_rate=2.0), "learning_rate must be at most 1"),
        (change(train, steps=0), "the steps must be at least 1"),
        (change(train, method="half"), "method has the wrong format"),
        (change(generate, prompt=""), "the prompt is empty"),
        (change(generate, master="gif"), "the master has the unknown value 'gif'"),
        (change(generate, seed=-1), "the seed must be at least 0"),
        (change(generate, seed=2**31), "the seed must be at most 2147483647"),
        (
            change(generate, shot=change(generate.shot, subjects=[track] * 17)),
            "the list of subjects must have at most",
        ),
        (change(generate, shot=change(generate.shot, fps=0.0)), "shot.fps must be at least 0.001"),
    ]
    for spec, said in wrong:
        with pytest.raises(InvalidInput) as caught:
            check_spec(spec)
        assert said in str(caught.value)
        assert not set("`$") & set(str(caught.value))
    check_spec(train)
    check_spec(generate)


def test_a_missing_file_is_reported_without_its_error_number() -> None:
    with pytest.raises(FileNotFoundError) as caught:
        Path("nowhere").read_bytes()
    assert str(in_words(caught.value)) == "No such file or directory"


@pytest.mark.parametrize("word", ["dog", "toy car", "Hündchen", "jack-in-the-box", "robot 2", "hero’s cape"])
def test_ordinary_words_are_valid_classes(word: str) -> None:
    assert class_fault(word) is None


@pytest.mark.parametrize("word", ["", " ", "42", "a;b", "a\ndog", "dog!", "x" * 65, "\x00"])
def test_other_words_are_not_valid_classes(word: str) -> None:
    assert str(class_fault(word)).startswith("must be an ordinary word")


@pytest.mark.parametrize("word", ["sks", "<new>", "zwx7", "ohwx-2"])
def test_a_rare_word_is_a_valid_token(word: str) -> None:
    assert token_fault(word) is None


@pytest.mark.parametrize("word", ["", " ", "a b", " sks", "a\tb", "...", "x" * 65, "a\x00"])
def test_anything_but_a_single_word_is_not_a_valid_token(word: str) -> None:
    assert str(token_fault(word)).startswith("must be one rare word")
