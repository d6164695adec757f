"""Code that torch would compile: while a trace is active it runs op by op, so that labels can follow.

Compiled functions are told to run eagerly. Flex attention compiles its kernel whenever it is called, unless a flag of
its module says otherwise; its kernel is then the scores in full, `score_mod` and `mask_mod` on all pairs, and a softmax
(`torch/_higher_order_ops/flex_attention.py`).
"""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch

_FLEX = "torch.nn.attention.flex_attention"
_FLAG = "_FLEX_ATTENTION_DISABLE_COMPILE_DEBUG"


def flex_attention(*args: Any, **kwargs: Any) -> Any:
    """The kernel of flex attention in ordinary ops."""
    from torch._higher_order_ops.flex_attention import sdpa_dense  # only there once the op is

    return sdpa_dense(*args, **kwargs)


HIGHER_ORDER: dict[str, Callable[..., Any]] = {"higher_order::flex_attention": flex_attention}


@contextmanager
def uncompiled() -> Iterator[None]:
    """Nothing is compiled; flex attention runs in ordinary ops."""
    module = sys.modules.get(_FLEX)
    before = getattr(module, _FLAG, None)
    if module is not None:
        setattr(module, _FLAG, True)
    try:
        with torch.compiler.set_stance("force_eager"):
            yield
    finally:
        if module is not None:
            setattr(module, _FLAG, before)
