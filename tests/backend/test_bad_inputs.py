"""What is wrong with models, memory, masters and configuration is told in a few words: what was wrong, and what to do.

Each case goes through the real command line or a real server.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import huggingface_hub
import pytest
from filelock import FileLock
from local_hub import LocalHub
from motionbooth.cli.app import app
from motionbooth.models.downloads import MANIFEST
from motionbooth_protocol.client import Client
from motionbooth_protocol.errors import MotionBoothError
from msgspec.structs import replace
from running_backend import RunningBackend, small_job, wait_until
from typer.testing import CliRunner

HUB = "cerspense/zeroscope_v2_576w"
WEIGHTS, INDEX = "unet/diffusion_pytorch_model.safetensors", "model_index.json"
LONGEST = 500  # characters of what a command prints, without the paths and addresses in it


class _NotAHub(BaseHTTPRequestHandler):
    """A page for people, whatever is asked."""

    def log_message(self, format: str, *args: object) -> None:
        pass

    def do_GET(self) -> None:
        body = b"<html>Welcome to our intranet</html>"
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_HEAD = do_GET


@dataclass
class Place:
    """Where the inputs are wrong: a models folder, a hub with Zeroscope, a page that is not a hub."""

    folder: Path
    hub: LocalHub
    page: str

    def run(self, *arguments: str, answer: str | None = None) -> tuple[int, str]:
        """A command line; `HUB` and `PAGE` in it stand for the addresses."""
        words = [word.replace("HUB", self.hub.url).replace("PAGE", self.page) for word in arguments]
        result = CliRunner().invoke(app, words, input=answer, env={"COLUMNS": "400"})
        assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
        return result.exit_code, " ".join(result.output.translate(dict.fromkeys(map(ord, "─│╭╮╰╯"))).split())

    def write(self, path: str, content: bytes = b"{}") -> None:
        (self.folder / path).parent.mkdir(parents=True, exist_ok=True)
        (self.folder / path).write_bytes(content)


@pytest.fixture(scope="module")
def page() -> Iterator[str]:
    server = HTTPServer(("127.0.0.1", 0), _NotAHub)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def place(tmp_path: Path, page: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Place]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MOTIONBOOTH_MODELS", str(tmp_path / "models"))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "empty"))
    files = {INDEX: b"{}", "unet/config.json": b"{}", WEIGHTS: os.urandom(10_000)}
    with LocalHub({HUB: files}).running() as hub:
        yield Place(tmp_path, hub, page)


def _get(place: Place, *more: str, answer: str | None = None) -> tuple[int, str]:
    accept = [] if answer else ["--accept-license"]
    return place.run("models", "get", "zeroscope", "--from", "HUB", *accept, *more, answer=answer)


def _no_space(place: Place) -> tuple[int, str]:
    place.hub.stated[WEIGHTS] = 10**15
    return _get(place)


def _torn(place: Place) -> tuple[int, str]:
    place.hub.torn.add(WEIGHTS)
    return _get(place)


def _damaged(place: Place) -> tuple[int, str]:
    place.hub.swapped[WEIGHTS] = bytes(10_000)
    return _get(place)


def _gated(place: Place) -> tuple[int, str]:
    place.hub.gated.add(HUB)
    return _get(place)


def _without_weights(place: Place) -> tuple[int, str]:
    del place.hub.files[HUB][WEIGHTS]
    return _get(place)


def _leads_out(place: Place) -> tuple[int, str]:
    place.hub.files[HUB]["../../outside.json"] = b"{}"
    return _get(place)


def _busy(place: Place) -> tuple[int, str]:
    (place.folder / "models").mkdir()
    with FileLock(place.folder / "models" / ".zeroscope.lock"):
        return _get(place)


def _twice(place: Place) -> tuple[int, str]:
    place.write("models/zeroscope/kept")
    return _get(place)


def _folder_lacks(place: Place) -> tuple[int, str]:
    place.write(f"stick/{INDEX}")
    files = b'{"%s": {"size": 5}}' % WEIGHTS.encode()
    place.write(f"stick/{MANIFEST}", b'{"origins": [{"hub": "%s"}], "files": %s}' % (HUB.encode(), files))
    return place.run("models", "get", "zeroscope", "--from", "stick")


def _folder_leads_out(place: Place) -> tuple[int, str]:
    place.write(f"stick/{INDEX}")
    place.write("outside.bin", b"...")
    files = b'{"%s": {"size": 3}, "../outside.bin": {"size": 3}}' % WEIGHTS.encode()
    place.write(f"stick/{MANIFEST}", b'{"origins": [{"hub": "%s"}], "files": %s}' % (HUB.encode(), files))
    return place.run("models", "get", "zeroscope", "--from", "stick")


def _folder_of_another(place: Place) -> tuple[int, str]:
    place.write(f"stick/{INDEX}")
    place.write(f"stick/{MANIFEST}", b'{"origins": [{"hub": "Wan-AI/Other"}], "files": {}}')
    return place.run("models", "get", "zeroscope", "--from", "stick")


def _empty_folder(place: Place) -> tuple[int, str]:
    place.write("stick/holiday.jpg")
    return place.run("models", "get", "sam", "--from", "stick")


def _config(text: str) -> Callable[[Place], tuple[int, str]]:
    def act(place: Place) -> tuple[int, str]:
        place.write("home/motionbooth.toml", text.encode())
        return place.run("serve", "--home", "home")

    return act


def _option(*words: str) -> Callable[[Place], tuple[int, str]]:
    """Of `generate`."""

    def act(place: Place) -> tuple[int, str]:
        place.write("s.json", b'{"prompt": "a dog"}')
        return place.run("generate", "s.json", "--out", "c.mp4", *words)

    return act


def _command(*words: str) -> Callable[[Place], tuple[int, str]]:
    return lambda place: place.run(*words)


CASES: dict[str, tuple[Callable[[Place], tuple[int, str]], int, str, str]] = {
    # name: what is done, the exit status, what was wrong, what to do
    "no space": (_no_space, 2, "The model needs 1000000.0 GB and 1 GB to spare", "Free some space, or set"),
    "no": (lambda place: _get(place, answer="n\n"), 1, "Do you accept the license", "Nothing was fetched"),
    "perhaps": (lambda place: _get(place, answer="maybe\nn\n"), 1, "Error: invalid input", "Nothing was fetched"),
    "torn download": (_torn, 1, "broke off", "Fetch the model again to resume it"),
    "damaged file": (_damaged, 1, f"1 files of zeroscope arrived damaged ({WEIGHTS})", "Fetch the model again"),
    "unknown model": (_command("models", "get", "sora"), 2, "There is no published model sora", "only: birefnet"),
    "path to get": (_command("models", "get", "../zeroscope"), 2, "no published model ../zeroscope", "only: birefnet"),
    "path to check": (_command("models", "check", "../stick"), 2, 'no base model "../stick"', "only: toybox"),
    "path to remove": (_command("models", "remove", "../s", "--yes"), 2, "../s was not fetched", "yours to delete"),
    "no hub there": (
        _command("models", "get", "zeroscope", "--from", "PAGE"), 1, "does not answer as a model hub does",
        "Correct the address of the mirror",
    ),
    "no such protocol": (
        _command("models", "get", "zeroscope", "--from", "gopher://hub"), 1, "The download from gopher://hub broke off",
        "from a mirror or a folder",
    ),
    "offline": (
        _command("models", "get", "zeroscope", "--from", "http://127.0.0.1:9"), 1, "broke off",
        "Fetch the model again to resume it",
    ),
    "not on this mirror": (
        _command("models", "get", "wan-1.3b", "--from", "HUB"), 2, "Wan-AI/Wan2.1-T2V-1.3B-Diffusers is not at",
        "or choose another mirror",
    ),
    "gated": (_gated, 2, f"{HUB} is not at", "or is closed to you. Log in with `hf auth login`"),
    "mirror without weights": (_without_weights, 2, "has no weights of zeroscope", "Choose another mirror or folder"),
    "mirror with a path": (_leads_out, 1, "leads out of the model's folder", "Do not use this source"),
    "folder with a path": (_folder_leads_out, 1, "leads out of the model's folder", "Do not use this source"),
    "fetched twice at once": (_busy, 1, "Another process is fetching zeroscope", "Wait until it has ended"),
    "already there": (_twice, 2, "zeroscope is already at", "zeroscope"),
    "folder lacks a file": (_folder_lacks, 2, f"stick lacks {WEIGHTS}", "Fetch it there again"),
    "folder of another model": (_folder_of_another, 2, "stick has Wan-AI/Other", "Choose the folder of zeroscope"),
    "folder without the model": (_empty_folder, 2, "stick has no config.json", "Choose the folder that"),
    "remove a bundled model": (
        _command("models", "remove", "toybox", "--yes"), 2, "toybox comes with MotionBooth", "takes no space",
    ),
    "unknown setting": (_config("keep-days = 3"), 2, '"keep-days" in', 'Did you mean "keep_days"?'),
    "wrong setting": (_config("workers = 0"), 2, '"workers" in', "must be a whole number, at least 1"),
    "not a settings file": (_config("keep_days 3"), 2, "motionbooth.toml is not in TOML", "Expected '=' after a key"),
    "unknown master": (_option("--master", "prores9"), 2, "'prores9' is not one of", "'ffv1', 'png', 'exr'"),
    "check what is not here": (
        _command("models", "check", "sam"), 2, "sam is not on this machine", "motionbooth models get sam",
    ),
    "a mask finder as a base": (
        _option("--model", "sam"), 2, 'no base model "sam"', "only: toybox",
    ),
    "unknown card": (
        _command("models", "check", "zeroscope", "--vram", "rtx4090"), 2, "Invalid value for '--vram'", "valid number",
    ),
    "card of an unknown model": (_command("models", "check", "sora", "--vram", "8"), 2, 'model "sora"', "only: toybox"),
    "plan that cannot fit": (
        _command("models", "check", "toybox", "--vram", "0.1"), 2,
        "even with the smallest memory plan (offloaded), and 0.0 GB are free", "Use a smaller model",
    ),
    "unknown plan": (_option("--memory", "tiny"), 2, "'tiny' is not one of", "'chunked', 'offloaded'"),
    "unknown precision": (_option("--precision", "float8"), 2, "'float8' is not one of", "'float16', 'bfloat16'"),
    "unknown attention": (_option("--attention", "psychic"), 2, "'psychic' is not one of", "'sdpa', 'flash', 'sage'"),
    "unknown device": (_option("--device", "rtx"), 2, "'rtx' is not one of", "'cuda', 'xpu', 'mps'"),
    "too long": (_option("--seconds", "1e9"), 2, "not 1e+09", "toybox generates 1.00 to 64 seconds"),
    "not an upscaler": (_option("--upscaler", "s.json"), 2, "The upscaler s.json cannot be read", "a safetensors file"),
    "too many strengths": (_option("--style-strength", "2"), 2, "--style-strength once for each --style", "not at all"),
    "check a bundled model": (_command("models", "check", "toybox"), 2, "toybox comes with MotionBooth", "reinstall"),
}  # fmt: skip


# huggingface_hub tries again for five seconds, the plans are computed; both have quick tests of their own.
LONG = {"torn download", "plan that cannot fit"}


@pytest.mark.parametrize("name", [pytest.param(name, marks=[pytest.mark.slow] * (name in LONG)) for name in CASES])
def test_bad_input_is_told_with_what_to_do(name: str, place: Place) -> None:
    act, expected, wrong, advice = CASES[name]
    before = {path for path in place.folder.rglob("*") if path.is_file()}
    status, said = act(place)
    assert status == expected, said
    assert wrong in said
    assert advice in said
    assert not any(sign in said for sign in ("Traceback", "Errno", "`str`", "$."))
    assert len(said.replace(str(place.folder), "").replace(place.hub.url, "")) < LONGEST
    assert before <= {path for path in place.folder.rglob("*") if path.is_file()}, "nothing is lost"
    assert not (place.folder / "outside.json").exists()
    assert not (place.folder / "models" / "zeroscope" / INDEX).exists(), "and there is no half model"


def _wire(name: str, action: str, accepted: bool = False) -> Callable[[Client, Client], object]:
    return lambda admin, user: admin.manage_model(name, action, license_accepted=accepted)


def _remove_in_use(admin: Client, user: Client) -> None:
    user.submit("job-00017", replace(small_job("steps=100 pause=0.1"), model="wan-1.3b"))
    try:
        admin.manage_model("wan-1.3b", "remove")
    finally:
        user.cancel("job-00017")
        wait_until(lambda: user.get("job-00017").state == "canceled")


@pytest.mark.parametrize(
    ("act", "wrong", "advice"),
    [
        (lambda admin, user: user.manage_model("sam", "get", True), "Only admins can see", "ask the backend's owner"),
        (lambda admin, user: user.published(), "Only admins can see and fetch", "ask the backend's owner"),
        (_wire("sam", "get"), "license of sam was not accepted", "https://huggingface.co/facebook/sam-vit-base"),
        (_wire("sora", "get", True), "There is no published model sora", "only: birefnet"),
        (_wire("../sam", "remove"), "There is no published model ../sam", "only: birefnet"),
        (_wire(HUB, "get", True), f"There is no published model {HUB}", "only: birefnet"),
        (_wire("https://x.org/m", "get", True), "There is no published model https://x.org/m", "only: birefnet"),
        (_wire("sam", "run"), "not a message of the protocol", "action"),
        (_remove_in_use, "wan-1.3b is in use by jobs that have not ended (1)", "Wait for them, or cancel them"),
    ],
)
def test_bad_requests_are_told_with_what_to_do(
    shared_backend: RunningBackend, act: Callable[[Client, Client], object], wrong: str, advice: str
) -> None:
    with shared_backend.client() as admin, shared_backend.client(connection=shared_backend.new_key("ann")) as user:
        with pytest.raises(MotionBoothError) as caught:
            act(admin, user)
        said = str(caught.value)
        assert wrong in said
        assert advice in said
        assert len(said) < LONGEST
        assert not any(model.doing for model in admin.published()), "and nothing was begun"
