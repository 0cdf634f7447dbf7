"""The other ways to move the scenery: `gather` is the product's own, and each of them moves what it says."""

import pytest
import torch
from motionbooth.generation.sampling import generate_clip
from motionbooth_lab.bench.camera import MOVES, cases, with_camera
from motionbooth_lab.bench.camera_alternatives import camera_maps, carried, generate, integrated, moved, variant
from motionbooth_lab.bench.control import bundled_base
from motionbooth_protocol.motion import CameraPath, Offset

PAN = CameraPath([Offset(0.0, 0.0), Offset(0.25, 0.0)])  # by two of eight cells, to the right


def test_noise_is_carried_against_the_camera_and_new_where_it_comes_in() -> None:
    noise = torch.randn(1, 4, 2, 4, 8, generator=torch.Generator().manual_seed(0))
    found = carried(noise, camera_maps(PAN), torch.Generator().manual_seed(1))
    assert torch.equal(found[:, :, 0], noise[:, :, 0])
    assert torch.equal(found[:, :, 1, :, :6], noise[:, :, 0, :, 2:])
    assert not torch.isin(found[:, :, 1, :, 6:], noise).any()


def test_integrated_noise_is_carried_by_whole_cells_and_keeps_its_variance_in_a_zoom() -> None:
    noise = torch.randn(1, 64, 2, 8, 16, generator=torch.Generator().manual_seed(0))
    pan = CameraPath([Offset(0.0, 0.0), Offset(0.25, 0.0)])
    found = integrated(noise, camera_maps(pan), torch.Generator().manual_seed(1))
    assert found[:, :, 0] == pytest.approx(noise[:, :, 0], abs=1e-5)  # float32 sums of 64 numbers
    assert found[:, :, 1, :, :12] == pytest.approx(noise[:, :, 0, :, 4:], abs=1e-5)
    for size in (0.6, 1.7):
        zoom = torch.eye(3, dtype=torch.float64).repeat(2, 1, 1)
        zoom[1, 0, 0] = zoom[1, 1, 1] = size
        found = integrated(noise, zoom, torch.Generator().manual_seed(1))
        assert found[:, :, 1].var().item() == pytest.approx(1, abs=0.1)  # 8,192 numbers, some of them alike: 2 to 4 %


def test_clean_latents_move_against_the_camera_and_repeat_the_border() -> None:
    clean = torch.randn(1, 4, 2, 4, 8, generator=torch.Generator().manual_seed(0))
    found = moved(clean, camera_maps(PAN))
    assert found[:, :, 0] == pytest.approx(clean[:, :, 0], abs=1e-5)  # float32 places of up to eight cells
    assert found[:, :, 1, :, :6] == pytest.approx(clean[:, :, 1, :, 2:], abs=1e-5)
    assert found[:, :, 1, :, 6:] == pytest.approx(clean[:, :, 1, :, 7:].expand(-1, -1, -1, 2), abs=1e-5)


@pytest.mark.slow
def test_gathering_is_what_the_product_does_and_the_others_are_something_else() -> None:
    (case,) = cases([0])
    spec = with_camera(case, MOVES["roll by 20"].camera(len(case.boxes))).spec
    base = variant(bundled_base(), "gather", merging=False)
    product = generate_clip(base, spec).numpy()
    assert (generate(base, spec, "gather") == product).all()
    for method in ("clean", "noise", "integral"):
        assert (generate(base, spec, method) != product).mean() > 0.5
