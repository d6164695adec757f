"""Which kernel torch's own attention modules run does not depend on whether leakcheck watches.

In eval mode and without gradients `nn.MultiheadAttention` and `nn.TransformerEncoderLayer` hand over to fused kernels,
which read a mask, or the lack of one, in their own way. They do not while a `TorchFunctionMode` is active.
"""

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

_CHOOSING = frozenset({"torch.nn.modules.activation", "torch.nn.modules.transformer"})


@contextmanager
def as_unwatched() -> Iterator[None]:
    """Inside, torch's modules choose their kernels as if no function mode were active."""
    overrides: Any = torch.overrides  # a function is no variable for type checkers
    original = overrides.has_torch_function

    def has_torch_function(relevant: Sequence[Any]) -> bool:
        choosing = sys._getframe(1).f_globals.get("__name__") in _CHOOSING
        if choosing and all(value is None or type(value) in (torch.Tensor, nn.Parameter) for value in relevant):
            return False
        return original(relevant)

    overrides.has_torch_function = has_torch_function
    try:
        yield
    finally:
        overrides.has_torch_function = original
