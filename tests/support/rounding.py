"""How closely two processors agree on the numbers of one network.

Each has its own sin, cos and exp, and its own order of sums. In float64 that stays below 1e-12, but the time embedding
is float32 whatever the network is: its phase reaches 1000 rad, where neighbors in float32 lie 2**-14 apart. One such
step moves an embedding, whose size is one, by 2**-14, and what the network makes of it in the same proportion.
"""

import torch
from torch import Tensor

BY_TIME_EMBEDDING = 2.0**-13  # two such steps, as a share of the largest value


def assert_equal_but_for_the_time_embedding(found: Tensor, expected: Tensor) -> None:
    allowed = 1e-12 + BY_TIME_EMBEDDING * float(expected.abs().max())
    torch.testing.assert_close(found, expected, rtol=0, atol=allowed)
