"""The peak memory of a computation that is not carried out: tensors on torch's "meta" device have sizes and no data."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


def peak_of(work: Callable[[], Any], autocast: torch.dtype | None = None) -> int:
    """The most bytes that `work` has allocated at one time. Tensors that existed before, such as weights, do not count.

    All tensors must be on "meta". Attention counts as torch's fused kernels, which allocate their result only.
    `autocast`: as under torch.autocast to this precision.
    """
    counter = _Counter()
    with _functions(autocast), counter:
        work()
    return counter.peak


class _Counter(TorchDispatchMode):
    """Counts the storages that operations create until they are freed."""

    def __init__(self) -> None:
        super().__init__()
        self.peak = self._level = 0
        self._counted: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = {_storage(tensor)._cdata for tensor in tree_leaves((args, kwargs)) if _is_meta(tensor)}
        result = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if not _is_meta(tensor):
                continue
            storage = _storage(tensor)
            if storage._cdata not in given and storage._cdata not in self._counted:
                self._counted.add(storage._cdata)
                self._level += storage.nbytes()
                self.peak = max(self.peak, self._level)
                weakref.finalize(storage, self._freed, storage._cdata, storage.nbytes())
        return result

    def _freed(self, key: int, size: int) -> None:
        self._counted.discard(key)
        self._level -= size


def _is_meta(value: Any) -> bool:
    return isinstance(value, Tensor) and value.is_meta


def _storage(tensor: Tensor) -> torch.UntypedStorage:
    return tensor.untyped_storage()


_TO_HALF = ("linear", "conv1d", "conv2d", "conv3d")
_TO_FLOAT = ("group_norm", "layer_norm", "rms_norm")


@contextmanager
def _functions(half: torch.dtype | None) -> Iterator[None]:
    """Attention as the fused kernels allocate; with `half`, also what torch.autocast does, which knows no "meta".

    Replaced in torch itself, because the modes of torch are off while gradient checkpointing computes again.
    """
    replaced = {"scaled_dot_product_attention": _attention}
    if half is not None:
        replaced |= {name: _casting(getattr(F, name), half) for name in _TO_HALF}
        replaced |= {name: _casting(getattr(F, name), torch.float32) for name in _TO_FLOAT}
    before = {name: getattr(F, name) for name in replaced}
    try:
        for name, function in replaced.items():
            setattr(F, name, function)
        yield
    finally:
        for name, function in before.items():
            setattr(F, name, function)


def _casting(function: Callable[..., Any], dtype: torch.dtype) -> Callable[..., Any]:
    def cast(value: Any) -> Any:
        return value.to(dtype) if isinstance(value, Tensor) and value.is_floating_point() else value

    def compute(*args: Any, **kwargs: Any) -> Any:
        return function(*map(cast, args), **{name: cast(value) for name, value in kwargs.items()})

    return compute


def _attention(query: Tensor, key: Tensor, value: Tensor, *_: Any, **__: Any) -> Tensor:
    return _Attention.apply(query, key, value)


class _Attention(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        result = query.new_empty(*query.shape[:-1], value.shape[-1])
        ctx.save_for_backward(query, key, value, result)
        return result

    @staticmethod
    def backward(ctx: Any, *_: Any) -> Any:
        query, key, value, _ = ctx.saved_tensors
        return torch.empty_like(query), torch.empty_like(key), torch.empty_like(value)
