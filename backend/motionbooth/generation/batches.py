"""Several clips in one batch, as many as memory holds."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from torch import Tensor

from motionbooth.models.memory.plans import is_out_of_memory


def in_batches(
    seeds: Sequence[int], batch_size: int, sample: Callable[[Sequence[int], int], Tensor]
) -> Iterator[tuple[int, Tensor]]:
    """Each seed with its clip. Halves the batch whenever memory runs out, down to single clips.

    `sample(batch, first)` returns the clips (N, ...) of a batch of seeds, of which the first is seeds[first].
    """
    first = 0
    while first < len(seeds):
        batch = seeds[first : first + batch_size]
        try:
            clips = sample(batch, first)
        except Exception as error:
            if len(batch) == 1 or not is_out_of_memory(error):
                raise
            batch_size = len(batch) // 2
            continue
        yield from zip(batch, clips, strict=True)
        first += len(batch)
