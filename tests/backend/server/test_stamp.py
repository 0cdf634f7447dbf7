"""What tells the server that a model is not the same any more."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from motionbooth.models.sources import TOYBOX, stamp


def test_a_stamp_is_another_one_for_any_change_of_any_file_of_the_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(TOYBOX, tmp_path / "mine")
    monkeypatch.setenv("MOTIONBOOTH_MODELS", str(tmp_path))
    stamps = [stamp("mine")]
    assert stamp("mine") == stamps[0]
    for path in ("vae/config.json", "motionbooth.json"):
        (tmp_path / "mine" / path).write_text((tmp_path / "mine" / path).read_text() + " ")
        stamps.append(stamp("mine"))
    os.utime(next((tmp_path / "mine" / "unet").glob("*.safetensors")), (1, 1))
    stamps.append(stamp("mine"))
    assert len(set(stamps)) == 4
    assert stamp("none such") == ""
