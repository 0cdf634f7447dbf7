"""The batch program for one file, in a process, against the real server with a model that draws."""

from __future__ import annotations

import hashlib
import json
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import zmq
from refused import assert_says, refused

bpy = pytest.importorskip("bpy", reason="needs the bpy module, which exists for Python 3.11 and 3.13")

from motionbooth.cli.demo import DEMO_SCENE  # noqa: E402
from motionbooth.generation.video import read_clip  # noqa: E402
from motionbooth_addon import compat  # noqa: E402
from motionbooth_addon._protocol.errors import InvalidInput  # noqa: E402
from motionbooth_addon.batch import generate_file, generate_shots  # noqa: E402
from motionbooth_addon.capture import shots  # noqa: E402
from motionbooth_addon.timeline import clips  # noqa: E402
from motionbooth_protocol.client import Client  # noqa: E402
from motionbooth_protocol.connection import Connection  # noqa: E402
from motionbooth_protocol.errors import ErrorReport  # noqa: E402
from motionbooth_protocol.jobs import GenerateSpec  # noqa: E402
from motionbooth_protocol.reports import ProgressReport  # noqa: E402

SUBJECT_COLOR, GREY = (200, 60, 20), (90, 90, 90)


def batch_command(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "motionbooth_addon.batch.generate_file", *map(str, arguments)]


def run_batch(*arguments: object, largest_file: int | None = None) -> tuple[int, list[dict[str, Any]]]:
    """Exit status, and every line of standard output. Files cannot grow above `largest_file` bytes."""
    command = batch_command(*arguments)
    if largest_file is not None:
        command = ["prlimit", f"--fsize={largest_file}", *command]
    process = subprocess.run(command, capture_output=True, text=True, timeout=120)
    return process.returncode, [json.loads(line) for line in process.stdout.splitlines()]


def error_of(reports: list[dict[str, Any]]) -> ErrorReport:
    """The error that was reported last."""
    return msgspec.convert(reports[-1]["error"], ErrorReport)


@pytest.fixture(scope="module")
def generated(connection_file: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[dict[str, Any]]]:
    """The generated demo scene: the output folder, and the reports."""
    out = tmp_path_factory.mktemp("out")
    before = DEMO_SCENE.read_bytes()
    status, reports = run_batch(DEMO_SCENE, "--connection", connection_file, "--out", out)
    assert status == 0, reports
    assert DEMO_SCENE.read_bytes() == before, "the original is not written"
    return out, reports


def test_all_results_are_written(generated: tuple[Path, list[dict[str, Any]]]) -> None:
    out, reports = generated
    done = reports[-1]["done"]
    assert done["blend"] == str(out / "shot.blend")
    (shot,) = done["shots"]
    assert (shot["scene"], shot["clip"], shot["shot"]) == ("Hop", str(out / "clip.mp4"), str(out / "shot.json"))
    assert all(Path(path).is_file() for path in [done["blend"], shot["clip"], shot["shot"], *shot["pictures"]["Imp"]])
    assert sorted(path.name for path in out.iterdir()) == ["clip.mp4", "shot.blend", "shot.json", "training_pictures"]


def test_every_stage_reports_its_progress(generated: tuple[Path, list[dict[str, Any]]]) -> None:
    stages = [line["stage"] for line in generated[1][:-1]]
    for earlier, later in (
        ("reading the scene", "rendering pictures"),
        ("rendering pictures", "uploading pictures"),
        ("uploading pictures", "sampling"),
        ("sampling", "downloading"),
        ("downloading", "placing the clip"),
    ):
        assert stages.index(earlier) < stages.index(later)
    assert all(set(line) == {"stage", "step", "steps", "seconds_left", "note"} for line in generated[1][:-1])


def test_the_clip_fills_the_shots_range_on_the_copys_timeline(
    generated: tuple[Path, list[dict[str, Any]]], registered: Any
) -> None:
    bpy.ops.wm.open_mainfile(filepath=str(generated[0] / "shot.blend"))
    scene = bpy.context.scene
    (strip,) = compat.strips(scene.sequence_editor)
    assert compat.strip_range(strip) == (scene.frame_start, scene.frame_end) == (1, 48)
    assert strip.name == "hop take 1"
    assert strip.filepath == "//clip.mp4"
    take = scene.motionbooth.takes[0]
    assert (take.job_id, take.clip_path) == (generated[1][-1]["done"]["shots"][0]["job"], "//clip.mp4")
    assert clips.strip_of(scene, take.job_id) == strip, "so that it can be shown, compared and removed"
    sent = msgspec.json.decode(take.settings, type=GenerateSpec)
    assert take.seed == sent.seed
    assert scene.motionbooth.subjects[0].weights == sent.shot.subjects[0].weights


def test_a_render_of_the_copys_sequencer_has_the_clips_colors(
    generated: tuple[Path, list[dict[str, Any]]], registered: Any, tmp_path: Path
) -> None:
    bpy.ops.wm.open_mainfile(filepath=str(generated[0] / "shot.blend"))
    scene = bpy.context.scene
    frames, fps = read_clip(generated[0] / "clip.mp4")
    assert fps == 24
    scene.render.image_settings.file_format = "PNG"
    for frame in (1, 30, 48):
        scene.frame_set(frame)
        scene.render.filepath = str(tmp_path / f"{frame}.png")
        bpy.ops.render.render(write_still=True)
        centers = read_png(tmp_path / f"{frame}.png")[5::10, 5::10].astype(int)  # 960 x 640 for 96 x 64
        difference = np.abs(centers - frames[frame - 1])
        assert np.percentile(difference, 97) <= 3
        assert difference.max() <= 30, "at the edges of the box, half a pixel beside it"
        subject = np.abs(centers - SUBJECT_COLOR).max(axis=-1) <= 6
        assert 0.2 < subject.mean() < 0.3, "the box takes 0.40 x 0.62 of the frame"


def read_png(path: Path) -> np.ndarray:
    image = bpy.data.images.load(str(path))
    width, height = image.size
    values = np.array(image.pixels[:]).reshape(height, width, 4)[::-1, :, :3]
    bpy.data.images.remove(image)
    return np.rint(values * 255).astype(np.uint8)


def test_shot_json_has_the_specs_that_were_submitted(generated: tuple[Path, list[dict[str, Any]]]) -> None:
    sent = msgspec.json.decode((generated[0] / "shot.json").read_bytes(), type=generate_shots.ShotFile)
    assert sent.generate.prompt == "a sks toy on the road"
    assert (sent.generate.shot.frames, sent.generate.long_shot) == (16, "windows")
    assert len(sent.train[0].subject.pictures) == 8
    assert sent.generate.shot.camera.offsets[-1].dx == pytest.approx(0.3, abs=1e-3)


def times_trained(client: Client) -> int:
    return sum(job.attempt for job in client.jobs() if job.kind == "train")


def test_a_second_run_reuses_the_trained_subject(
    generated: tuple[Path, list[dict[str, Any]]], connection_file: Path, tmp_path: Path
) -> None:
    """The turntable gives the same bytes again, so the backend returns the cached result."""
    status, reports = run_batch(DEMO_SCENE, "--connection", connection_file, "--out", tmp_path, "--seed", 8)
    assert status == 0
    assert "training" not in [line.get("stage") for line in reports]
    with Client(Connection.read(connection_file)) as client:
        assert times_trained(client) == 1
    first, second = generated[1][-1]["done"]["shots"][0], reports[-1]["done"]["shots"][0]
    assert [Path(p).read_bytes() for p in first["pictures"]["Imp"]] == [
        Path(p).read_bytes() for p in second["pictures"]["Imp"]
    ]
    assert first["job"] != second["job"]


def test_pictures_are_rendered_in_another_process(registered: Any, connection_file: Path, tmp_path: Path) -> None:
    """The threads of the connection run Python, beside which a render with Python 3.11 can crash its Blender."""
    here: list[str] = []

    @bpy.app.handlers.persistent
    def heard(scene: Any, _: Any = None) -> None:
        here.append(scene.name)

    bpy.app.handlers.render_init.append(heard)
    try:
        options, reports = generate_shots.Options(seed=11), list[ProgressReport]()
        report = generate_shots.generate(DEMO_SCENE, connection_file, tmp_path, options, reports.append)
    finally:
        bpy.app.handlers.render_init.remove(heard)
    assert not here
    (of_imp,) = report["shots"][0]["pictures"].values()
    names = [f"{index:02d}.png" for index in range(8)]
    assert of_imp == [str(tmp_path / "training_pictures" / "Imp" / name) for name in names]
    assert max(told.step for told in reports if told.stage == "rendering pictures") >= 1
    assert len(list((tmp_path / "training_pictures" / "Imp").iterdir())) == 16, "each with its mask, and nothing else"


def test_a_dry_run_writes_what_would_be_sent_and_needs_no_backend(tmp_path: Path) -> None:
    status, reports = run_batch(DEMO_SCENE, "--out", tmp_path, "--dry-run")
    assert status == 0
    assert reports[-1]["done"]["blend"] is None
    assert [path.name for path in tmp_path.iterdir()] == ["shot.json"]


def test_a_shot_of_another_aspect_ratio_is_sent_in_the_models_frame_with_a_warning(
    registered: Any, tmp_path: Path
) -> None:
    bpy.ops.wm.open_mainfile(filepath=str(DEMO_SCENE))
    plain = shots.read_shot(bpy.context.scene, 8).shot
    bpy.context.scene.render.resolution_x, bpy.context.scene.render.resolution_y = 1920, 1080
    wide = shots.read_shot(bpy.context.scene, 8).shot
    bpy.ops.wm.save_as_mainfile(filepath=str(tmp_path / "wide.blend"))
    status, reports = run_batch(tmp_path / "wide.blend", "--out", tmp_path / "out", "--dry-run")
    assert status == 0
    (shot,) = reports[-1]["done"]["shots"]
    (hidden,) = [each["values"]["hidden"] for each in shot["warnings"] if "hidden" in each["values"]]
    assert round(hidden, 2) == 0.16
    sent = json.loads((tmp_path / "out" / "shot.json").read_text())["generate"]["shot"]
    assert sent["model_frame"] == pytest.approx([0, 0.5 - 32 / 54, 1, 0.5 + 32 / 54])
    drawn, asked = wide.subjects[0].boxes[3], sent["subjects"][0]["boxes"][3]
    assert drawn is not None
    assert asked[1] == pytest.approx((drawn.y1 - sent["model_frame"][1]) / (64 / 54), abs=1e-5)
    assert plain.model_frame is None


def test_a_shot_longer_than_the_models_clip_says_what_becomes_of_it(
    registered: Any, connection_file: Path, tmp_path: Path
) -> None:
    bpy.ops.wm.open_mainfile(filepath=str(DEMO_SCENE))
    scene = bpy.context.scene
    scene.frame_end = scene.frame_start + round(3 * scene.render.fps / scene.render.fps_base) - 1
    bpy.ops.wm.save_as_mainfile(filepath=str(tmp_path / "long.blend"))
    for choice, said in (
        ("windows", {"seconds": 3.0, "own": 1.0, "frames": 24, "windows": 5}),  # 8 frames at 8 fps
        ("spread", {"seconds": 3.0, "own": 1.0, "times": 3.0}),
    ):
        out = tmp_path / choice
        options = [] if choice == "windows" else ["--long-shot", choice]
        files = tmp_path / "long.blend", "--connection", connection_file, "--out", out
        status, reports = run_batch(*files, *options)
        assert status == 0
        (shot,) = reports[-1]["done"]["shots"]
        (longer,) = [each["values"] for each in shot["warnings"] if "own" in each["values"]]
        assert longer == pytest.approx(said)
        sent = json.loads((out / "shot.json").read_text())["generate"]
        assert sent["long_shot"] == choice
        assert len(sent["shot"]["camera"]["offsets"]) == said.get("frames", 8)


def test_a_style_is_sent_beside_a_subject_that_is_trained_first(
    registered: Any, connection_file: Path, tmp_path: Path
) -> None:
    bpy.ops.wm.open_mainfile(filepath=str(DEMO_SCENE))
    settings = bpy.context.scene.motionbooth
    settings.prompt = "a sks toy on the snow"
    style = settings.styles.add()
    style.path, style.strength = "//style.safetensors", 0.25
    (tmp_path / "style.safetensors").write_bytes(b"\xf0 a LoRA")
    bpy.ops.wm.save_as_mainfile(filepath=str(tmp_path / "styled.blend"))
    status, reports = run_batch(tmp_path / "styled.blend", "--connection", connection_file, "--out", tmp_path / "out")
    assert status == 0, reports
    sent = json.loads((tmp_path / "out" / "shot.json").read_bytes())["generate"]
    assert sent["styles"] == [{"weights": hashlib.sha256(b"\xf0 a LoRA").hexdigest(), "strength": 0.25}]
    assert sent["shot"]["subjects"][0]["weights"]
    frames, _ = read_clip(tmp_path / "out" / "clip.mp4")
    assert abs(int(frames[0, 2, 2, 0]) - 0xF0) < 4, "the backend's worker had the file"


def test_a_simulated_subject_is_read_by_playback_with_a_warning(scene: Any, add_subject: Any, tmp_path: Path) -> None:
    bpy.ops.mesh.primitive_cube_add(size=1, location=(0, 10, 2))
    falling = bpy.context.object
    bpy.ops.rigidbody.object_add()
    subject = add_subject(scene, falling)
    subject.token = ""
    scene.motionbooth.prompt = "a toy on the grass"
    bpy.ops.wm.save_as_mainfile(filepath=str(tmp_path / "falling.blend"))
    status, reports = run_batch(tmp_path / "falling.blend", "--out", tmp_path / "out", "--dry-run")
    assert status == 0, reports
    (shot,) = reports[-1]["done"]["shots"]
    (played,) = [each["values"] for each in shot["warnings"] if "reason" in each["values"]]
    assert (played["subject"], played["reason"]["template"]) == ("Imp", "rigid body")
    boxes = json.loads((tmp_path / "out" / "shot.json").read_text())["generate"]["shot"]["subjects"][0]["boxes"]
    assert boxes[-1][1] > boxes[0][1] + 0.2, "it falls"


def test_an_interrupt_cancels_the_job_and_leaves_no_process(
    generated: tuple[Path, list[dict[str, Any]]], connection_file: Path, tmp_path: Path
) -> None:
    scene = generated[0] / "shot.blend"  # its subject is trained
    process = subprocess.Popen(
        batch_command(scene, "--connection", connection_file, "--out", tmp_path, "--seed", 999),
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert process.stdout is not None
    with process.stdout:
        for line in process.stdout:
            if json.loads(line).get("stage") == "sampling":
                process.send_signal(signal.SIGINT)
                break
    assert process.wait(20) == 130
    with Client(Connection.read(connection_file)) as client:
        newest = client.jobs()[0]
        deadline = time.monotonic() + 10
        while newest.state == "running" and time.monotonic() < deadline:
            time.sleep(0.1)
            newest = client.get(newest.id)
        assert newest.state == "canceled"


def test_two_scenes_are_two_shots_and_a_second_take_is_placed_above_the_first(
    generated: tuple[Path, list[dict[str, Any]]], registered: Any, connection_file: Path, tmp_path: Path
) -> None:
    bpy.ops.wm.open_mainfile(filepath=str(generated[0] / "shot.blend"))
    second = bpy.context.scene.copy()
    second.name, second.use_fake_user = "Hop Again", True
    second.frame_start, second.frame_end = 10, 33
    bpy.data.scenes.new("No Shot")
    bpy.ops.wm.save_as_mainfile(filepath=str(tmp_path / "two.blend"))
    out = tmp_path / "out"
    reports: list[ProgressReport] = []
    report = generate_shots.generate(
        tmp_path / "two.blend", connection_file, out, generate_shots.Options(), reports.append
    )
    assert [shot["scene"] for shot in report["shots"]] == ["Hop", "Hop Again"]
    assert "rendering pictures" not in [report.stage for report in reports], "the subject is trained"
    assert (out / "Hop" / "clip.mp4").is_file()
    assert len(read_clip(out / "Hop_Again" / "clip.mp4")[0]) == 24
    assert strips_of("Hop") == [(1, (1, 48)), (2, (1, 48))]
    assert strips_of("Hop Again") == [(1, (1, 48)), (2, (10, 33))]
    assert [len(bpy.data.scenes[name].motionbooth.takes) for name in ("Hop", "Hop Again")] == [2, 2]
    assert [strip.mute for strip in compat.strips(bpy.data.scenes["Hop"].sequence_editor)] == [True, False]


def strips_of(scene: str) -> list[tuple[int, tuple[int, int]]]:
    """Channel and range of each strip."""
    strips = compat.strips(bpy.data.scenes[scene].sequence_editor)
    return sorted((strip.channel, compat.strip_range(strip)) for strip in strips)


def broken_scene(tmp_path: Path, break_it: Callable[[Any, Any], None]) -> Path:
    """The demo scene with an error."""
    bpy.ops.wm.open_mainfile(filepath=str(DEMO_SCENE))
    scene = bpy.context.scene
    break_it(scene, scene.motionbooth.subjects[0])
    path = tmp_path / "broken.blend"
    bpy.ops.wm.save_as_mainfile(filepath=str(path), copy=True)
    return path


def no_camera(scene: Any, subject: Any) -> None:
    scene.camera = None


def no_subject(scene: Any, subject: Any) -> None:
    scene.motionbooth.subjects.clear()


def no_token_in_the_prompt(scene: Any, subject: Any) -> None:
    scene.motionbooth.prompt = "a toy on the grass"


def no_training_source(scene: Any, subject: Any) -> None:
    subject.training_object = None


def missing_folder(scene: Any, subject: Any) -> None:
    subject.training_object, subject.training_images = None, "//nowhere/"


def background_words_not_in_the_prompt(scene: Any, subject: Any) -> None:
    scene.motionbooth.background_phrase = "beach"


def missing_style(scene: Any, subject: Any) -> None:
    scene.motionbooth.styles.add().path = "//nowhere.safetensors"


def unknown_model(scene: Any, subject: Any) -> None:
    scene.motionbooth.model = "zeroscope"


def one_frame(scene: Any, subject: Any) -> None:
    scene.frame_end = scene.frame_start


def never_visible(scene: Any, subject: Any) -> None:
    subject.object.parent = None


@pytest.mark.parametrize(
    ("break_it", "values"),
    [
        (no_camera, {"scene": "Hop"}),
        (no_subject, {"blend": ...}),
        (no_token_in_the_prompt, {"phrase": "sks toy", "subject": "Imp"}),
        (no_training_source, {"subject": "Imp"}),
        (missing_folder, {"subject": "Imp", "folder": ...}),
        (background_words_not_in_the_prompt, {"background": "beach"}),
        (missing_style, {"scene": "Hop", "path": ...}),
        (unknown_model, {"name": "zeroscope", "known": "toybox"}),
        (one_frame, {"scene": "Hop", "start": 1}),
        (never_visible, {"subject": "Imp", "object": "Subject Box"}),
    ],
)
def test_bad_input_is_one_sentence_and_nothing_is_sent(
    break_it: Callable[..., None], values: dict[str, Any], registered: Any, connection_file: Path, tmp_path: Path
) -> None:
    scene = broken_scene(tmp_path, break_it)
    with Client(Connection.read(connection_file)) as client:
        before = client.jobs()
        with refused(InvalidInput, **values):
            generate_shots.generate(
                scene, connection_file, tmp_path / "out", generate_shots.Options(), lambda message: None
            )
        assert client.jobs() == before
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("content", [None, b"not a blend", b""])
def test_a_file_that_is_not_a_blend_is_refused(content: bytes | None, registered: Any, tmp_path: Path) -> None:
    path = tmp_path / "scene.blend"
    if content is not None:
        path.write_bytes(content)
    with refused(InvalidInput, blend=str(path)):
        generate_shots.generate(path, None, tmp_path, generate_shots.Options(dry_run=True), lambda message: None)


def test_the_scenes_render_guides_the_clip(connection_file: Path, tmp_path: Path) -> None:
    """The demo's subject is a box, which is not rendered: only the background follows."""
    strengths = ("--subject-strength", 0.5, "--background-strength", 0.4)
    status, reports = run_batch(DEMO_SCENE, "--connection", connection_file, "--out", tmp_path, *strengths)
    assert status == 0, reports
    assert "rendering the guide" in {report["stage"] for report in reports if "stage" in report}
    guide = msgspec.json.decode((tmp_path / "shot.json").read_bytes(), type=generate_shots.ShotFile).generate.guide
    assert guide is not None
    assert (guide.subject_strength, guide.background_strength, guide.masks) == (0.0, 0.4, None)
    assert guide.clip == hashlib.sha256((tmp_path / "guide.png").read_bytes()).hexdigest()


def test_a_given_clip_guides_the_clip(connection_file: Path, tmp_path: Path) -> None:
    """Inside the subject's box, too."""
    (tmp_path / "take.mp4").write_bytes(b"a clip, for all that the stand-in for a model knows")
    status, reports = run_batch(
        DEMO_SCENE, "--connection", connection_file, "--out", tmp_path / "out", "--guide", tmp_path / "take.mp4"
    )
    assert status == 0, reports
    assert "rendering the guide" not in {report["stage"] for report in reports if "stage" in report}
    shot = msgspec.json.decode((tmp_path / "out" / "shot.json").read_bytes(), type=generate_shots.ShotFile)
    guide = shot.generate.guide
    assert guide is not None
    assert (guide.subject_strength, guide.background_strength, guide.masks) == (0.5, 0.3, None)
    assert guide.clip == hashlib.sha256((tmp_path / "take.mp4").read_bytes()).hexdigest()
    assert not (tmp_path / "out" / "guide.png").exists()


def test_a_guide_that_does_not_exist_is_refused_at_once(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="2"):
        generate_file.main([str(DEMO_SCENE), "--out", str(tmp_path), "--dry-run", "--guide", str(tmp_path / "no.mp4")])


def test_an_unknown_master_is_refused_at_once_with_the_known_ones(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match="2"):
        generate_file.main([str(DEMO_SCENE), "--out", str(tmp_path), "--dry-run", "--master", "gif"])
    assert "prores-4444" in capsys.readouterr().err


def test_another_model_than_the_scenes_can_be_chosen(connection_file: Path, tmp_path: Path) -> None:
    status, _ = run_batch(DEMO_SCENE, "--out", tmp_path, "--dry-run", "--model", "wantoy")
    assert status == 0
    assert json.loads((tmp_path / "shot.json").read_bytes())["generate"]["model"] == "wantoy"
    status, reports = run_batch(DEMO_SCENE, "--out", tmp_path, "--model", "wantoy", "--connection", connection_file)
    assert status == 2
    assert_says(error_of(reports), name="wantoy", known="toybox")


@pytest.mark.parametrize("words", [["--seed", str(2**31)], ["--seed", "-1"], ["--training-steps", "0"]])
def test_numbers_out_of_range_are_refused_at_once(tmp_path: Path, words: list[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        generate_file.main([str(DEMO_SCENE), "--out", str(tmp_path), "--dry-run", *words])
    assert not list(tmp_path.iterdir())


def test_bad_input_ends_the_process_with_status_2_and_its_sentence(tmp_path: Path) -> None:
    status, reports = run_batch(tmp_path / "none.blend", "--out", tmp_path, "--dry-run")
    assert status == 2
    assert error_of(reports).code == "invalid_input"
    assert_says(error_of(reports), blend=str(tmp_path / "none.blend"))


def test_a_wrong_key_is_reported_and_ends_with_status_1(connection_file: Path, tmp_path: Path) -> None:
    stranger = msgspec.structs.replace(
        Connection.read(connection_file), **dict(zip(("client_public", "client_secret"), new_keys(), strict=True))
    )
    stranger.write(tmp_path / "connection.json")
    status, reports = run_batch(DEMO_SCENE, "--connection", tmp_path / "connection.json", "--out", tmp_path / "out")
    assert status == 1
    assert reports[-1]["error"]["code"] == "not_authorized"


def new_keys() -> tuple[str, str]:
    public, secret = zmq.curve_keypair()
    return public.decode(), secret.decode()


def test_a_missing_backend_is_reported_with_how_to_start_one(tmp_path: Path) -> None:
    status, reports = run_batch(DEMO_SCENE, "--connection", tmp_path / "none.json", "--out", tmp_path)
    assert status == 1
    assert_says(error_of(reports), path=str(tmp_path / "none.json"))


def test_a_folder_that_cannot_be_written_is_reported(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    status, reports = run_batch(DEMO_SCENE, "--out", tmp_path / "file", "--dry-run")
    assert status == 2
    assert_says(error_of(reports), path=..., reason=...)


@pytest.mark.skipif(shutil.which("prlimit") is None, reason="limits the size of files with prlimit")
def test_a_full_disk_is_reported_and_existing_files_are_kept(
    generated: tuple[Path, list[dict[str, Any]]], connection_file: Path, tmp_path: Path
) -> None:
    (tmp_path / "shot.blend").write_bytes(b"an older result")
    scene = generated[0] / "shot.blend"
    status, reports = run_batch(scene, "--connection", connection_file, "--out", tmp_path, largest_file=60_000)
    assert status == 1, reports
    assert reports[-1]["error"]["code"] == "out_of_space"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["clip.mp4", "shot.blend", "shot.json"]
    assert (tmp_path / "shot.blend").read_bytes() == b"an older result"
    assert (tmp_path / "clip.mp4").read_bytes() == (generated[0] / "clip.mp4").read_bytes()
    status, reports = run_batch(scene, "--out", tmp_path, "--dry-run", largest_file=1_000)
    assert (status, reports[-1]["error"]["code"]) == (1, "out_of_space")


def test_a_subject_can_be_trained_on_pictures_in_a_folder(
    generated: tuple[Path, list[dict[str, Any]]], registered: Any, connection_file: Path, tmp_path: Path
) -> None:
    def use_folder(scene: Any, subject: Any) -> None:
        subject.training_object, subject.training_images = None, "//photos/"

    shutil.copytree(generated[0] / "training_pictures" / "Imp", tmp_path / "photos")
    (tmp_path / "photos" / "notes.txt").write_text("no picture")
    scene = broken_scene(tmp_path, use_folder)
    status, reports = run_batch(scene, "--connection", connection_file, "--out", tmp_path / "out")
    assert status == 0, reports
    with Client(Connection.read(connection_file)) as client:
        assert times_trained(client) == 1, "the same pictures are the same subject"
    (tmp_path / "photos" / "00.png").write_bytes(b"no picture")
    status, reports = run_batch(scene, "--connection", connection_file, "--out", tmp_path / "out")
    assert status == 2
    assert_says(error_of(reports), file=str(tmp_path / "photos" / "00.png"))
