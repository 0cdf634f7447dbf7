"""Optimizers in float32 for a model in half precision, with a moving average of the weights, usable in a CUDA graph."""

from typing import Any

import torch
from torch import Tensor, nn

from motionbooth_lab.toybox import muon

GRADIENT_CLIP = 1.0


class Masters:
    """Float32 master weights of a float32 or bfloat16 model, their optimizer and an exponential moving average (EMA).

    For a float32 model the masters are its own parameters. `with_muon`: Muon takes the weights of hidden layers, AdamW
    the others.
    """

    def __init__(
        self, model: nn.Module, betas: tuple[float, float], weight_decay: float, with_muon: bool = False
    ) -> None:
        named = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
        self._own = [p for _, p in named]
        self.dtype = self._own[0].dtype
        self._shared = self.dtype == torch.float32
        self._masters = self._own if self._shared else [p.detach().float() for p in self._own]
        self._average = [p.detach().float().clone() for p in self._own]
        device = self._own[0].device
        on_gpu = device.type == "cuda"
        self._rate = torch.tensor(0.0, device=device)
        rate: Any = self._rate if on_gpu else 0.0
        by_muon = [with_muon and muon.takes(*each) for each in named]
        chosen = [master for master, is_chosen in zip(self._masters, by_muon, strict=True) if is_chosen]
        others = [master for master, is_chosen in zip(self._masters, by_muon, strict=True) if not is_chosen]
        self._muon = muon.Muon(chosen, weight_decay)
        self._optimizer = torch.optim.AdamW(
            others, lr=rate, betas=betas, weight_decay=weight_decay, fused=True, capturable=on_gpu
        )
        self._keep = torch.tensor(0.0, device=device)
        self.steps = 0

    def set_rate(self, rate: float) -> None:
        """Set the learning rate of the next step, and the decay of the average, which grows at first."""
        self._rate.fill_(rate)
        for group in self._optimizer.param_groups:
            if not isinstance(group["lr"], Tensor):
                group["lr"] = rate
        self._keep.fill_(1 - min(0.9985, (1 + self.steps) / (10 + self.steps)))

    def count_step(self) -> None:
        self.steps += 1

    def clear_gradients(self) -> None:
        for parameter in self._own:
            parameter.grad = None

    def step(self) -> Tensor:
        """Clip gradients, step, write the weights back, update the average. Returns the norm before clipping."""
        used = [(own, master) for own, master in zip(self._own, self._masters, strict=True) if own.grad is not None]
        if not self._shared:
            for own, master in used:
                master.grad = None if own.grad is None else own.grad.float()
        norm = nn.utils.clip_grad_norm_([master for _, master in used], GRADIENT_CLIP)
        self._optimizer.step()
        self._muon.step(self._rate)
        for master in self._masters if not self._shared else []:
            master.grad = None
        with torch.no_grad():
            if not self._shared:
                torch._foreach_copy_([own for own, _ in used], [master for _, master in used])
            ways = torch._foreach_sub([master.detach() for master in self._masters], self._average)
            torch._foreach_mul_(ways, self._keep)
            torch._foreach_add_(self._average, ways)
        return norm

    def average_into(self, model: nn.Module) -> None:
        """Copy the averaged weights to a model of the same architecture."""
        with torch.no_grad():
            for target, value in zip(model.parameters(), self._average, strict=True):
                target.copy_(value)

    def state(self) -> dict[str, Any]:
        """Everything that the next step depends on."""
        masters = [master.detach() for master in self._masters]
        return {
            "masters": masters,
            "average": self._average,
            "optimizer": self._optimizer.state_dict(),
            "muon": self._muon.state(),
            "steps": self.steps,
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Restore what `state` returned. If the optimizer's moments are missing, they accumulate again."""
        with torch.no_grad():
            for own, master, value in zip(self._own, self._masters, state["masters"], strict=True):
                master.copy_(value)
                own.copy_(value)
            for average, value in zip(self._average, state["average"], strict=True):
                average.copy_(value)
        self.steps = int(state["steps"])
        if state.get("optimizer") is not None:
            self._optimizer.load_state_dict(state["optimizer"])
            self._muon.restore(state.get("muon", []))  # older states have none
