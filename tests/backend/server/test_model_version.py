"""The version of a model changes with its files."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from motionbooth.models.sources import TOYBOX, model_version


def test_any_change_of_any_file_of_a_model_changes_its_version(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(TOYBOX, tmp_path / "mine")
    monkeypatch.setenv("MOTIONBOOTH_MODELS", str(tmp_path))
    versions = [model_version("mine")]
    assert model_version("mine") == versions[0]
    for path in ("vae/config.json", "motionbooth.json"):
        (tmp_path / "mine" / path).write_text((tmp_path / "mine" / path).read_text() + " ")
        versions.append(model_version("mine"))
    os.utime(next((tmp_path / "mine" / "unet").glob("*.safetensors")), (1, 1))
    versions.append(model_version("mine"))
    assert len(set(versions)) == 4
    assert model_version("none such") == ""
