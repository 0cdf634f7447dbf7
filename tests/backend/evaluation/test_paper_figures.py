"""The paper's figures equal what plain transformers and torchvision calls say of the same pixels."""

import hashlib
import shutil
from pathlib import Path

import cv2
import huggingface_hub
import msgspec
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from motionbooth.evaluation.camera_adherence import requested_flow_px
from motionbooth.evaluation.flow_error import Tracks, flow_error
from motionbooth.evaluation.networks import CLIP_ID, DINO_ID, Networks, dis_flow, load_networks
from motionbooth.evaluation.paper_figures import (
    PaperFigures,
    PaperReport,
    box_crop,
    masked_crop,
    paper_report,
    paper_table,
    prompt_without_tokens,
)
from motionbooth.evaluation.report import TargetSubject, motion_report, shot_report
from motionbooth.export.point_tracks import point_tracks
from motionbooth.pictures.appearance import Appearance
from motionbooth.pictures.masks import MaskedPicture
from motionbooth_lab.toybox.backgrounds import draw_texture
from motionbooth_lab.toybox.draw import Clip, draw_clip, kind_scene
from motionbooth_protocol.errors import InvalidInput, NotFound
from motionbooth_protocol.jobs import GenerateSpec
from motionbooth_protocol.motion import Box, CameraPath, Offset, Shot, SubjectTrack
from PIL import Image
from refused import refused
from rich.console import Console
from safetensors.torch import load_file, save_file
from tiny_networks import save_cotracker, save_networks
from torchvision.models.optical_flow import raft_small
from transformers import (
    BitImageProcessor,
    CLIPModel,
    CLIPProcessor,
    Dinov2Config,
    Dinov2Model,
    ViTImageProcessor,
    ViTModel,
)

CLOSE = 1e-4
"""Single precision, in other batches than the plain calls."""


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_networks(tmp_path_factory.mktemp("measuring networks"))


@pytest.fixture(scope="session")
def networks(folder: Path) -> Networks:
    return load_networks(folder, "cpu")


@pytest.fixture(scope="session")
def clip() -> Clip:
    return draw_clip(kind_scene("heart", "pink", "wall"), np.random.default_rng(21))


def spec_of(clip: Clip) -> GenerateSpec:
    boxes: list[Box | None] = [Box(*map(float, box)) for box in clip.boxes_xyxy]
    camera = CameraPath([Offset(float(x) / 96, float(y) / 64) for x, y in clip.camera_px])
    track = SubjectTrack("heart", "heart", boxes, "sks")
    return GenerateSpec(Shot("shot", 1, 8, 8, 96, 64, camera, [track]), "a sks heart on the wall")


def pictures_of(clip: Clip) -> dict[str, list[MaskedPicture]]:
    return {"heart": [MaskedPicture(clip.frames[f], (clip.masks[f] > 0).astype(np.float32), False) for f in (0, 3)]}


@pytest.fixture(scope="session")
def figures(clip: Clip, networks: Networks) -> PaperFigures:
    spec = spec_of(clip)
    appearance = Appearance.from_pictures([clip.frames[0]], [clip.masks[0]])
    target = TargetSubject("heart", appearance, spec.shot.subjects[0].boxes)
    motion = motion_report(clip.frames, [target], spec.shot.camera)
    report = paper_report(clip.frames, spec, motion, pictures_of(clip), networks)
    assert msgspec.json.decode(msgspec.json.encode(report), type=PaperReport) == report
    assert report.paper is not None
    return report.paper


def cosines(one: torch.Tensor, other: torch.Tensor) -> float:
    return float((F.normalize(one, dim=-1) @ F.normalize(other, dim=-1).T).mean())


@torch.no_grad()
def test_clips_figures_equal_plain_transformers_calls(figures: PaperFigures, clip: Clip, folder: Path) -> None:
    model, processor = CLIPModel.from_pretrained(folder / "clip"), CLIPProcessor.from_pretrained(folder / "clip")

    def seen(pictures: list[np.ndarray]) -> torch.Tensor:
        images = [Image.fromarray(picture) for picture in pictures]
        output = model(**processor(text=["a heart on the wall"], images=images, return_tensors="pt", padding=True))
        return output.image_embeds

    text = model(
        **processor(text=["a heart on the wall"], images=[Image.new("RGB", (32, 32))], return_tensors="pt")
    ).text_embeds
    frames = seen(list(clip.frames))
    assert figures.clip_t == pytest.approx(cosines(frames, text), abs=CLOSE)
    assert figures.t_cons == pytest.approx(float(F.cosine_similarity(frames[:-1], frames[1:]).mean()), abs=CLOSE)
    crops = seen(
        [box_crop(frame, Box(*map(float, box))) for frame, box in zip(clip.frames, clip.boxes_xyxy, strict=True)]
    )
    own = seen([masked_crop(picture) for picture in pictures_of(clip)["heart"]])
    assert figures.subjects[0].r_clip == pytest.approx(cosines(crops, own), abs=CLOSE)
    assert figures.subjects[0].found_clip != figures.subjects[0].r_clip


@torch.no_grad()
def test_dinos_figures_equal_plain_transformers_calls(figures: PaperFigures, clip: Clip, folder: Path) -> None:
    model, processor = ViTModel.from_pretrained(folder / "dino"), ViTImageProcessor.from_pretrained(folder / "dino")

    def seen(pictures: list[np.ndarray]) -> torch.Tensor:
        return model(**processor([Image.fromarray(each) for each in pictures], return_tensors="pt")).last_hidden_state[
            :, 0
        ]

    crops = seen(
        [box_crop(frame, Box(*map(float, box))) for frame, box in zip(clip.frames, clip.boxes_xyxy, strict=True)]
    )
    own = seen([masked_crop(picture) for picture in pictures_of(clip)["heart"]])
    assert figures.subjects[0].r_dino == pytest.approx(cosines(crops, own), abs=CLOSE)


@torch.no_grad()
def test_dinov2_works_in_dinos_place(tmp_path: Path, clip: Clip) -> None:
    torch.manual_seed(0)
    config = Dinov2Config(hidden_size=32, num_hidden_layers=2, num_attention_heads=2, image_size=32, patch_size=8)
    model = Dinov2Model(config).eval()
    processor = BitImageProcessor(size={"shortest_edge": 36}, crop_size={"height": 32, "width": 32})
    for part in (model, processor):
        part.save_pretrained(tmp_path / "dino")
    dino = load_networks(tmp_path, "cpu").dino
    assert dino is not None
    plain = model(**processor([Image.fromarray(frame) for frame in clip.frames], return_tensors="pt"))
    np.testing.assert_allclose(dino.pictures(list(clip.frames)), F.normalize(plain.pooler_output), atol=CLOSE)


@torch.no_grad()
def test_rafts_flow_equals_a_plain_torchvision_call(networks: Networks, folder: Path) -> None:
    """Also for a frame whose sides are no multiples of 8."""
    rng = np.random.default_rng(0)
    before, after = rng.integers(0, 256, (2, 132, 150, 3), dtype=np.uint8)
    model = raft_small(weights=None).eval()
    model.load_state_dict(torch.load(folder / "raft" / "raft_small_random.pth", weights_only=True))

    def padded(frame: np.ndarray) -> torch.Tensor:
        edge = cv2.copyMakeBorder(frame, 0, 4, 0, 2, cv2.BORDER_REPLICATE)
        return torch.from_numpy(edge).permute(2, 0, 1)[None] / 255 * 2 - 1

    plain = model(padded(before), padded(after))[-1][0, :, :132, :150].permute(1, 2, 0).numpy()
    assert networks.raft is not None
    assert np.abs(plain).max() > 0.01
    np.testing.assert_allclose(networks.raft(before, after), plain, atol=1e-3)


def test_the_flow_error_is_the_distance_from_the_flow_asked_for_over_the_scenery_and_over_all() -> None:
    """A finder that sees 2 px to the left everywhere, and 5 px to the right in a box."""
    frames = np.zeros((3, 64, 96, 3), np.uint8)
    box = Box(0.25, 0.25, 0.5, 0.75)

    def finder(before: np.ndarray, after: np.ndarray) -> np.ndarray:
        assert min(before.shape[:2]) >= 128, "small frames are enlarged"
        flow = np.full((*before.shape[:2], 2), (-2 * before.shape[1] / 96, 0), np.float32)
        flow[before.shape[0] // 4 : before.shape[0] * 3 // 4, before.shape[1] // 4 : before.shape[1] // 2, 0] = (
            5 * before.shape[1] / 96
        )
        return flow

    camera = CameraPath([Offset(3 * f / 96, 0) for f in range(3)])  # the content is to move 3 px to the left
    assert requested_flow_px(camera, 96, 64)[0] == pytest.approx((-3, 0))
    error = flow_error("fixed", finder, frames, [[box]] * 3, camera)
    assert error.scenery_px == pytest.approx(1, abs=1e-5)
    share = 24 * 32 / (90 * 58)  # of the frame without its edge of 3 px
    assert error.all_px == pytest.approx(1 + 7 * share, abs=1e-5)


def test_the_track_error_is_the_mean_distance_of_followed_points_from_those_asked_for() -> None:
    """A finder that sees 2 px to the left everywhere, and points that are asked to move by 3 px, one of them hidden."""
    frames = np.zeros((3, 64, 96, 3), np.uint8)
    points = np.array([[(50 - 3 * f, 20), (70 - 3 * f, 40), (30, 30)] for f in range(3)], np.float32)
    visible = np.array([[True, True, False], [True, True, True], [True, False, True]])

    def finder(before: np.ndarray, after: np.ndarray) -> np.ndarray:
        return np.full((*before.shape[:2], 2), (-2 * before.shape[1] / 96, 0), np.float32)

    camera = CameraPath([Offset(3 * f / 96, 0) for f in range(3)])
    error = flow_error("fixed", finder, frames, [[]] * 3, camera, Tracks(points, visible))
    assert error.tracks_px == pytest.approx((1 + 1 + 2) / 3, abs=1e-4)
    hidden = flow_error("fixed", finder, frames, [[]] * 3, camera, Tracks(points, np.zeros_like(visible)))
    assert hidden.tracks_px is None


def test_cotracker_follows_the_points_where_its_weights_are_given(tmp_path: Path) -> None:
    """With a checkout of its interface: (x, y) from the first frame on, in pixels of the clip."""
    save_cotracker(tmp_path, (-2.0, 0.0))
    networks = load_networks(tmp_path, "cpu")
    assert networks.cotracker is not None
    assert networks.cards == [networks.cotracker.card]
    assert len(networks.cotracker.card.sha256) == 64
    camera = CameraPath([Offset(3 * f / 96, 0) for f in range(8)])
    spec = GenerateSpec(Shot("shot", 1, 8, 8, 96, 64, camera, []), "a wall")
    frames = np.zeros((8, 64, 96, 3), np.uint8)
    tracks = point_tracks(spec.shot, (96, 64))
    motion = shot_report(frames, spec.shot, {})
    found = paper_report(frames, spec, motion, {}, networks, tracks).paper
    assert found is not None
    later = np.arange(1, 8)[:, None]  # off by a pixel more in each frame
    kept = tracks.visible[1:] & tracks.visible[0]
    assert found.tracks_px == pytest.approx((later * kept).sum() / kept.sum(), abs=1e-4)
    assert found.clip_t is None
    (tmp_path / "cotracker" / "scaled_offline.pth").write_bytes(b"damaged")
    with refused(InvalidInput, name="CoTracker", reason=...):
        load_networks(tmp_path, "cpu")


def test_points_are_followed_where_the_scenery_moves() -> None:
    """A texture that moves by (-3, 1) pixels a frame: DIS follows it within a pixel over eight frames."""
    texture = draw_texture("grass", np.random.default_rng(2))
    frames = np.stack([texture[100 - f : 164 - f, 100 + 3 * f : 196 + 3 * f] for f in range(8)])
    right = CameraPath([Offset(3 * f / 96, -f / 64) for f in range(8)])
    for camera, low, high in ((right, 0, 1), (CameraPath.still(8), 5, 20)):
        shot = Shot("shot", 1, 8, 8, 96, 64, camera, [])
        error = flow_error("DIS", dis_flow, frames, [[]] * 8, camera, point_tracks(shot, (96, 64)))
        assert error.tracks_px is not None
        assert low <= error.tracks_px < high


def test_dis_measures_a_pan_and_the_still_camera_that_was_not_asked_for(figures: PaperFigures, clip: Clip) -> None:
    spec = spec_of(clip)
    dis = next(flow for flow in figures.flow if flow.network == "DIS")
    assert dis.scenery_px is not None
    assert dis.scenery_px < 1.0
    hidden = [[box] for box in spec.shot.subjects[0].boxes if box is not None]
    wrong = flow_error("DIS", dis_flow, clip.frames, hidden, CameraPath.straight(2.0, 0, 8))
    assert wrong.scenery_px is not None
    assert wrong.scenery_px > 5


def test_every_figure_names_its_network_and_the_sha256_of_its_weights(figures: PaperFigures, folder: Path) -> None:
    cards = {card.name: card for card in figures.networks}
    weights = (folder / "clip" / "model.safetensors").read_bytes()
    assert cards["CLIP"].sha256 == hashlib.sha256(weights).hexdigest()
    assert set(cards) == {"CLIP", "DINO", "RAFT", "DIS", "IoU", "identity"}
    assert {name for name, card in cards.items() if card.own} == {"IoU", "identity"}
    assert cards["DIS"].sha256 == ""
    console = Console(width=200, record=True, file=None, quiet=False)
    with console.capture() as shown:
        console.print(paper_table(figures, 96, 64))
    assert cards["CLIP"].sha256 in shown.get()
    assert "heart: R-DINO" in shown.get()


def test_what_is_missing_is_named_with_the_command_that_gets_it(
    tmp_path: Path, clip: Clip, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "empty"))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "empty"))
    monkeypatch.setenv("MOTIONBOOTH_MODELS", str(tmp_path / "empty"))
    with pytest.raises(NotFound) as caught:
        load_networks(tmp_path)
    commands = str(caught.value.text.values["commands"]).split("; ")
    assert commands[:2] == ["motionbooth models get clip", "motionbooth models get dino"]
    networks = load_networks(save_networks(tmp_path, raft=False))
    assert set(networks.missing) == {"RAFT"}
    assert networks.missing["RAFT"].startswith("curl --create-dirs -o ")
    report = motion_report(clip.frames, [], spec_of(clip).shot.camera)
    found = paper_report(clip.frames, spec_of(clip), report, pictures_of(clip), networks).paper
    assert found is not None
    assert [flow.network for flow in found.flow] == ["DIS"]
    assert found.subjects[0].found_clip is None, "the subject was not searched for"
    assert found.subjects[0].r_clip is not None
    console = Console(width=80, markup=False)
    with console.capture() as shown:
        console.print(paper_table(found, 96, 64))
    cells = [line.split("\u2502")[3] for line in shown.get().splitlines() if line.count("\u2502") == 4]
    assert "".join(networks.missing["RAFT"].split()) in "".join("".join(cells).split())


def test_networks_in_the_caches_are_found_and_named_as_published(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = save_networks(tmp_path / "made")
    hub = tmp_path / "hub"
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(hub))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    for name, id in (("clip", CLIP_ID), ("dino", DINO_ID)):
        cached = hub / f"models--{id.replace('/', '--')}"
        shutil.copytree(made / name, cached / "snapshots" / "abc")
        (cached / "refs").mkdir()
        (cached / "refs" / "main").write_text("abc")
    networks = load_networks(tmp_path / "nothing here")
    assert [card.id for card in networks.cards] == [CLIP_ID, DINO_ID]
    assert list(networks.missing) == ["RAFT"]
    (hub / "models--facebook--dino-vits16" / "snapshots" / "abc" / "model.safetensors").unlink()
    assert list(load_networks(tmp_path / "nothing here").missing) == ["DINO", "RAFT"], "interrupted while downloading"


def test_damaged_weights_are_named(tmp_path: Path) -> None:
    save_networks(tmp_path)
    (tmp_path / "raft" / "raft_small_random.pth").write_bytes(b"not weights")
    with refused(InvalidInput, name="RAFT", reason=...):
        load_networks(tmp_path)
    (tmp_path / "clip" / "model.safetensors").write_bytes(b"not weights")
    with refused(InvalidInput, name="CLIP", reason=...):
        load_networks(tmp_path)


def test_a_file_that_lacks_weights_is_refused_instead_of_filled_with_random_ones(tmp_path: Path) -> None:
    file = save_networks(tmp_path) / "dino" / "model.safetensors"
    weights = load_file(file)
    save_file({name: value for name, value in weights.items() if not name.startswith("pooler.")}, file)
    load_networks(tmp_path)  # as the published file
    save_file({name: value for name, value in weights.items() if "layer.1." not in name}, file)
    with refused(InvalidInput, name="DINO", reason=...):
        load_networks(tmp_path)


def test_the_prompt_without_tokens_is_found_as_the_prompts_phrases_are() -> None:
    track = SubjectTrack("dog", "dog", [None] * 2, "sks")
    spec = GenerateSpec(Shot("shot", 1, 8, 8, 96, 64, CameraPath.still(2), [track]), "A Sks  dog beside a sks dog")
    assert prompt_without_tokens(spec) == "A dog beside a dog"


@pytest.mark.parametrize("side", [1, 3])
def test_a_crop_of_a_few_pixels_is_a_picture_with_three_channels(networks: Networks, side: int) -> None:
    """Of a subject far away."""
    assert networks.clip is not None
    crop = np.random.default_rng(0).integers(0, 255, (side, side, 3)).astype(np.uint8)
    twice = np.repeat(np.repeat(crop, 40, 0), 40, 1)
    one, other = (networks.clip.pixels([picture])[0].mean((1, 2)) for picture in (crop, twice))
    assert one.tolist() == pytest.approx(other.tolist(), abs=0.05)  # bicubic, to the same size
