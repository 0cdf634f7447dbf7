"""How closely two processors agree on the numbers of one network.

Each has its own sin, cos and exp, its own order of sums, with and without fused multiply-add. In float64 that stays below 1e-12,
but the time embedding is float32 whatever the network is: its phase reaches 1000 rad, where neighbors in float32 lie 2**-14 apart.
One step of that moves an embedding, whose size is one, by 2**-14, and what the network makes of it in the same proportion.
"""

import torch
from torch import Tensor

BY_TIME_EMBEDDING = 2.0**-13  # two such steps, as a share of the largest value


def assert_equal_but_for_the_time_embedding(found: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(found, expected, rtol=0, atol=BY_TIME_EMBEDDING * float(expected.abs().max()))
