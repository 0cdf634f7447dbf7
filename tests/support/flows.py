"""The scenery's motion as one vector for each two frames."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from motionbooth.evaluation.camera_adherence import scenery_flows_px
from numpy.typing import NDArray


def scenery_flow_px(frames: NDArray[np.uint8], subjects: Sequence[NDArray[np.bool_] | None]) -> NDArray[np.float64]:
    """(F - 1, 2): the median motion in pixels of the scenery from each frame to the next; nan without texture."""
    flows = scenery_flows_px(frames, subjects)
    medians = [np.median(flow.motion, axis=0) if len(flow) else (np.nan, np.nan) for flow in flows]
    return np.array(medians).reshape(-1, 2)
