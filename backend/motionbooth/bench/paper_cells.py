"""The cells of `motionbooth bench paper`: what is generated, from which subjects and pairs."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Literal

import msgspec
from motionbooth_protocol.errors import InvalidInput
from motionbooth_protocol.jobs import GenerateSpec, SubjectSpec, TrainSpec
from motionbooth_protocol.messages import ModelInfo
from motionbooth_protocol.motion import CameraPath
from motionbooth_protocol.wording import class_fault, in_words

from motionbooth.evaluation.identity import Views
from motionbooth.finetuning.finetune import TrainingOptions
from motionbooth.generation.script import Placeholders, Script, spec_of_script
from motionbooth.pictures.appearance import Appearance
from motionbooth.pictures.folder import read_folder
from motionbooth.pictures.masks import Hint, MaskedPicture, picture_with_mask

PAIRS = Path(__file__).with_name("paper_pairs.json")
TOKEN = "sks"
CAMERA_CONTROL, PLAIN_WORDS = "camera control", "plain words"
Table = Literal["subject", "camera"]


class Pairs(msgspec.Struct, forbid_unknown_fields=True):
    """Text-and-box and text-and-camera pairs, as scripts. `about`: whose they are."""

    about: str
    boxes: list[Script]
    cameras: list[Script]

    @classmethod
    def read(cls, path: Path = PAIRS) -> Pairs:
        """Raises InvalidInput."""
        try:
            return msgspec.json.decode(path.read_bytes(), type=cls)
        except (OSError, msgspec.MsgspecError) as error:
            raise InvalidInput(
                "The pairs in {path} cannot be read: {problem}.", path=path, problem=in_words(error)
            ) from error


@dataclass(frozen=True)
class Subject:
    """A folder of pictures, named by its class: "dog 2" is a dog, and "wolf_plushie" a wolf plushie."""

    folder: Path

    @property
    def name(self) -> str:
        return self.folder.name

    @property
    def class_word(self) -> str:
        return re.sub(r"[\s_-]+", " ", re.sub(r"[\s_-]*\d+\Z", "", self.name)).strip() or self.name

    @cached_property
    def pictures(self) -> list[MaskedPicture]:
        """With their masks, which are found as for training if the folder has none. Raises InvalidInput."""
        pictures, files = read_folder(self.folder, None)
        finder = TrainingOptions.of_this_machine().finders.finder()
        return [
            picture_with_mask(
                files[each.image],
                None if each.mask is None else files[each.mask],
                f"the picture {each.name} of {self.name}",
                Hint(each.box, each.point),
                finder,
            )
            for each in pictures
        ]

    @cached_property
    def views(self) -> Views:
        return Views.of(self.pictures)

    @cached_property
    def appearance(self) -> Appearance:
        return Appearance.from_pictures([each.rgb for each in self.pictures], [each.mask for each in self.pictures])

    def training(self, model: str, recipe: str, steps: int | None) -> tuple[TrainSpec, dict[str, Path]]:
        """The spec of its training, and the file of each sha256 in it."""
        pictures, files = read_folder(self.folder, None)
        spec = SubjectSpec(self.name, TOKEN, self.class_word, pictures)
        return TrainSpec(spec, model, steps=steps, recipe=recipe), files


def subjects_in(folder: Path) -> list[Subject]:
    """One for each sub-folder, by name. Raises InvalidInput if there is none, or one is not named by a class."""
    found = [Subject(path) for path in sorted(folder.iterdir()) if path.is_dir()] if folder.is_dir() else []
    if not found:
        raise InvalidInput(
            "{folder} has no sub-folders. Give each subject a folder of its pictures, named by its class: dog, cat 2.",
            folder=folder,
        )
    for subject in found:
        if fault := class_fault(subject.class_word):
            raise InvalidInput(
                "The name of the folder {folder} cannot be used: a class {fault}",
                folder=subject.folder,
                fault=fault,
            )
    return found


@dataclass(frozen=True)
class Cell:
    """One clip of a table. `asked` is what it is measured by, `spec` what is generated; they differ for rivals."""

    table: Table
    model: str
    method: str
    pair: str
    seed: int
    asked: GenerateSpec
    spec: GenerateSpec
    subject: Subject | None = None

    @property
    def path(self) -> Path:
        """Its place in the results, without a suffix."""
        method = Path(self.table, self.model, re.sub(r"[^\w.]+", "-", self.method))
        return method / ("" if self.subject is None else self.subject.name) / f"{self.pair}-seed{self.seed}"


@dataclass(frozen=True)
class Extent:
    """How much of the paper's tables is generated; by default all of it, with one camera for each box pair."""

    models: Sequence[str] = ("toybox",)
    recipes: Sequence[str] = ("motionbooth", "dreambooth", "customvideo")
    rivals: Mapping[str, str] = field(default_factory=dict)
    """Other systems for the camera table: name -> command."""
    seeds: int = 1
    boxes: int | None = None
    """How many of the box pairs; None for all, as for the next."""
    cameras: int | None = None
    cameras_per_box: int = 1
    """Box pair n is generated with the camera pairs n, n + 1, ...; 40 is the product of all."""
    training_steps: int | None = None
    """None for the model's own, as for the next."""
    sampling_steps: int | None = None


def subject_cells(extent: Extent, pairs: Pairs, info: ModelInfo, recipe: str, subject: Subject) -> Iterator[Cell]:
    """The clips of a trained subject: every box pair with its cameras and every seed."""
    for number, script in enumerate(pairs.boxes[: extent.boxes]):
        for further in range(min(extent.cameras_per_box, len(pairs.cameras))):
            camera = (number + further) % len(pairs.cameras)
            pair = f"box{number + 1:02}-camera{camera + 1:02}"
            spec = spec_of_script(script, pair, info, Placeholders(TOKEN, subject.class_word))
            path = CameraPath.straight(*(pairs.cameras[camera].camera_speed or (0.0, 0.0)), info.frames)
            spec = msgspec.structs.replace(spec, shot=msgspec.structs.replace(spec.shot, camera=path))
            for asked in _with_seeds(extent, spec):
                yield Cell("subject", info.name, recipe, pair, asked.seed, asked, asked, subject)


def camera_cells(extent: Extent, pairs: Pairs, info: ModelInfo) -> Iterator[Cell]:
    """The clips without a subject: every camera pair with every method and seed."""
    for method in (CAMERA_CONTROL, PLAIN_WORDS, *extent.rivals):
        for number, script in enumerate(pairs.cameras[: extent.cameras]):
            pair = f"camera{number + 1:02}"
            for asked in _with_seeds(extent, spec_of_script(script, pair, info, Placeholders())):
                spec = asked
                if method == PLAIN_WORDS:
                    prompt = f"{asked.prompt}, {in_plain_words(script.camera_speed or (0.0, 0.0))}"
                    spec = msgspec.structs.replace(asked, prompt=prompt, camera_control=False)
                yield Cell("camera", info.name, method, pair, asked.seed, asked, spec)


def in_plain_words(speed: tuple[float, float]) -> str:
    """A camera move as people write it into a prompt."""
    across = ["the camera pans to the right" if speed[0] > 0 else "the camera pans to the left"] * (speed[0] != 0)
    along = ["the camera tilts down" if speed[1] > 0 else "the camera tilts up"] * (speed[1] != 0)
    return " and ".join(across + along) or "the camera stands still"


def _with_seeds(extent: Extent, spec: GenerateSpec) -> Iterator[GenerateSpec]:
    for seed in range(extent.seeds):
        yield msgspec.structs.replace(spec, seed=seed, num_inference_steps=extent.sampling_steps)
