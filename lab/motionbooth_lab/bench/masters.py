"""How exactly each master gives back the decoded frames: `motionbooth bench masters`."""

from __future__ import annotations

from pathlib import Path

import av
import av.filter
import cv2
import numpy as np
import OpenEXR
from motionbooth_protocol.masters import Master
from motionbooth_protocol.motion import Shot
from numpy.typing import NDArray


def read_master(master: Master, clip: Path, shot: Shot) -> NDArray[np.generic]:
    """The values of a clip's master (F, H, W, 3), RGB: 16-bit floats of an EXR, otherwise 16-bit integers."""
    if not master.is_sequence:
        with av.open(str(master.path(clip))) as container:
            return np.stack([_sixteen_bits(frame) for frame in container.decode(video=0)])
    pictures = [str(master.picture(clip, frame)) for frame in range(shot.frame_start, shot.frame_end + 1)]
    if master is Master.EXR:
        return np.stack([OpenEXR.File(picture).channels()["RGB"].pixels for picture in pictures])
    return np.stack([cv2.imread(picture, cv2.IMREAD_UNCHANGED)[..., ::-1] for picture in pictures])


def _sixteen_bits(frame: av.VideoFrame) -> NDArray[np.uint16]:
    """As a careful reader does it: colors between two samples of 4:2:2 are interpolated."""
    graph = av.filter.Graph()
    colors = ":in_color_matrix=bt709:in_range=tv" if frame.format.name.startswith("yuv") else ""
    graph.link_nodes(
        graph.add_buffer(width=frame.width, height=frame.height, format=frame.format.name, time_base=frame.time_base),
        graph.add("scale", f"flags=lanczos+accurate_rnd+full_chroma_int{colors}:out_range=pc"),
        graph.add("format", "rgb48le"),
        graph.add("buffersink"),
    ).configure()
    graph.push(frame)
    return graph.pull().to_ndarray()
