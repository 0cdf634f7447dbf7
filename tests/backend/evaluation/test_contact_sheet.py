"""The contact sheet shows all there is to see."""

from pathlib import Path

import numpy as np
from motionbooth.evaluation.contact_sheet import FRAME_WIDTH_PX, Row, write_contact_sheet
from motionbooth_protocol.motion import Box, CameraPath
from PIL import Image


def pixels_of(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path).convert("RGB"))


def test_boxes_camera_and_pictures_are_all_on_the_sheet(tmp_path: Path) -> None:
    frames = np.zeros((3, 64, 96, 3), np.uint8)
    box = Box(0.25, 0.25, 0.75, 0.75)
    row = Row("a red ball", frames, requested=[[box, box, None]], found=[[None, box, None]], camera=CameraPath.still(3))
    picture = np.full((50, 50, 3), (10, 200, 30), np.uint8)
    write_contact_sheet(tmp_path / "new" / "sheet.png", [row], [picture])
    pixels = pixels_of(tmp_path / "new" / "sheet.png")
    assert pixels.shape[1] > 4 * FRAME_WIDTH_PX
    assert (pixels == (255, 255, 255)).all(-1).sum() > 500  # requested boxes
    assert (pixels == (255, 60, 60)).all(-1).sum() > 200  # found box
    assert (pixels == (40, 90, 200)).all(-1).any()  # camera path
    assert (pixels == (10, 200, 30)).all(-1).sum() == FRAME_WIDTH_PX**2


def test_a_row_needs_neither_boxes_nor_camera(tmp_path: Path) -> None:
    write_contact_sheet(tmp_path / "sheet.png", [Row("plain", np.zeros((2, 64, 96, 3), np.uint8))])
    assert pixels_of(tmp_path / "sheet.png").size


def test_training_pictures_stand_beside_the_frames_at_their_height(tmp_path: Path) -> None:
    frames = np.zeros((2, 64, 96, 3), np.uint8)
    pictures = [np.full((side, side, 3), (10, 200, 30), np.uint8) for side in (50, 400)]
    write_contact_sheet(tmp_path / "sheet.png", [Row("beside", frames, pictures=pictures)])
    rows, columns = np.nonzero((pixels_of(tmp_path / "sheet.png") == (10, 200, 30)).all(-1))
    assert np.ptp(rows) + 1 == FRAME_WIDTH_PX * 64 // 96
    assert columns.max() < np.nonzero((pixels_of(tmp_path / "sheet.png") == 0).all(-1))[1].max()
    assert len(rows) == 2 * (FRAME_WIDTH_PX * 64 // 96) ** 2


def test_a_zoom_shows_the_outline_of_each_frame(tmp_path: Path) -> None:
    frames = np.zeros((2, 64, 96, 3), np.uint8)
    still, zoom = (((z, 0.0, 0.5 - z / 2), (0.0, z, 0.5 - z / 2), (0.0, 0.0, 1.0)) for z in (1.0, 2.0))
    camera = CameraPath(CameraPath.still(2).offsets, [still, zoom])
    write_contact_sheet(tmp_path / "sheet.png", [Row("zoom", frames, camera=camera)])
    rows, columns = np.nonzero((pixels_of(tmp_path / "sheet.png") == (40, 90, 200)).all(-1))
    assert np.ptp(columns) > 0.8 * FRAME_WIDTH_PX  # the first frame, at 0.9 of its size
    middle = columns[rows == int((rows.min() + rows.max()) / 2)]  # both outlines' left and right edges
    # The last frame's edges are 3 pixels wide and half as far apart.
    assert len(middle) == 8
    assert np.ptp(middle[1:-1]) < 0.5 * FRAME_WIDTH_PX


def test_a_long_clip_is_shown_by_sixteen_of_its_frames(tmp_path: Path) -> None:
    """With the boxes of these frames, the last one included, on two lines."""
    frames = np.zeros((100, 20, 30, 3), np.uint8)
    frames[-1] = (10, 200, 10)
    boxes = [None] * 99 + [Box(0.25, 0.25, 0.75, 0.75)]
    write_contact_sheet(tmp_path / "sheet.png", [Row("long", frames, requested=[boxes])])
    sheet = np.asarray(Image.open(tmp_path / "sheet.png"))
    height = FRAME_WIDTH_PX * 20 // 30
    assert 8 * FRAME_WIDTH_PX < sheet.shape[1] < 9 * FRAME_WIDTH_PX
    assert 2 * height < sheet.shape[0] < 3 * height
    assert (sheet == 0).all(-1).sum() == 15 * FRAME_WIDTH_PX * height
    last = sheet[-height:, -FRAME_WIDTH_PX - 20 :]
    assert (last == (10, 200, 10)).all(-1).any()
    assert (last == (255, 255, 255)).all(-1).sum() > 100


def test_a_box_of_less_than_a_pixel_is_drawn(tmp_path: Path) -> None:
    row = Row("far away", np.zeros((1, 64, 96, 3), np.uint8), requested=[[Box(0.5, 0.5, 0.502, 0.503)]])
    write_contact_sheet(tmp_path / "sheet.png", [row])
    assert 0 < (pixels_of(tmp_path / "sheet.png") == (255, 255, 255)).all(-1).sum() < 50  # a line of 3 px
