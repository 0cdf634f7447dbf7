"""Train the identity network: `python -m motionbooth_lab.toybox.identity_train`, about five minutes on one core.

The training is contrastive. Positive pairs are crops of the same character from several sides, in encoded and decoded
scenes and on plain backgrounds. Negatives are other characters, and blobs and shuffled patches of the same one. Its
characters have a seed that no base model and no bench uses.
"""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor

from motionbooth_lab.toybox.autoencoder import latents_of_pixels, linear_inverse
from motionbooth_lab.toybox.backgrounds import PLACES, draw_texture
from motionbooth_lab.toybox.bank import character_of, premultiplied
from motionbooth_lab.toybox.identity import CROP_PX, MARGIN, PATCHES, WEIGHTS, IdentityNetwork, in_gray
from motionbooth_lab.toybox.tracer import render

SEED, CHARACTERS = 101, 500
SPRITE_PX, PATCH_PX = 64, 64
YAWS = (-0.8, -0.45, -0.15, 0.15, 0.45, 0.8)
POSES = (0.0, 0.55, -0.55)
TEXTURES = 3
PEOPLE, VIEWS, DECOYS = 40, 4, 2
"""Per batch: the number of characters, crops per character, and decoys per character."""
TEMPERATURE = 0.1
RATE, STEPS = 2e-3, 650
GREY_SHARE = 0.35


@dataclass(frozen=True)
class Sprites:
    """`people` (C, V, 4, 64, 64) uint8, premultiplied; `grounds` (T, 3, S, S) uint8."""

    people: Tensor
    grounds: Tensor


def draw_sprites(seed: int, characters: int) -> Sprites:
    """Draw characters from the front and both sides, standing and walking, and textures of all places."""
    people = []
    for number in range(characters):
        person = character_of(seed, number)
        solids = [person.seen_from(yaw, POSES[(number + turn) % len(POSES)]) for turn, yaw in enumerate(YAWS)]
        people.append(premultiplied(render(solids, SPRITE_PX)))
    textures = [
        draw_texture(place, np.random.default_rng([seed, 3, number, index]))
        for number, place in enumerate(PLACES)
        for index in range(TEXTURES)
    ]
    return Sprites(torch.stack(people), torch.from_numpy(np.stack(textures)).permute(0, 3, 1, 2).contiguous())


@torch.no_grad()
def views_of(sprites: Sprites, who: Tensor, reference: Tensor, decoy: Tensor, rng: torch.Generator) -> Tensor:
    """Crops (N, 3, 48, 48) in -1..1 of the characters `who` (N,), each from a random side.

    `reference` (N,) bool: sharp on a plain background, like users' pictures; the others are in encoded, decoded scenes.
    `decoy` (N,): 0 for the character, 1 its silhouette and 2 an ellipse in its mean color, 3 its patches shuffled.
    """
    count = len(who)

    def uniform(low: float, high: float, *shape: int) -> Tensor:
        return low + (high - low) * torch.rand(count, *shape, generator=rng)

    sprite = sprites.people[who, torch.randint(sprites.people.shape[1], (count,), generator=rng)].float() / 255
    sprite = _with_decoys(sprite, decoy, rng)
    half = uniform(13, 30, 1, 1, 1)
    center = PATCH_PX / 2 + uniform(-3, 3, 1, 1, 2)
    subject = F.grid_sample(
        sprite, _leaning((_grid(PATCH_PX) - center) / half, uniform(-0.3, 0.3)), align_corners=False
    )
    cover = subject[:, 3:]
    picture = _grounds(sprites, count, reference, rng) * (1 - cover) + subject[:, :3]
    picture = _tinted(picture, rng) * 2 - 1
    coded = linear_inverse(latents_of_pixels(picture))
    blurred = F.avg_pool2d(F.pad(coded, (1, 1, 1, 1), mode="replicate"), 3, 1)
    share = uniform(-0.6, 0.8, 1, 1, 1).clamp_min(0)
    coded = coded + share * (blurred - coded) + uniform(0, 0.08, 1, 1, 1) * torch.randn(coded.shape, generator=rng)
    picture = torch.where(reference[:, None, None, None], picture, coded)
    crops = _cropped(picture, cover[:, 0], uniform(0.88, 1.3), uniform(-0.08, 0.08, 2))
    shuffled = _shuffled(crops, rng)
    return torch.where((decoy == 3)[:, None, None, None], shuffled, crops).clamp(-1, 1)


def _grid(side: int) -> Tensor:
    """x and y of the pixel centers (1, S, S, 2)."""
    ticks = torch.arange(side) + 0.5
    return torch.stack(torch.meshgrid(ticks, ticks, indexing="xy"), -1)[None]


def _leaning(grid: Tensor, angle: Tensor) -> Tensor:
    cos, sin = (each[:, None, None] for each in (angle.cos(), angle.sin()))
    x, y = grid.unbind(-1)
    return torch.stack([cos * x + sin * y, cos * y - sin * x], -1)


def _with_decoys(sprite: Tensor, decoy: Tensor, rng: torch.Generator) -> Tensor:
    """Premultiplied sprites (N, 4, S, S); those with decoy 1 or 2 are flat."""
    cover = sprite[:, 3:]
    mean = sprite[:, :3].sum((2, 3), keepdim=True) / cover.sum((2, 3), keepdim=True).clamp_min(1)
    axes = 0.5 + 0.45 * torch.rand(len(sprite), 1, 1, 2, generator=rng)
    grid = _grid(SPRITE_PX) / SPRITE_PX * 2 - 1
    ellipse = ((grid / axes).square().sum(-1) < 1).float()[:, None]
    flat = decoy[:, None, None, None]
    cover = torch.where(flat == 2, ellipse, cover)
    blob = torch.cat([mean * cover, cover], 1)
    return torch.where((flat == 1) | (flat == 2), blob, sprite)


def _grounds(sprites: Sprites, count: int, reference: Tensor, rng: torch.Generator) -> Tensor:
    """Backgrounds (N, 3, P, P), 0..1: crops of places; for reference pictures plain and slightly uneven."""
    number = torch.randint(len(sprites.grounds), (count,), generator=rng)
    room = sprites.grounds.shape[-1] - PATCH_PX
    corner = torch.randint(room, (count, 2), generator=rng).tolist()
    cut = [sprites.grounds[n, :, y : y + PATCH_PX, x : x + PATCH_PX] for n, (x, y) in zip(number, corner, strict=True)]
    plain = torch.rand(count, 3, 1, 1, generator=rng)
    tilt = (torch.rand(count, 1, 1, 2, generator=rng) - 0.5) * 0.3
    plain = plain + ((_grid(PATCH_PX) / PATCH_PX - 0.5) * tilt).sum(-1)[:, None]
    return torch.where(reference[:, None, None, None], plain.clamp(0, 1), torch.stack(cut).float() / 255)


def _tinted(picture: Tensor, rng: torch.Generator) -> Tensor:
    """Randomly change brightness and color temperature."""
    gain = 1 + 0.4 * (torch.rand(len(picture), 1, 1, 1, generator=rng) - 0.5)
    tint = 1 + 0.2 * (torch.rand(len(picture), 3, 1, 1, generator=rng) - 0.5)
    grey = in_gray(picture)
    color = 0.7 + 0.5 * torch.rand(len(picture), 1, 1, 1, generator=rng)
    return ((grey + (picture - grey) * color) * gain * tint).clamp(0, 1)


def _cropped(picture: Tensor, cover: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    """Crop the square around each cover (N, P, P) with a margin, scaled by `scale` and moved by `shift` of its side."""
    solid, ticks = cover > 0.4, torch.arange(PATCH_PX)
    edges = [
        (torch.where(along, ticks, PATCH_PX).amin(1).float(), torch.where(along, ticks + 1, 0).amax(1).float())
        for along in (solid.any(1), solid.any(2))
    ]
    middle = torch.stack([(low + high) / 2 for low, high in edges], -1)
    side = torch.stack([high - low for low, high in edges], -1).amax(-1) * MARGIN * scale
    middle = middle + shift * side[:, None]
    points = (_grid(CROP_PX) / CROP_PX - 0.5) * side[:, None, None, None] + middle[:, None, None]
    return F.grid_sample(picture, points / PATCH_PX * 2 - 1, padding_mode="border", align_corners=False)


def _shuffled(crops: Tensor, rng: torch.Generator) -> Tensor:
    side = CROP_PX // PATCHES
    patches = (
        crops.unfold(2, side, side).unfold(3, side, side).flatten(2, 3)[:, :, torch.randperm(PATCHES**2, generator=rng)]
    )
    patches = patches.unflatten(2, (PATCHES, PATCHES))
    return patches.permute(0, 1, 2, 4, 3, 5).reshape(crops.shape)


def contrast(embeddings: Tensor, who: Tensor, decoys: Tensor) -> Tensor:
    """Supervised InfoNCE loss of embeddings (N, D) with labels `who` (N,); `decoys` (M, D) are negatives for all."""
    alike = embeddings @ torch.cat([embeddings, decoys]).T / TEMPERATURE
    own = torch.eye(len(who), dtype=torch.bool)
    alike[:, : len(who)].masked_fill_(own, -torch.inf)
    same = (who[:, None] == who) & ~own
    likelihood = alike.log_softmax(1)[:, : len(who)]
    return -(likelihood.masked_fill(~same, 0).sum(1) / same.sum(1)).mean()


def batch(sprites: Sprites, rng: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """Crops (PEOPLE * (VIEWS + DECOYS), 3, 48, 48), the labels of the first PEOPLE * VIEWS, and which are decoys."""
    people = torch.randperm(len(sprites.people), generator=rng)[:PEOPLE]
    who = people.repeat(VIEWS + DECOYS)
    decoy = torch.zeros(len(who), dtype=torch.long)
    fakes = PEOPLE * DECOYS
    decoy[-fakes:] = torch.randint(1, 4, (fakes,), generator=rng)
    reference = torch.arange(len(who)) // PEOPLE % 2 == 0
    crops = views_of(sprites, who, reference, decoy, rng)
    if torch.rand((), generator=rng) < GREY_SHARE:
        crops = in_gray(crops)
    return crops, who[:-fakes], decoy > 0


def train(sprites: Sprites, steps: int, seed: int = 7) -> IdentityNetwork:
    """Train with a learning rate that decays to zero. Deterministic for a seed on the same processor."""
    torch.manual_seed(seed)
    rng = torch.Generator().manual_seed(seed)
    network = IdentityNetwork()
    optimizer = torch.optim.AdamW(network.parameters(), lr=RATE, weight_decay=0.02)
    for step in range(steps):
        optimizer.param_groups[0]["lr"] = RATE * min(1, (step + 1) / 30) * max(1 - step / steps, 0.01)
        crops, who, decoys = batch(sprites, rng)
        embeddings = network(crops)
        loss = contrast(embeddings[~decoys], who, embeddings[decoys])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if step % 50 == 0:
            print(f"step {step} of {steps}: loss {loss.item():.3f}", flush=True)
    return network.eval()


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--out", type=Path, default=Path(__file__).with_name(WEIGHTS))
    chosen = parser.parse_args(arguments)
    torch.set_num_threads(1)
    network = train(draw_sprites(SEED, CHARACTERS), chosen.steps)
    save_file({name: value.half().contiguous() for name, value in network.state_dict().items()}, chosen.out)


if __name__ == "__main__":
    main()
