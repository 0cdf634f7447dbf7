"""CameraCtrl as a rival: a stand-in for its checkout, called as the docs say, through the bench's own interface."""

import shlex
import shutil
import sys
from pathlib import Path

import msgspec
import numpy as np
import pytest
from motionbooth.bench.cameractrl import main
from motionbooth.bench.paper_engines import run_rival
from motionbooth.evaluation.report import shot_report
from motionbooth.export.engine_shot import engine_shot
from motionbooth.generation.video import read_clip
from motionbooth_protocol.jobs import GenerateSpec
from motionbooth_protocol.motion import CameraPath, Shot

MODELS = (
    "--ori_model_path sd15 --unet_subfolder unet_webvidlora_v3 --motion_module_ckpt mm.ckpt --pose_adaptor_ckpt a.ckpt "
    "--model_config configs/adv3.yaml"
)


def checkout_in(folder: Path) -> Path:
    """A checkout of CameraCtrl in `folder`, as far as the bench needs one."""
    checkout = folder / "my CameraCtrl"
    (checkout / "configs").mkdir(parents=True)
    (checkout / "configs" / "adv3.yaml").touch()
    shutil.copy(Path(__file__).with_name("cameractrl_inference.py"), checkout / "inference.py")
    return checkout


def command(checkout: Path) -> str:
    """The rival's command, as in docs/evaluation.md."""
    python = shlex.quote(sys.executable)
    return f"{python} -m motionbooth.bench.cameractrl {shlex.quote(python)} {shlex.quote(str(checkout))} {MODELS}"


def spec(camera: CameraPath, frames: int = 24) -> GenerateSpec:
    return GenerateSpec(Shot("shot", 1, frames, 8, 576, 320, camera, []), "a castle on a hill", "zeroscope", seed=5)


def test_its_checkout_gets_the_trajectory_the_prompt_and_the_seed(tmp_path: Path) -> None:
    """The clip is wider than the shot's frame is high, has fewer frames, and its scenery moves as asked."""
    asked = spec(CameraPath.straight(0.3, 0.15, 24))
    clip = tmp_path / "clip.mp4"
    run_rival(command(checkout_in(tmp_path)), asked, clip)
    frames, _ = read_clip(clip)
    assert frames.shape == (16, 256, 384, 3)
    moved, still = (
        shot_report(frames, engine_shot(shot, 16, (384, 256)), {}).flow_error_px
        for shot in (asked.shot, spec(CameraPath.still(24)).shot)
    )
    assert moved is not None
    assert still is not None
    per_frame = np.hypot(0.3 * 384, 0.15 * 256 * 320 / 576 / (256 / 384)) * 23 / 24 / 15
    assert still == pytest.approx(per_frame, rel=0.1)
    # The camera turns, which moves the edges of its 50 degrees 1 + tan(25)^2 = 1.22 times as far as the middle,
    # and the median a little. Taken for a trajectory in 16:9, which is the default, it would be off by 0.16.
    assert moved < 0.08 * still


def test_its_own_error_and_a_camera_that_it_cannot_be_given_are_named(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    checkout, shot, clip = checkout_in(tmp_path), tmp_path / "shot.json", tmp_path / "clip.mp4"
    shot.write_bytes(msgspec.json.encode({"generate": spec(CameraPath.still(24))}))
    python = shlex.quote(sys.executable)
    with pytest.raises(SystemExit) as ended:
        main(python, str(checkout), *MODELS.split(), "--no_such_option", str(shot), str(clip))
    assert ended.value.code == 2
    assert "unrecognized arguments: --no_such_option" in capfd.readouterr().err.splitlines()[-1]
    zoom = [((s, 0.0, 0.5 - s / 2), (0.0, s, 0.5 - s / 2), (0.0, 0.0, 1.0)) for s in np.linspace(1, 1.4, 24).tolist()]
    zooming = spec(CameraPath(CameraPath.still(24).offsets, zoom))
    shot.write_bytes(msgspec.json.encode({"generate": zooming}))
    with pytest.raises(SystemExit, match="its poses are not known"):
        main(python, str(checkout), str(shot), str(clip))
    assert not clip.exists()
