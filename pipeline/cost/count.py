"""The arithmetic and the memory traffic of a network, counted without running it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

aten = torch.ops.aten
# A view without saying so in its schema, and what only reserves memory.
FREE = {aten._unsafe_view.default, aten.empty.memory_format, aten.empty_like.default}


@dataclass(frozen=True, slots=True)
class Kernel:
    """One launch."""

    flops: float
    """Multiplications and additions of matrix products and convolutions; 0 for all else."""
    traffic_bytes: float
    """Every input read once and every output written once."""


@dataclass(frozen=True)
class Work:
    """A stage's launches, in order."""

    kernels: tuple[Kernel, ...]

    @property
    def flops(self) -> float:
        """In all."""
        return sum(kernel.flops for kernel in self.kernels)

    @property
    def traffic_bytes(self) -> float:
        """In all."""
        return sum(kernel.traffic_bytes for kernel in self.kernels)

    @property
    def fused(self) -> Work:
        """The same with all else folded into products and convolutions, as a compiler aims to."""
        return Work(tuple(kernel for kernel in self.kernels if kernel.flops) or self.kernels)


class Counter(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts what reaches the device; views are free."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.kernels: list[Kernel] = []

    def __torch_dispatch__(
        self,
        func: Any,
        types: Any,
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        if not is_free(func):
            count = flop_registry.get(func._overloadpacket)
            flops = count(*args, **kwargs, out_val=result) if count else 0
            self.kernels.append(Kernel(flops, size_bytes(args, kwargs, result)))
        return result


class FusedAttention(TorchFunctionMode):
    """Counts attention as one launch that never writes its weights to memory."""

    def __init__(self, counter: Counter) -> None:
        super().__init__()
        self._counter = counter

    def __torch_function__(
        self,
        func: Any,
        types: Any,
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        if func is not scaled_dot_product_attention:
            return func(*args, **kwargs)
        query, key, value = (*args, *kwargs.values())[:3]
        result = torch.empty_like(query)
        batch, heads, queries, width = query.shape
        flops = 4 * batch * heads * queries * key.shape[-2] * width
        self._counter.kernels.append(Kernel(flops, size_bytes(query, key, value, result)))
        return result


def is_free(func: Any) -> bool:
    """Tell whether an operation launches nothing: a view, or a reservation."""
    returns = func._schema.returns
    is_alias = bool(returns) and returns[0].alias_info is not None
    return func in FREE or (is_alias and not func._schema.is_mutable)


def size_bytes(*values: Any) -> float:
    """Return the bytes of all tensors in nested values."""
    tensors = [value for value in tree_leaves(values) if isinstance(value, Tensor)]
    return sum(tensor.numel() * tensor.itemsize for tensor in tensors)


def count_work(run: Callable[[], object]) -> Work:
    """Count what a function launches; its tensors should be on the meta device."""
    with torch.no_grad(), Counter() as counter, FusedAttention(counter):
        run()
    return Work(tuple(counter.kernels))
