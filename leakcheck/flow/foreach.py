"""Ops on lists of tensors, as `aten::_foreach_mul`: run as the op of that name on one tensor after another."""

from collections.abc import Callable
from typing import Any

import torch

_PREFIX = "aten::_foreach_"
_OTHERWISE = frozenset({"addcdiv", "addcdiv_", "addcmul", "addcmul_"})  # their factors are keywords on single tensors


def each(schema: Any) -> Callable[..., Any] | None:
    """What to run in place of an op on lists; `None` if it is no such op, or has no like on single tensors."""
    name = schema.name.removeprefix(_PREFIX)
    single = getattr(torch.ops.aten, name, None)
    if not schema.name.startswith(_PREFIX) or name in _OTHERWISE or single is None:
        return None

    def run(*args: Any, **named: Any) -> list[torch.Tensor] | None:
        count = max(len(value) for value in args if isinstance(value, (list, tuple)))
        results = [
            single(*(_of(value, i) for value in args), **{key: _of(value, i) for key, value in named.items()})
            for i in range(count)
        ]
        return results if schema.returns else None

    return run


def _of(value: Any, index: int) -> Any:
    return value[index] if isinstance(value, (list, tuple)) else value
