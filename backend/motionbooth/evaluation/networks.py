"""The measuring networks of the paper's figures: CLIP and DINO for likeness, RAFT for flow, CoTracker for points.

They are never downloaded. Each is read from a folder (`clip`, `dino`, `raft` and `cotracker` in it), or else from where
`motionbooth models get` or the libraries put it; what is missing is named with the command that gets it. CoTracker is
optional.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any, TypeVar

import cv2
import msgspec
import numpy as np
import torch
import torch.nn.functional as F
from huggingface_hub import try_to_load_from_cache
from motionbooth_protocol.errors import InvalidInput, NotFound
from msgspec import Struct
from numpy.typing import NDArray

from motionbooth.models.memory.device import default_device
from motionbooth.models.published import published_named
from motionbooth.models.sources import fetched_folder, file_sha256

CLIP_ID, DINO_ID = (published_named(name).hub for name in ("clip", "dino"))
RAFT_ID = "raft_large_C_T_SKHT_V2-ff5fadd5"
RAFT_URL = f"https://download.pytorch.org/models/{RAFT_ID}.pth"
WEIGHTS = ("model.safetensors", "pytorch_model.bin")
BATCH = 32
COTRACKER, COTRACKER_WEIGHTS = "cotracker3_offline", "scaled_offline.pth"
RAFT_MULTIPLE = 8
"""RAFT needs sides that are multiples of this many pixels; the frames' edges are repeated up to there."""

COTRACKER_COMMAND = (
    "git clone https://github.com/facebookresearch/co-tracker cotracker, and put its weights scaled_offline.pth there"
)
Rgb = NDArray[np.uint8]
"""A picture (H, W, 3)."""
FlowFinder = Callable[[Rgb, Rgb], NDArray[np.float32]]
"""Two frames (H, W, 3), each side at least 128 px -> the motion (H, W, 2) from the first to the second in pixels, right
and down."""
Loaded = TypeVar("Loaded")


class NetworkCard(Struct, frozen=True):
    """What measured a figure. `sha256`: of its weights file; "" if it has no weights."""

    name: str
    id: str
    sha256: str = ""
    own: bool = False
    """It is the product's own, so others cannot compare their figures with it."""


@dataclass(frozen=True)
class Embedder:
    """A network that embeds pictures; CLIP embeds texts, too."""

    card: NetworkCard
    pixels: Callable[[Sequence[Rgb]], torch.Tensor]
    embed: Callable[[torch.Tensor], torch.Tensor]
    embed_text: Callable[[str], torch.Tensor] | None = None

    @torch.no_grad()
    def pictures(self, pictures: Sequence[Rgb]) -> NDArray[np.float32]:
        """Embeddings (n, D) of length 1 of pictures of any sizes."""
        batches = [pictures[start : start + BATCH] for start in range(0, len(pictures), BATCH)]
        found = [F.normalize(self.embed(self.pixels(batch)), dim=-1).cpu().numpy() for batch in batches]
        return np.concatenate(found)

    @torch.no_grad()
    def text(self, text: str) -> NDArray[np.float32]:
        """Embedding (D,) of length 1 of a text, of which CLIP reads 77 tokens at most."""
        assert self.embed_text is not None, f"{self.card.name} has no text encoder"
        return np.asarray(F.normalize(self.embed_text(text), dim=-1)[0].cpu().numpy())


@dataclass(frozen=True)
class Raft:
    """Optical flow by RAFT."""

    card: NetworkCard
    model: torch.nn.Module
    device: str

    @torch.no_grad()
    def __call__(self, before: Rgb, after: Rgb) -> NDArray[np.float32]:
        """See FlowFinder."""
        height, width = before.shape[:2]
        pad = (0, -width % RAFT_MULTIPLE, 0, -height % RAFT_MULTIPLE)

        def pixels(frame: Rgb) -> torch.Tensor:
            scaled = torch.from_numpy(np.ascontiguousarray(frame)).permute(2, 0, 1)[None].float() / 127.5 - 1
            return F.pad(scaled, pad, mode="replicate").to(self.device)

        flow = self.model(pixels(before), pixels(after))[-1][0, :, :height, :width]
        return np.asarray(flow.permute(1, 2, 0).cpu().numpy())


@dataclass(frozen=True)
class PointTracker:
    """Points followed through a clip by CoTracker."""

    card: NetworkCard
    model: torch.nn.Module
    device: str

    @torch.no_grad()
    def __call__(self, frames: Rgb, points: NDArray[np.float32]) -> NDArray[np.float32]:
        """Where points (N, 2) of the first frame, x and y in pixels, are in all frames (F, H, W, 3): (F, N, 2)."""
        video = torch.from_numpy(np.ascontiguousarray(frames)).permute(0, 3, 1, 2)[None].float().to(self.device)
        queries = torch.from_numpy(np.insert(points, 0, 0.0, axis=1))[None].float().to(self.device)  # (1, N, t x y)
        tracks, _ = self.model(video, queries=queries)
        return np.asarray(tracks[0].cpu().numpy())


@dataclass(frozen=True)
class Networks:
    """The measuring networks that are here; None for one that is not."""

    clip: Embedder | None = None
    dino: Embedder | None = None
    raft: Raft | None = None
    cotracker: PointTracker | None = None
    missing: dict[str, str] = field(default_factory=dict)
    """Each network that is not here, with the command that gets it."""

    @property
    def cards(self) -> list[NetworkCard]:
        networks = (self.clip, self.dino, self.raft, self.cotracker)
        return [network.card for network in networks if network is not None]


def load_networks(folder: Path, device: str | None = None) -> Networks:
    """Load the networks in the sub-folders clip, dino and raft of `folder`, or else those that were fetched.

    Also CoTracker, if the sub-folder cotracker has its checkout with the weights: its code is executed. `device`: the
    GPU if there is one. Raises NotFound if none of them is here, with the commands that get them, and InvalidInput for
    files that cannot be read.
    """
    device = device or default_device()
    missing: dict[str, str] = {}

    def loaded(name: str, found: Path | None, load: Callable[[Path, str], Loaded], command: str) -> Loaded | None:
        if found is None:
            missing[name] = command
            return None
        try:
            return load(found, device)
        except Exception as error:  # of many kinds: transformers', safetensors', torch's and pickle's
            raise InvalidInput(
                "The measuring network {name} in {folder} cannot be read ({reason}). Fetch it again: {command}",
                name=name,
                folder=found,
                reason=str(error).partition("\n")[0],
                command=command,
            ) from error

    curl = f"curl --create-dirs -o {shlex.quote(str(folder / 'raft' / RAFT_ID))}.pth {RAFT_URL}"
    install = "" if find_spec("torchvision") else "pip install 'motionbooth[measures]' && "
    found = Networks(
        clip=loaded("CLIP", _folder_of(folder / "clip"), _load_clip, "motionbooth models get clip"),
        dino=loaded("DINO", _folder_of(folder / "dino"), _load_dino, "motionbooth models get dino"),
        raft=loaded("RAFT", None if install else _raft_file(folder / "raft"), _load_raft, install + curl),
        cotracker=loaded("CoTracker", _cotracker_folder(folder / "cotracker"), _load_cotracker, COTRACKER_COMMAND),
        missing={name: command for name, command in missing.items() if name != "CoTracker"},
    )
    if not found.cards:
        raise NotFound(
            "There are no measuring networks in {folder}. Get them with: {commands}",
            folder=folder,
            commands="; ".join(missing.values()),
        )
    return found


def _folder_of(folder: Path) -> Path | None:
    """The given folder if it has a network, or that of the network of its name, as fetched or in the hub's cache."""
    if (folder / "config.json").is_file():
        return folder
    if (fetched := fetched_folder(folder.name)) is not None:
        return fetched
    cached = [try_to_load_from_cache(published_named(folder.name).hub, name) for name in ("config.json", *WEIGHTS)]
    paths = [Path(path) for path in cached if isinstance(path, str)]
    return paths[0].parent if len(paths) > 1 and paths[0].name == "config.json" else None


def _raft_file(folder: Path) -> Path | None:
    files = sorted(folder.glob("raft_*.pth")) or [Path(torch.hub.get_dir()) / "checkpoints" / f"{RAFT_ID}.pth"]
    return files[0] if files[0].is_file() else None


def _cotracker_folder(folder: Path) -> Path | None:
    return folder if (folder / "hubconf.py").is_file() and (folder / COTRACKER_WEIGHTS).is_file() else None


def _load_cotracker(folder: Path, device: str) -> PointTracker:
    model = torch.hub.load(str(folder), COTRACKER, source="local", pretrained=False)  # or it would download weights
    weights = folder / COTRACKER_WEIGHTS
    model.model.load_state_dict(torch.load(weights, map_location="cpu", weights_only=True))
    return PointTracker(NetworkCard("CoTracker", COTRACKER, file_sha256(weights)), model.eval().to(device), device)


def _card(name: str, folder: Path, published: str) -> NetworkCard:
    weights = next((folder / file for file in WEIGHTS if (folder / file).is_file()), None)
    if weights is None:
        raise FileNotFoundError(f"it has neither {WEIGHTS[0]} nor {WEIGHTS[1]}")
    stated = msgspec.json.decode((folder / "config.json").read_bytes()).get("_name_or_path")
    cached = published.replace("/", "--") in str(folder)  # the hub cache: models--openai--clip-.../snapshots/...
    is_published = cached or folder == fetched_folder(folder.name)
    return NetworkCard(
        name, published if is_published else stated or f"unnamed, in a folder {folder.name}", file_sha256(weights)
    )


def _load_clip(folder: Path, device: str) -> Embedder:
    from transformers import CLIPModel, CLIPProcessor

    model = _pretrained(CLIPModel, folder, device)
    processor = CLIPProcessor.from_pretrained(folder, local_files_only=True)

    def embed(pixels: torch.Tensor) -> torch.Tensor:
        return model.visual_projection(model.vision_model(pixel_values=pixels).pooler_output)

    def embed_text(text: str) -> torch.Tensor:
        tokens = processor.tokenizer(text, truncation=True, max_length=77, return_tensors="pt").to(device)
        return model.text_projection(model.text_model(**tokens).pooler_output)

    card = _card("CLIP", folder, CLIP_ID)
    return Embedder(card, partial(_pixels, processor.image_processor, device), embed, embed_text)


def _load_dino(folder: Path, device: str) -> Embedder:
    """DINO (ViTModel), or DINOv2 if the folder has it."""
    from transformers import AutoImageProcessor, AutoModel

    model = _pretrained(AutoModel, folder, device)
    processor = AutoImageProcessor.from_pretrained(folder, local_files_only=True, trust_remote_code=False)

    def embed(pixels: torch.Tensor) -> torch.Tensor:
        return model(pixel_values=pixels).last_hidden_state[:, 0]

    return Embedder(_card("DINO", folder, DINO_ID), partial(_pixels, processor, device), embed)


def _pretrained(kind: Any, folder: Path, device: str) -> Any:
    """Raises ValueError if weights are missing, which transformers would replace by random ones."""
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()  # commands have their own progress bars
    model, loading = kind.from_pretrained(
        folder, local_files_only=True, trust_remote_code=False, output_loading_info=True
    )
    if missing := sorted(key for key in loading["missing_keys"] if not key.startswith("pooler.")):  # DINO's has none
        raise ValueError(f"its file lacks {len(missing)} weights, such as {missing[0]}")
    return model.eval().to(device)


def _pixels(processor: Any, device: str, pictures: Sequence[Rgb]) -> torch.Tensor:
    # The order of the axes is stated, because it cannot be seen from a picture of 1 or 3 pixels a side.
    found = processor(images=list(pictures), input_data_format="channels_last", return_tensors="pt")
    return torch.as_tensor(found["pixel_values"]).to(device)


def _load_raft(file: Path, device: str) -> Raft:
    """A file raft_large_*.pth or raft_small_*.pth, as torchvision publishes them."""
    from torchvision.models import optical_flow

    build = optical_flow.raft_small if file.name.startswith("raft_small") else optical_flow.raft_large
    model = build(weights=None)
    model.load_state_dict(torch.load(file, map_location="cpu", weights_only=True))
    return Raft(NetworkCard("RAFT", file.stem, file_sha256(file)), model.eval().to(device), device)


OWN_CARDS = (
    NetworkCard("IoU", "where the subject's colors are, no weights", own=True),
    NetworkCard("identity", "templates of the pictures' colors and edges, no weights", own=True),
)
DIS_CARD = NetworkCard("DIS", f"OpenCV {cv2.__version__}, medium preset, no weights")


def dis_flow(before: Rgb, after: Rgb) -> NDArray[np.float32]:
    """Optical flow by dense inverse search, which needs no weights. See FlowFinder."""
    gray = [cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in (before, after)]
    found = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM).calc(gray[0], gray[1], None)
    return np.asarray(found, np.float32)
