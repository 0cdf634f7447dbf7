from __future__ import annotations

import math
import re
from typing import get_args

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from motionbooth_protocol import messages
from motionbooth_protocol.codec import decode_reply, decode_request, encode
from motionbooth_protocol.errors import Malformed
from motionbooth_protocol.jobs import GenerateSpec, Picture, SubjectSpec, TrainSpec, spec_digest
from motionbooth_protocol.limits import CHUNK_BYTES, MAX_FRAMES, MAX_HEADER_BYTES, MAX_SEED, MAX_SUBJECTS
from motionbooth_protocol.motion import (
    MAX_COLUMNS,
    MAX_ROWS,
    Box,
    CameraPath,
    CameraPose,
    Offset,
    Parallax,
    Shot,
    SubjectTrack,
)
from motionbooth_protocol.printable import PRINTABLE

PRINTABLE_CHARACTERS = st.characters(codec="utf-8").filter(lambda sign: re.match(PRINTABLE, sign))
IDENTITY = ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0))
ZOOM = ((1.123456789, 0.0, -0.123456789), (0.0, 1.123456789, -0.123456789), (0.0, 0.0, 1.0))
SHA = "0123456789abcdef" * 4
shares = st.floats(-100, 100, allow_nan=False)


@st.composite
def boxes(draw: st.DrawFn) -> Box:
    (x1, x2), (y1, y2) = (sorted(draw(st.lists(shares, min_size=2, max_size=2, unique=True))) for _ in "xy")
    return Box(x1, y1, x2, y2)


@st.composite
def shots(draw: st.DrawFn) -> Shot:
    frames = draw(st.integers(1, 12))
    offsets = [Offset(0, 0), *(Offset(draw(shares), draw(shares)) for _ in range(frames - 1))]
    tracks = st.lists(st.none() | boxes(), min_size=frames, max_size=frames).map(
        lambda track: SubjectTrack(name="toy", class_word="toy", token="sks", boxes=track, weights=SHA)
    )
    start = draw(st.integers(-1000, 1000))
    return Shot(
        name=draw(st.text(PRINTABLE_CHARACTERS, min_size=1, max_size=200)),
        frame_start=start,
        frame_end=start + draw(st.integers(1, 1000)),
        fps=draw(st.floats(1, 240)),
        width=960,
        height=640,
        camera=CameraPath(offsets),
        subjects=draw(st.lists(tracks, max_size=3)),
    )


def largest_job() -> messages.Submit:
    box = Box(0.123456789, 0.123456789, 0.923456789, 0.923456789)
    track = SubjectTrack(name="n" * 200, class_word="w" * 200, boxes=[box] * MAX_FRAMES, token="t" * 200, weights=SHA)
    maps, nearness = [IDENTITY, *[ZOOM] * (MAX_FRAMES - 1)], b"\0\x3c" * MAX_FRAMES * MAX_ROWS * MAX_COLUMNS
    row = (0.123456789, 0.123456789, 0.123456789, 12.3456789)
    camera = CameraPath(
        [Offset(0, 0), *[Offset(0.1, 0.1)] * (MAX_FRAMES - 1)],
        maps,
        [CameraPose((row, row, row), (1.123456789, 1.123456789))] * MAX_FRAMES,
        Parallax(maps, MAX_ROWS, MAX_COLUMNS, nearness),
    )
    shot = Shot(
        name="n" * 200, frame_start=1, frame_end=2000, fps=23.976, width=4096, height=2160,
        camera=camera, subjects=[track] * MAX_SUBJECTS,
    )  # fmt: skip
    return messages.Submit(id=1, job="j" * 64, spec=GenerateSpec(shot=shot, prompt="p" * 1000))


@given(shots(), st.integers(0, MAX_SEED))
def test_a_job_arrives_as_it_was_sent(shot: Shot, seed: int) -> None:
    sent = messages.Submit(id=1, job="job-00001", spec=GenerateSpec(shot=shot, prompt="a sks toy", seed=seed))
    received, payload = decode_request(encode(sent))
    assert received == sent
    assert payload is None
    assert spec_digest(received.spec) == spec_digest(sent.spec)


def test_the_largest_job_fits_a_header() -> None:
    assert len(encode(largest_job())[0]) < MAX_HEADER_BYTES
    assert decode_request(encode(largest_job()))[0] == largest_job()


@given(st.lists(st.binary(max_size=300), max_size=4))
def test_foreign_bytes_are_malformed_or_a_message_never_anything_else(frames: list[bytes]) -> None:
    for decode in (decode_request, decode_reply):
        try:
            message, _ = decode(frames)
        except Malformed:
            continue
        assert isinstance(message, messages.Request | messages.Reply)


@given(st.data())
def test_one_changed_byte_is_refused_or_still_within_all_bounds(data: st.DataObject) -> None:
    spec = GenerateSpec(shot=Shot("s", 1, 24, 24.0, 960, 640, CameraPath.straight(0.2, 0, 8)), prompt="a toy")
    header = bytearray(encode(messages.Submit(id=1, job="job-00001", spec=spec))[0])
    header[data.draw(st.integers(0, len(header) - 1))] = data.draw(st.integers(0, 255))
    try:
        message, _ = decode_request([bytes(header)])
    except Malformed:
        return
    assert decode_request(encode(message))[0] == message


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats() | st.text(max_size=20) | st.binary(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=10), inner, max_size=4),
    max_leaves=20,
)


KINDS = sorted(kind.__name__ for kind in get_args(messages.AnyRequest))


@given(st.sampled_from(KINDS), st.data())
def test_a_message_with_foreign_fields_is_malformed_or_within_bounds(kind: str, data: st.DataObject) -> None:
    names = st.sampled_from(["id", "job", "spec", "sha256", "size", "offset", "length", "version", "after_seq"])
    fields = data.draw(st.dictionaries(names, json_values, max_size=6))
    try:
        message, _ = decode_request([msgspec.msgpack.encode({"type": kind, **fields})])
    except Malformed:
        return
    assert isinstance(message, messages.Request)
    assert 0 <= message.id < 2**53


def test_a_path_without_homographies_reads_as_before_and_one_with_them_as_it_was_sent() -> None:
    old = msgspec.msgpack.encode({"offsets": [[0, 0], [0.1, 0]]})
    assert msgspec.msgpack.decode(old, type=CameraPath) == CameraPath([Offset(0, 0), Offset(0.1, 0)])
    zoom = CameraPath([Offset(0, 0)] * 2, [IDENTITY, ZOOM])
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(zoom), type=CameraPath) == zoom
    assert zoom.moves
    assert not CameraPath([Offset(0, 0)] * 2, [IDENTITY] * 2).moves


@pytest.mark.parametrize(
    ("homographies", "problem"),
    [
        ([IDENTITY], "1 homographies for 2 model frames"),
        ([ZOOM, ZOOM], "must be the identity"),
        ([((-1.0, 0.0, 0.0), (0.0, -1.0, 0.0), (0.0, 0.0, -1.0)), ZOOM], "model frame 0"),  # behind the camera
        ([IDENTITY, ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (1.0, 1.0, 0.0))], "model frame 1"),  # edge-on
        ([IDENTITY, ((-1.0, 0.0, 1.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0))], "model frame 1"),  # mirrored
        ([IDENTITY, ((math.nan, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0))], "<= 100|>= -100|model frame 1"),
        ([IDENTITY, ((101.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0))], "<= 100"),
        ([IDENTITY, ((1.0, 0.0), (0.0, 1.0), (0.0, 0.0))], "length 3"),
    ],
)
def test_homographies_that_map_nothing_are_refused(homographies: object, problem: str) -> None:
    sent = msgspec.msgpack.encode({"offsets": [[0, 0], [0, 0]], "homographies": homographies})
    with pytest.raises(msgspec.ValidationError, match=problem):
        msgspec.msgpack.decode(sent, type=CameraPath)


def test_depth_arrives_as_it_was_sent_also_in_a_file() -> None:
    deep = CameraPath(
        [Offset(0, 0)] * 2, [IDENTITY] * 2, parallax=Parallax([IDENTITY, ZOOM], 1, 2, b"\0\x3c\0\x42" * 2)
    )
    for code in (msgspec.msgpack, msgspec.json):
        assert code.decode(code.encode(deep), type=CameraPath) == deep
    assert deep.moves  # although the plane stands still


@pytest.mark.parametrize(
    ("infinity", "nearness", "problem"),
    [
        ([IDENTITY], b"\0\x3c" * 2, "parallax of 1 frames beside 2 homographies"),
        ([ZOOM, ZOOM], b"\0\x3c" * 4, "must be the identity"),
        ([IDENTITY, ZOOM], b"\0\x3c" * 3, "has 8 bytes, got 6"),
        ([IDENTITY, ZOOM], b"\0\x3c" * 3 + b"\0\x7e", "a nearness is 0 to 64"),  # nan
        ([IDENTITY, ZOOM], b"\0\x3c" * 3 + b"\0\xbc", "a nearness is 0 to 64"),  # -1
        ([IDENTITY, ZOOM], b"\0\x3c" * 3 + b"\0\x55", "a nearness is 0 to 64"),  # 80
    ],
)
def test_depth_that_says_nothing_is_refused(infinity: object, nearness: bytes, problem: str) -> None:
    depth = {"infinity": infinity, "rows": 1, "columns": 2, "nearness": nearness}
    path = {"offsets": [[0, 0], [0, 0]], "homographies": [IDENTITY, IDENTITY], "parallax": depth}
    with pytest.raises(msgspec.ValidationError, match=problem):
        msgspec.msgpack.decode(msgspec.msgpack.encode(path), type=CameraPath)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf, 1e300])
def test_nan_and_infinity_are_malformed(bad: float) -> None:
    job = msgspec.to_builtins(largest_job())
    for change in (
        lambda spec: spec.update(guidance_scale=bad),
        lambda spec: spec["shot"].update(fps=bad),
        lambda spec: spec["shot"]["camera"]["offsets"][1].__setitem__(0, bad),
        lambda spec: spec["shot"]["subjects"][0]["boxes"][0].__setitem__(2, bad),
    ):
        spec = msgspec.msgpack.decode(msgspec.msgpack.encode(job["spec"]))
        change(spec)
        with pytest.raises(Malformed):
            decode_request([msgspec.msgpack.encode({**job, "spec": spec})])


@pytest.mark.parametrize(
    "changes",
    [
        {"job": "../../etc"},
        {"job": "short"},
        {"job": "newline-at-the-end\n"},
        {"priority": 1000},
        {"id": -1},
        {"id": 2**60},
        {"spec": {"type": "other"}},
    ],
)
def test_fields_outside_their_bounds_are_malformed(changes: dict[str, object]) -> None:
    job = msgspec.to_builtins(largest_job())
    with pytest.raises(Malformed):
        decode_request([msgspec.msgpack.encode({**job, **changes})])


def test_frames_outside_their_bounds_are_malformed() -> None:
    (ping,) = encode(messages.Ping(id=1))
    for frames in ([], [ping, b"", b""], [ping, bytes(CHUNK_BYTES + 1)], [bytes(MAX_HEADER_BYTES + 1)]):
        with pytest.raises(Malformed):
            decode_request(frames)


def test_equal_specs_have_equal_digests_and_others_do_not() -> None:
    pictures = [Picture(SHA)]
    train = TrainSpec(subject=SubjectSpec("Toy", "sks", "toy", pictures))
    assert spec_digest(train) == spec_digest(TrainSpec(subject=SubjectSpec("Toy", "sks", "toy", pictures), seed=0))
    assert spec_digest(train) != spec_digest(TrainSpec(subject=SubjectSpec("Toy", "sks", "toy", pictures), seed=1))


def test_hints_for_a_mask_cross_the_wire_and_must_be_inside_the_picture() -> None:
    picture = Picture(SHA, name="IMG_7.heic", box=Box(0.1, 0.2, 0.5, 0.9), point=(0.3, 0.4))
    train = TrainSpec(SubjectSpec("Toy", "sks", "toy", [picture]), recipe="dreambooth")
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(train), type=TrainSpec) == train
    outside = msgspec.structs.replace(picture, point=(0.3, 1.4))
    with pytest.raises(msgspec.ValidationError):
        msgspec.msgpack.decode(msgspec.msgpack.encode(outside), type=Picture)


def test_a_field_that_has_a_default_may_be_left_out() -> None:
    request, _ = decode_request([msgspec.msgpack.encode({"type": "ListJobs", "id": 1})])
    assert request == messages.ListJobs(id=1, limit=100, all=False)


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"frame_start": -1_000_000, "frame_end": 1_000_000}, "at most 20000 frames"),
        ({"frame_end": 20_001}, "at most 20000 frames"),
    ],
)
def test_a_clip_of_millions_of_frames_is_refused_when_it_is_received(change: dict[str, int], problem: str) -> None:
    shot = {"name": "s", "frame_start": 1, "frame_end": 24, "fps": 24, "width": 64, "height": 64}
    spec = {"type": "generate", "shot": {**shot, "camera": {"offsets": [[0, 0]] * 2}}, "prompt": "p"}
    assert msgspec.convert(spec, GenerateSpec).shot.scene_frames == 24
    spec["shot"] |= change
    with pytest.raises(msgspec.ValidationError, match=problem):
        msgspec.convert(spec, GenerateSpec)


def test_a_training_of_a_hundred_thousand_steps_is_refused_when_it_is_received() -> None:
    subject = {"name": "s", "token": "sks", "class_word": "dog", "pictures": [{"image": "0" * 64}]}
    spec = {"type": "train", "subject": subject, "steps": 10_000}
    assert msgspec.convert(spec, TrainSpec).steps == 10_000
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert({**spec, "steps": 100_000}, TrainSpec)
