"""Converts LaVie's published checkpoint and the parts of Stable Diffusion 1.4 to a base model's folder."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from pickle import UnpicklingError
from zipfile import is_zipfile

import torch
from diffusers import AutoencoderKL, DDIMScheduler
from motionbooth_protocol.errors import InvalidInput, JobFailed
from motionbooth_protocol.text import Text
from safetensors import SafetensorError, safe_open
from torch import Tensor
from transformers import CLIPTextModel, CLIPTokenizer

from motionbooth.models.lavie.unet import LaVieUNet
from motionbooth.models.published import MODELS

SHOWN = 3  # names listed in an error
TEMPORAL = ".attn_temp."


def convert_lavie(
    checkpoint: Path, stable_diffusion: Path, out: Path, make_unet: Callable[[], LaVieUNet] = LaVieUNet
) -> None:
    """Write `out`, a folder for MOTIONBOOTH_MODELS, from lavie_base.pt and a diffusers folder of Stable Diffusion 1.4.

    The latter provides the VAE, text encoder and tokenizer; its UNet is only used to check that LaVie's differs. The
    folder is written atomically. `make_unet` makes the network that the weights are for.

    Raises InvalidInput for a file that is not LaVie's, and for missing parts, and JobFailed or OSError for a full disk.
    """
    if out.exists():
        raise InvalidInput("{out} already exists. Choose a new folder, or remove this one first.", out=out)
    parts = _stable_diffusion_parts(stable_diffusion)
    unet = lavie_unet(read_ema(checkpoint), make_unet)
    _check_is_not(unet, stable_diffusion / "unet")
    out.parent.mkdir(parents=True, exist_ok=True)
    try:
        with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}-") as scratch:
            folder = Path(scratch) / out.name
            unet.save_pretrained(folder / "unet")
            for name, part in parts.items():
                part.save_pretrained(folder / name)
            lavie_sampler().save_pretrained(folder / "scheduler")
            (folder / "model_index.json").write_text(json.dumps(_index(parts), indent=2) + "\n", encoding="utf-8")
            shutil.copyfile(MODELS / "lavie.json", folder / "motionbooth.json")
            folder.rename(out)
    except SafetensorError as error:  # which is no OSError, though it comes from one
        raise JobFailed(
            "The converted model cannot be written to {folder} ({reason}). Free some space there and try again.",
            folder=out,
            reason=error,
        ) from error


def read_ema(checkpoint: Path) -> dict[str, Tensor]:
    """The state dict under the checkpoint's key "ema". Executes nothing in the file. Raises InvalidInput."""
    try:
        # A file from before torch 1.6 is not a zip and cannot be memory-mapped.
        content = torch.load(checkpoint, map_location="cpu", weights_only=True, mmap=is_zipfile(checkpoint))
    except (OSError, RuntimeError, ValueError, EOFError, KeyError, UnpicklingError) as error:
        reason = (str(error) or "it is empty").splitlines()[0]
        raise InvalidInput(
            "{checkpoint} cannot be read as a checkpoint of plain weights ({reason}). Download lavie_base.pt again.",
            checkpoint=checkpoint,
            reason=reason,
        ) from error
    ema = content.get("ema") if isinstance(content, dict) else None
    if not isinstance(ema, dict) or not all(isinstance(tensor, Tensor) for tensor in ema.values()):
        raise InvalidInput('{checkpoint} has no weights under "ema": it is not lavie_base.pt.', checkpoint=checkpoint)
    return ema


def lavie_unet(weights: dict[str, Tensor], make_unet: Callable[[], LaVieUNet] = LaVieUNet) -> LaVieUNet:
    """The network with these weights. Raises InvalidInput unless they are exactly the weights that it needs."""
    with torch.device("meta"):
        expected = {name: tensor.shape for name, tensor in make_unet().state_dict().items()}
    missing = sorted(expected.keys() - weights.keys())
    if any(TEMPORAL in name for name in missing):
        raise InvalidInput(
            "These weights lack LaVie's temporal attention ({layers}). They look like Stable Diffusion's own "
            "UNet. Use lavie_base.pt itself.",
            layers=_some(missing),
        )
    wrong = sorted(name for name in expected.keys() & weights.keys() if weights[name].shape != expected[name])
    unknown = sorted(weights.keys() - expected.keys())
    for names, problem in (
        (missing, Text("missing")),
        (unknown, Text("unknown")),
        (wrong, Text("of another shape")),
    ):
        if names:
            raise InvalidInput(
                "These weights are not LaVie-base's ({problem}: {layers}).", problem=problem, layers=_some(names)
            )
    if not any(tensor.any() for name, tensor in weights.items() if TEMPORAL in name and "to_out" in name):
        raise InvalidInput(
            "These weights have a temporal attention that was never trained: they are not LaVie's.", code="untrained"
        )
    unet = make_unet()
    unet.load_state_dict(weights)
    return unet.eval()


def lavie_sampler() -> DDIMScheduler:
    """DDIM, as in the paper, with the noise schedule of LaVie's training."""
    return DDIMScheduler(
        beta_start=1e-4, beta_end=0.02, beta_schedule="linear", clip_sample=False, prediction_type="epsilon"
    )


def _check_is_not(unet: LaVieUNet, stable_diffusion: Path) -> None:
    """Raises InvalidInput if the spatial layers are those of the Stable Diffusion UNet in this folder."""
    name = "mid_block.resnets.0.conv1.weight"
    own = unet.state_dict()[name].half()
    for path in sorted(stable_diffusion.glob("*.safetensors")):
        with safe_open(path, framework="pt") as file:
            if name in set(file.keys()) and torch.equal(file.get_tensor(name).half(), own):
                raise InvalidInput(
                    "The spatial layers of this checkpoint are those of Stable Diffusion in {folder}. "
                    "LaVie has its own: use lavie_base.pt itself.",
                    folder=stable_diffusion,
                )


def _stable_diffusion_parts(folder: Path) -> dict[str, AutoencoderKL | CLIPTextModel | CLIPTokenizer]:
    kinds = {"vae": AutoencoderKL, "text_encoder": CLIPTextModel, "tokenizer": CLIPTokenizer}
    lacking = [name for name in kinds if not (folder / name).is_dir()]
    if lacking:
        raise InvalidInput(
            "{folder} has no {parts}: name the diffusers folder of Stable Diffusion 1.4. "
            "`motionbooth models get lavie` fetches all that LaVie needs, and converts it.",
            folder=folder,
            parts=" and no ".join(lacking),
        )
    try:
        return {name: kind.from_pretrained(folder / name) for name, kind in kinds.items()}
    except (OSError, RuntimeError, ValueError, SafetensorError) as error:
        raise InvalidInput(
            "The parts of {folder} cannot be read ({reason}). Download it again.", folder=folder, reason=error
        ) from error


def _index(parts: dict[str, AutoencoderKL | CLIPTextModel | CLIPTokenizer]) -> dict[str, object]:
    library = {"vae": "diffusers", "text_encoder": "transformers", "tokenizer": "transformers"}
    return {
        "_class_name": "LaVie",
        "unet": [LaVieUNet.__module__, LaVieUNet.__name__],
        "scheduler": ["diffusers", "DDIMScheduler"],
        **{name: [library[name], type(part).__name__] for name, part in parts.items()},
    }


def _some(names: list[str]) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more
