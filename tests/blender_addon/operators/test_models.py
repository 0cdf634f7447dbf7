"""An admin fetches, checks and removes a backend's models from Blender, with `motionbooth serve` and a hub here."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from local_hub import LocalHub
from refused import refused_by_operator
from running_backend import wait_until

bpy = pytest.importorskip("bpy", reason="needs the bpy module, which exists for Python 3.11 and 3.13")

from motionbooth_addon._protocol.errors import InvalidInput  # noqa: E402
from motionbooth_addon.panels.models import MOTIONBOOTH_PT_published  # noqa: E402
from motionbooth_addon.preferences import preferences  # noqa: E402
from motionbooth_addon.ui_state import state  # noqa: E402
from motionbooth_protocol.connection import Connection  # noqa: E402

HUB = "cerspense/zeroscope_v2_576w"
WEIGHTS = "unet/diffusion_pytorch_model.safetensors"
Pump = Callable[..., None]


@pytest.fixture
def hub() -> Iterator[LocalHub]:
    files = {"model_index.json": b"{}", "unet/config.json": b"{}", WEIGHTS: os.urandom(3_000_000)}
    with LocalHub({HUB: files}).running() as hub:
        yield hub


@pytest.fixture
def home(tmp_path: Path, hub: LocalHub) -> Iterator[Path]:
    """The folder of a running `motionbooth serve`, without models and with this hub."""
    home = tmp_path / "served home"
    variables = {"HF_ENDPOINT": hub.url, "MOTIONBOOTH_MODELS": str(tmp_path / "my models"), "HF_HUB_CACHE": str(home)}
    options = ["--home", str(home), "--address", "tcp://127.0.0.1:*", "--workers", "1"]
    command = [sys.executable, "-m", "motionbooth.cli", "serve", *options]
    process = subprocess.Popen(command, env={**os.environ, **variables}, stdout=subprocess.DEVNULL)
    wait_until(lambda: (home / "connection.json").exists() or process.poll() is not None)
    yield home
    process.terminate()
    process.wait(20)


def select(name: str) -> Any:
    index = state().published.find(name)
    state().active_published = index
    return state().published[index]


def act(pump: Pump, operator: Any, name: str = "zeroscope") -> Any:
    """The row of the model after an operator on it has ended."""
    select(name)
    assert operator() == {"FINISHED"}
    pump(lambda: select(name).doing)
    pump(lambda: not select(name).doing)
    return select(name)


def test_an_admin_gets_checks_and_removes_a_model(
    at_work: Any, home: Path, hub: LocalHub, tmp_path: Path, pump: Pump
) -> None:
    preferences().connection_file = str(home / "connection.json")
    pump(lambda: len(state().published))
    assert MOTIONBOOTH_PT_published.poll(bpy.context)
    assert not any(row.here for row in state().published)
    assert select("zeroscope").title == "Zeroscope v2 576w"
    with refused_by_operator(InvalidInput):
        bpy.ops.motionbooth.get_model()
    row = act(pump, bpy.ops.motionbooth.offer_model)
    assert (row.size, row.here, hub.served) == ("3 MB", False, [])
    assert [(one.name, one.page) for one in row.licenses] == [("cc-by-nc-4.0", f"https://huggingface.co/{HUB}")]
    hub.slow.add(WEIGHTS)
    assert bpy.ops.motionbooth.get_model() == {"FINISHED"}
    pump(lambda: select("zeroscope").stage == "fetching the model")
    assert bpy.ops.motionbooth.cancel_model() == {"FINISHED"}
    pump(lambda: not select("zeroscope").doing)
    assert not select("zeroscope").here
    hub.slow.clear()
    assert "zeroscope" not in state().models
    row = act(pump, bpy.ops.motionbooth.get_model)
    assert row.here, row.outcome
    pump(lambda: "zeroscope" in state().models)
    assert state().models["zeroscope"].width == 576
    (tmp_path / "my models" / "zeroscope" / WEIGHTS).write_bytes(b"torn")
    row = act(pump, bpy.ops.motionbooth.check_model)
    assert row.failed
    assert "missing or damaged" in row.outcome
    row = act(pump, bpy.ops.motionbooth.remove_model)
    assert not row.here
    pump(lambda: "zeroscope" not in state().models)


def test_others_than_admins_see_no_models(at_work: Any, drawing_home: Path, tmp_path: Path, pump: Pump) -> None:
    import zmq

    public, secret = (key.decode() for key in zmq.curve_keypair())
    (drawing_home / "authorized" / "ann.pub").write_text(public)
    admin = Connection.read(drawing_home / "connection.json")
    Connection(admin.address, admin.server_public, public, secret).write(tmp_path / "ann.json")
    preferences().connection_file = str(tmp_path / "ann.json")
    pump(lambda: state().connection == "CONNECTED")
    assert not MOTIONBOOTH_PT_published.poll(bpy.context)
    assert not bpy.ops.motionbooth.offer_model.poll()
    at_work.manage_model("zeroscope", "get", license_accepted=True)
    pump(lambda: "Only admins can see and fetch the backend's models" in state().notice)
