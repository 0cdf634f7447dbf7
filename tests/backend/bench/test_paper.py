"""`motionbooth bench paper` runs to the end on toybox with tiny measuring networks, and continues where it stopped."""

import json
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import cv2
import msgspec
import numpy as np
import pytest
from motionbooth.bench.paper import PaperBench, _ahead
from motionbooth.bench.paper_cells import (
    TOKEN,
    Cell,
    Extent,
    Pairs,
    Subject,
    camera_cells,
    in_plain_words,
    subject_cells,
    subjects_in,
)
from motionbooth.bench.paper_engines import ThisProcess, run_rival
from motionbooth.bench.paper_tables import Results, Row, latex, markdown, row_of
from motionbooth.cli.app import app
from motionbooth.demo import local_backend
from motionbooth.evaluation.networks import load_networks
from motionbooth.generation.script import Script
from motionbooth.generation.video import write_clip
from motionbooth.models.sources import MODELS, Source, source_named
from motionbooth_lab.bench.subjects import unseen_subjects
from motionbooth_protocol.client import Client
from motionbooth_protocol.connection import Connection
from motionbooth_protocol.errors import InvalidInput, MotionBoothError, NotFound
from PIL import Image
from refused import refused, refused_by_command
from tiny_networks import save_networks
from typer.testing import CliRunner

RIVAL = """
import json, sys
import numpy as np
from motionbooth.generation.video import write_clip
spec = json.load(open(sys.argv[1]))["generate"]
frames = np.random.default_rng(spec["seed"]).integers(0, 256, (5, 128, 192, 3), dtype=np.uint8)
write_clip(sys.argv[2], frames, 8)
"""
QUICK = ["--box-pairs", "1", "--camera-pairs", "1", "--training-steps", "1", "--sampling-steps", "2"]


def save_subject(folder: Path) -> None:
    """The robot of the laboratory: three pictures with their masks."""
    folder.mkdir(parents=True)
    robot = unseen_subjects()[0]
    for number in (1, 2, 3):
        Image.fromarray(robot.pictures[number]).save(folder / f"{number}.png")
        Image.fromarray(robot.masks[number]).save(folder / f"{number}_mask.png")


def command(folder: Path, *options: str) -> list[str]:
    named = {"subjects": folder / "my subjects", "measures": folder / "networks", "out": folder / "out"}
    return ["bench", "paper", *(part for name, path in named.items() for part in (f"--{name}", str(path))), *options]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With the results of a run of one recipe, a rival and one pair of each kind."""
    folder = tmp_path_factory.mktemp("bench paper")
    save_subject(folder / "my subjects" / "robot 1")
    save_networks(folder / "networks")
    (folder / "rival.py").write_text(RIVAL)
    ran = CliRunner().invoke(app, command(folder, *options(folder)))
    assert ran.exit_code == 0, ran.output
    assert "4 of 4 clips are measured" in ran.output
    return folder


def options(folder: Path) -> list[str]:
    rival = f'CameraCtrl, by noise="{sys.executable}" "{folder / "rival.py"}"'
    return ["--recipes", "motionbooth", "--rival", rival, *QUICK]


def results(folder: Path) -> Results:
    return msgspec.json.decode((folder / "out" / "results.json").read_bytes(), type=Results)


def test_every_figure_of_the_clips_that_were_run_is_in_the_tables(folder: Path) -> None:
    rows = {(row.table, row.method): row for row in results(folder).rows}
    assert list(rows) == [
        ("subject", "motionbooth"),
        ("camera", "camera control"),
        ("camera", "plain words"),
        ("camera", "CameraCtrl, by noise"),
        ("camera", "AnimateDiff"),
    ]
    run = [row for row in rows.values() if row.of]
    assert [(row.clips, row.of) for row in run] == [(1, 1)] * 4
    assert [name for name, value in rows["subject", "motionbooth"].figures.items() if value is None] == []
    assert (
        rows["camera", "CameraCtrl, by noise"].figures["t_cons"] != rows["camera", "camera control"].figures["t_cons"]
    )
    assert rows["camera", "AnimateDiff"] == Row("camera", "toybox", "AnimateDiff", 0, 0)
    text = (folder / "out" / "results.md").read_text()
    assert "| toybox | AnimateDiff |  |  |  |  |  |  |" in text
    assert all(card.sha256 in text for card in results(folder).networks)
    assert text.count("the product's own") >= 2
    tex = (folder / "out" / "results.tex").read_text()
    assert r"toybox & motionbooth & 1 & " in tex
    printed = "".join(line for line in tex.replace(r"\allowbreak ", "").splitlines() if not line.startswith("%"))
    assert all(card.sha256 in printed for card in results(folder).networks)


def test_only_what_is_missing_is_done_again(folder: Path) -> None:
    before, figures = times(folder), results(folder)
    lost = folder / "out" / "clips" / "camera" / "toybox" / "plain-words" / "camera01-seed0.mp4"
    clip = lost.read_bytes()
    lost.unlink()
    ran = CliRunner().invoke(app, command(folder, *options(folder)))
    assert ran.exit_code == 0, ran.output
    after = times(folder)
    assert lost.read_bytes() == clip
    assert {path for path in before if after[path] != before[path]} == {lost, lost.with_suffix(".inputs")}
    assert results(folder) == figures


def times(folder: Path) -> dict[Path, int]:
    files = [path for part in ("clips", "trained") for path in (folder / "out" / part).rglob("*") if path.is_file()]
    return {path: path.stat().st_mtime_ns for path in files}


def test_a_failing_rival_is_named_and_the_other_results_are_kept(folder: Path) -> None:
    rival = f'broken="{sys.executable}" -c "raise SystemExit(3)"'
    ran = CliRunner().invoke(app, command(folder, "--recipes", "motionbooth", "--rival", rival, *QUICK))
    assert ran.exit_code == 1
    assert "failed (exit status 3): it wrote no clip" in ran.output.replace("\n", " ")
    rows = {row.method: row for row in results(folder).rows}
    assert rows["motionbooth"].clips == 1
    assert (rows["broken"].clips, rows["broken"].of) == (0, 1)
    assert "| toybox | broken | 0 of 1 |" in markdown(results(folder))


@pytest.mark.slow
def test_a_backend_does_the_work(tmp_path: Path) -> None:
    save_subject(tmp_path / "my subjects" / "robot")
    save_networks(tmp_path / "networks")
    with local_backend(tmp_path / "home") as connection:
        run = command(tmp_path, "--recipes", "motionbooth", "--connection", str(connection), *QUICK)
        ran = CliRunner().invoke(app, run)
        assert ran.exit_code == 0, ran.output
        assert [row.clips for row in results(tmp_path).rows if row.of] == [1, 1, 1]
        refused_by_command([*run, "--models", "no such model"], NotFound, name="no such model")
        with Client(Connection.read(connection)) as client:
            assert len(client.jobs()) == 4, "a training and three clips"


@pytest.mark.parametrize(
    ("name", "word"), [("dog", "dog"), ("dog 2", "dog"), ("dog6", "dog"), ("wolf_plushie", "wolf plushie")]
)
def test_a_subject_is_named_by_its_folder(tmp_path: Path, name: str, word: str) -> None:
    (tmp_path / name).mkdir()
    (tmp_path / "notes.txt").touch()
    (subject,) = subjects_in(tmp_path)
    assert (subject.name, subject.class_word) == (name, word)


def test_there_are_40_and_40_pairs_that_every_model_can_use() -> None:
    pairs = Pairs.read()
    assert (len(pairs.boxes), len(pairs.cameras)) == (40, 40)
    assert len({script.prompt for script in (*pairs.boxes, *pairs.cameras)}) == 80
    assert "our own" in pairs.about
    for info in (Source(name, MODELS, MODELS / f"{name}.json").info for name in ("zeroscope", "lavie", "wan-1.3b")):
        cells = [*subject_cells(Extent(seeds=2), pairs, info, "motionbooth", Subject(Path("dog 2")))]
        assert len({cell.path for cell in cells}) == 80
        for cell in cells:
            (track,) = cell.spec.shot.subjects
            assert f"a {TOKEN} dog " in cell.spec.prompt
            assert len(track.boxes) == len(cell.spec.shot.camera.offsets) == info.frames
            assert all(box is not None and box == box.clipped() for box in track.boxes)
        travels = [cell.spec.shot.camera.offsets[-1] for cell in camera_cells(Extent(), pairs, info)]
        assert all(abs(travel.dx) + abs(travel.dy) > 0.1 for travel in travels)


def test_all_cameras_with_a_box_pair_are_the_whole_product() -> None:
    extent = Extent(boxes=3, cameras_per_box=99)
    cells = [*subject_cells(extent, Pairs.read(), source_named("toybox").info, "dreambooth", Subject(Path("cat")))]
    assert len({cell.pair for cell in cells}) == 3 * 40


def cell(method: str) -> Cell:
    return next(
        each for each in camera_cells(Extent(), Pairs.read(), source_named("toybox").info) if each.method == method
    )


def test_a_rivals_clip_of_another_shape_and_length_is_measured_by_what_the_shot_asks_of_it(folder: Path) -> None:
    """A drawn pan in a square frame, which is higher than the shot's, and in five frames instead of eight."""
    pan = msgspec.structs.replace(Pairs.read(), cameras=[Script("a castle", camera_speed=(0.4, 0.2))])
    extent = Extent(rivals={"drawn": "none"})
    cells = [*camera_cells(extent, pan, source_named("toybox").info)]
    (drawn,) = (each for each in cells if each.method == "drawn")
    texture = cv2.GaussianBlur(np.random.default_rng(3).random((256, 256, 3)), (0, 0), 3)
    texture = ((texture - texture.min()) / np.ptp(texture) * 255).astype(np.float32)
    travel = np.array([0.4, 0.2 / 1.5]) * 7 / 8 * 128  # to the last of the shot's eight frames, in pixels
    frames = [cv2.getRectSubPix(texture, (128, 128), tuple(64.0 + share * travel)) for share in np.linspace(0, 1, 5)]
    with tempfile.TemporaryDirectory() as out:
        bench = PaperBench(extent, [], pan, load_networks(folder / "networks"), ThisProcess(), Path(out))
        clip = bench._file(drawn, ".mp4")
        clip.parent.mkdir(parents=True)
        write_clip(clip, np.stack(frames).round().astype(np.uint8), 8)
        report = bench._measure(drawn)
    assert report.paper is not None
    assert report.paper.frames == 5
    assert report.flow_error_px is not None
    per_frame = float(np.hypot(*travel)) / 4
    assert report.flow_error_px < 0.03 * per_frame
    row = row_of("camera", "toybox", "drawn", [(report, 8)], 1)
    found = row.figures["median_flow"]
    assert found == pytest.approx(100 * report.flow_error_px / 128 * 4 / 7)


def test_plain_words_have_no_control_and_are_measured_by_the_same_shot_and_prompt() -> None:
    control, words = cell("camera control"), cell("plain words")
    assert words.asked == control.asked == control.spec
    assert words.spec.prompt == f"{control.spec.prompt}, the camera pans to the right"
    assert not words.spec.camera_control
    assert control.spec.camera_control
    assert in_plain_words((-0.2, 0.3)) == "the camera pans to the left and the camera tilts down"
    assert in_plain_words((0, 0)) == "the camera stands still"


def test_the_papers_figures_are_beside_those_of_its_base_models_only() -> None:
    rows = [Row("subject", model, "motionbooth", 1, 1, {"r_clip": 0.5}) for model in ("zeroscope", "toybox")]
    text = markdown(Results("pairs", ["a_b"], [], rows))
    assert "| zeroscope | motionbooth, in the paper |  | 0.667 | 0.306 |  |  | 0.252 |" in text
    assert text.count("in the paper |") == 1
    assert r"a\_b" not in text
    assert r"a\_b" in latex(Results("pairs", ["a_b"], [], rows))


def test_jobs_are_begun_ahead_and_finished_in_order() -> None:
    log: list[str] = []

    def begin(number: int) -> Callable[[], None]:
        log.append(f"begin {number}")
        return lambda: log.append(f"finish {number}")

    for _, finish in _ahead(range(3), begin, 2):
        finish()
    assert log == ["begin 0", "begin 1", "finish 0", "begin 2", "finish 1", "finish 2"]


def test_what_cannot_be_used_is_named(tmp_path: Path) -> None:
    with refused(InvalidInput, folder=str(tmp_path)):
        subjects_in(tmp_path)
    (tmp_path / "7").mkdir()
    with refused(InvalidInput, folder=str(tmp_path / "7"), found=...):
        subjects_in(tmp_path)
    (tmp_path / "pairs.json").write_text(json.dumps({"about": "", "boxes": [{"promt": "a dog"}], "cameras": []}))
    with refused(InvalidInput, path=str(tmp_path / "pairs.json"), name="prompt"):
        Pairs.read(tmp_path / "pairs.json")
    with refused(MotionBoothError, status=1, reason="ValueError: 1"):
        run_rival(f'"{sys.executable}" -c "raise ValueError(1)"', cell("camera control").spec, tmp_path / "clip.mp4")
    for wrong in ("no-such-program", f'"{sys.executable}'):
        with refused(MotionBoothError, command=wrong, status=127):
            run_rival(wrong, cell("camera control").spec, tmp_path / "clip.mp4")
    warns = f'"{sys.executable}" -W always -c "import warnings; warnings.warn(str(1))"'
    with refused(MotionBoothError, status=0, reason="it wrote no clip"):
        run_rival(warns, cell("camera control").spec, tmp_path / "clip.mp4")
    bad = CliRunner().invoke(app, command(tmp_path, "--rival", "CameraCtrl"))
    assert bad.exit_code == 2
    assert "NAME=COMMAND" in bad.output
