"""The processes of one training, a thread each: gradients are averaged, and time is agreed upon.

Two processes of one thread each train faster on two cores than one process of two threads (measured: the UNet's
convolutions are too small for threads to share).
"""

import time
from collections.abc import Iterable
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor
from torch.nn import Parameter


@dataclass
class Ranks:
    """This process's place among `size` processes."""

    rank: int
    size: int

    @property
    def is_first(self) -> bool:
        return self.rank == 0

    def average(self, tensor: Tensor) -> Tensor:
        """The mean of a tensor over all processes, in place."""
        if self.size > 1:
            dist.all_reduce(tensor)
            tensor /= self.size
        return tensor

    def average_gradients(self, parameters: Iterable[Parameter]) -> None:
        """Average all gradients in one message; a missing gradient counts as zero."""
        if self.size == 1:
            return
        listed = list(parameters)
        for parameter in listed:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
        flat = self.average(torch.cat([p.grad.reshape(-1) for p in listed if p.grad is not None]))
        start = 0
        for parameter in listed:
            assert parameter.grad is not None
            parameter.grad.copy_(flat[start : start + parameter.numel()].view_as(parameter.grad))
            start += parameter.numel()

    def barrier(self) -> None:
        if self.size > 1:
            dist.barrier()


class StageClock:
    """Seconds that a stage has run, those before a resume included; the same in all processes."""

    def __init__(self, ranks: Ranks, spent: float, budget: float) -> None:
        self._ranks, self._spent, self.budget = ranks, spent, budget
        self._started = time.monotonic()
        self.seconds = spent

    def tick(self) -> float:
        """Agree on the time; returns the share of the budget that is spent, 0..1."""
        own = torch.tensor(self._spent + time.monotonic() - self._started)
        self.seconds = float(self._ranks.average(own))
        return min(self.seconds / max(self.budget, 1e-6), 1.0)
