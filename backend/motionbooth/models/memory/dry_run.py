"""The peak memory of a computation that is not carried out: tensors on torch's "meta" device have sizes and no data."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


def peak_of(work: Callable[[], Any]) -> int:
    """The most bytes that `work` has allocated at one time. Tensors that existed before, such as weights, do not count.

    All tensors must be on "meta". Attention counts as torch's fused kernels, which allocate their result only.
    """
    counter = _Counter()
    with _FusedAttention(), counter:
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


class _FusedAttention(TorchFunctionMode):
    """Replaces scaled_dot_product_attention, which would compute every weight of the attention on "meta"."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is F.scaled_dot_product_attention:
            named = kwargs or {}
            return _Attention.apply(*args[:3], *(named[name] for name in ("query", "key", "value")[len(args) :]))
        return func(*args, **(kwargs or {}))


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
