"""Tensors without values: parameters on the meta device, and what is computed from them.

Labels need no weights. An op that reads a tensor without values runs on the meta device, for the shapes alone; one that
reads only tensors with values, such as a mask, is computed, whatever device the program asked for.

Where a rule may look at values, at ZEROs and at BLOCKED scores, a *stand-in* has them; elsewhere it has any. An op that
cannot go without values (it makes integers, decides a size, or writes into a tensor that has values) runs on stand-ins:
what labels claim holds for all values of what they do not know, and so for these.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from leakcheck.flow.labels import BLOCKED, GENERIC, KNOWN, SOFT_MASK, ZERO, Labels, some

_CPU, _META = torch.device("cpu"), torch.device("meta")
_BLOCKING = -1e33  # of a BLOCKED score; above the lowest number by as much as a blocking constant may shrink
_LARGEST = 1 << 22  # elements of a stand-in that differ from each other
_INTEGERS = frozenset({torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8})

# They take nothing from a tensor but its shape.
SHAPED_LIKE = frozenset(
    f"aten::{name}"
    for name in (
        "zeros_like", "ones_like", "full_like", "rand_like", "randn_like", "randint_like", "new_zeros", "new_ones",
        "new_full",
    )
)  # fmt: skip


@contextmanager
def autocast_without_values() -> Iterator[None]:
    """`torch.autocast` knows no meta device; what runs there stands for what would run on the CPU."""
    autocast: Any = torch.autocast
    original = autocast.__init__

    def init(self: Any, device_type: str, *args: Any, **kwargs: Any) -> None:
        original(self, "cpu" if device_type == "meta" else device_type, *args, **kwargs)

    autocast.__init__ = init
    try:
        yield
    finally:
        autocast.__init__ = original


def is_absent(tensor: Tensor) -> bool:
    return tensor.device.type == "meta"


def stand_in(tensor: Tensor, labels: Labels, drawn: torch.Generator | None = None) -> Tensor:
    """Values for a tensor of these labels: right where they are ZERO or BLOCKED, elsewhere one, or `drawn`.

    It is expanded along the dimensions along which the labels are constant, unless values are drawn.
    """
    core = labels.hardened().core
    if drawn is not None and tensor.numel() <= _LARGEST:
        core = core.expand(tensor.shape)
        if tensor.dtype == torch.bool:
            values = torch.rand(tensor.shape, generator=drawn) < 0.5
        else:
            values = (0.5 + torch.rand(tensor.shape, generator=drawn)).to(tensor.dtype)  # of integers: 0 or 1
    else:
        values = torch.full((), 0 if tensor.dtype in _INTEGERS else 1, dtype=tensor.dtype)
    values = torch.where(core == ZERO, torch.zeros((), dtype=tensor.dtype), values)
    if tensor.is_floating_point():
        values = values.masked_fill_(core == BLOCKED, max(_BLOCKING, torch.finfo(tensor.dtype).min))
    return values.expand(tensor.shape)


def unassumed(labels: Labels, values: Callable[[], Tensor] | None = None) -> Labels:
    """Labels for a tensor without values: what is known to be constant has no value to look at.

    With `values`, which broadcast to it, a constant as low as a finite mask becomes a soft label.
    """
    if labels.least > KNOWN or (labels.uniform is not None and labels.uniform != KNOWN):
        return labels
    known = labels.core == KNOWN
    core = torch.where(known, GENERIC, labels.core)
    result = Labels.spread(core, labels.shape, labels.owners, labels.soft)
    if values is None or not some(known):
        return result if labels.uniform is None else Labels.full(labels.shape, GENERIC)
    low = known & (values() <= SOFT_MASK)
    return result.softened(low.expand(labels.shape)) if some(low) else result


def mapped(value: Any, function: Callable[[Tensor], Tensor]) -> Any:
    """An argument with `function` of each tensor in its place."""
    if isinstance(value, Tensor):
        return function(value)
    if isinstance(value, tuple):
        return tuple(mapped(item, function) for item in value)
    if isinstance(value, list):
        return [mapped(item, function) for item in value]
    if isinstance(value, dict):
        return {name: mapped(item, function) for name, item in value.items()}
    return value


class Runner:
    """Runs ops with tensors that may have no values, or are asked for on the meta device.

    `invented` tells whether values from stand-ins have come into a tensor that has values.
    """

    def __init__(self) -> None:
        self.invented = False
        self._generator = torch.Generator().manual_seed(0)
        self._results: dict[Any, Any] = {}  # what calls that are alike return

    def run(
        self, func: Any, args: tuple, kwargs: dict, labels: Callable[[Tensor], Labels], written: Sequence[Tensor], *,
        shaped_like: bool, needs_values: bool,
    ) -> Any:  # fmt: skip
        """What the op returns. `labels` are those of its operands, `written` the tensors that it writes to."""
        lacking: list[Tensor] = []
        mapped((args, kwargs), lambda t: _noted(t, lacking))
        if not lacking or shaped_like:
            if shaped_like or _is_meta(kwargs.get("device")):
                kwargs = {**kwargs, "device": _CPU}
            return _computed(func, args, kwargs)
        if kwargs.get("device") is not None:
            kwargs = {**kwargs, "device": _META}
        if not needs_values and all(is_absent(t) for t in written):
            try:
                result = self._on_meta(func, args, kwargs)
            except NotImplementedError:  # no kernel that tells the shapes
                pass
            else:
                if not _has_integers(result) or all(labels(t).is_constant for t in lacking):
                    return result

        def valued(tensor: Tensor) -> Tensor:
            return stand_in(tensor, labels(tensor), self._generator) if is_absent(tensor) else tensor

        self.invented = True
        return _computed(func, mapped(args, valued), mapped({**kwargs, **_on_cpu(kwargs)}, valued))

    def _on_meta(self, func: Any, args: tuple, kwargs: dict) -> Any:
        """The op for its shapes; of layers that are alike only the first runs it."""
        if func._schema.is_mutable or any(r.alias_info is not None for r in func._schema.returns):
            return _for_shapes(func, args, kwargs)
        key = (func, _form(args), _form(tuple(kwargs.items())))
        if key not in self._results:
            self._results[key] = _for_shapes(_SHAPES.get(func, func), args, kwargs)
        return mapped(self._results[key], _another)


def _grouped_mm(x: Tensor, weight: Tensor, offs: Tensor | None = None, *_: Any, **__: Any) -> Tensor:
    """`[rows, k]` or `[groups, rows, k]` times `[k, n]` or `[groups, k, n]`. The kernel takes bfloat16 alone."""
    groups = x.shape[:-2] if weight.dim() == 3 else () if x.dim() == 3 or offs is None else offs.shape
    return x.new_empty(*groups, x.shape[-2], weight.shape[-1])


_SHAPES: dict[Any, Callable[..., Tensor]] = {torch.ops.aten._grouped_mm.default: _grouped_mm}


def _form(value: Any) -> Any:
    """What the form of a result can depend on, hashable."""
    if isinstance(value, Tensor):
        return Tensor, value.shape, value.stride(), value.dtype
    if isinstance(value, (list, tuple)):
        return tuple(_form(item) for item in value)
    return type(value), value


def _another(result: Tensor) -> Tensor:
    return torch.empty_strided(result.shape, result.stride(), dtype=result.dtype, device=_META)


def _computed(func: Any, args: tuple, kwargs: dict) -> Any:
    """The program may have chosen integers for a kernel that the CPU has for floating point alone (`histc`)."""
    try:
        return func(*args, **kwargs)
    except NotImplementedError:
        return func(*mapped(args, _float), **mapped(kwargs, _float))


def _float(tensor: Tensor) -> Tensor:
    return tensor.double() if tensor.dtype in _INTEGERS else tensor


def _noted(tensor: Tensor, lacking: list[Tensor]) -> Tensor:
    if is_absent(tensor):
        lacking.append(tensor)
    return tensor


def _for_shapes(func: Any, args: tuple, kwargs: dict) -> Any:
    """A number in a tensor moves only where it must: that it is one decides the type of results, and is lost then."""
    try:
        return func(*mapped(args, _moved), **mapped(kwargs, _moved))
    except RuntimeError:
        return func(*mapped(args, _all_moved), **mapped(kwargs, _all_moved))


def _moved(tensor: Tensor) -> Tensor:
    return tensor.to(_META) if tensor.dim() else tensor


def _all_moved(tensor: Tensor) -> Tensor:
    return tensor.to(_META)


def _is_meta(device: Any) -> bool:
    return device is not None and torch.device(device).type == "meta"


def _on_cpu(kwargs: dict) -> dict:
    return {"device": _CPU} if kwargs.get("device") is not None else {}


def _has_integers(result: Any) -> bool:
    if isinstance(result, (list, tuple)):
        return any(_has_integers(item) for item in result)
    return isinstance(result, Tensor) and result.dtype in _INTEGERS
