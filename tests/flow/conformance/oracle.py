"""Brute force: which inputs move which elements of an op's outputs. Shares no code with `leakcheck.flow`.

Every input element has an integer label. All elements of one label are changed together, in several ways and from
several bases; an output element's horizon is the largest label that moved it. An element that nothing moves is `FIXED`.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

FIXED, GENERIC = -2, -1  # never changed; changed, and the base drawn anew, but below every label
LOW = -1e20  # a value at or below absorbs any score

Draw = Callable[[torch.Generator, Sequence[int]], Tensor]
Function = Callable[[Sequence[Tensor]], Sequence[Tensor]]


@dataclass(frozen=True)
class Input:
    """One tensor argument: its values, an integer label for each element, and where other valid values come from.

    Elements that are equal along the dimension `tied` stay equal (an expanded view will show them).
    """

    value: Tensor
    labels: Tensor
    draw: Draw
    tied: int | None = None

    def changed(self, at: Tensor, new: Tensor) -> Tensor:
        value = torch.where(at, new.to(self.value.dtype), self.value)
        return tie(value, self.tied)

    def with_base(self, generator: torch.Generator) -> "Input":
        at = self.labels >= GENERIC
        if not bool(at.any()):
            return self
        return Input(self.changed(at, self.draw(generator, self.value.shape)), self.labels, self.draw, self.tied)


@dataclass(frozen=True)
class Truth:
    """What was seen of one output: of each element its horizon, and whether it was zero or below `LOW` on each base."""

    horizon: Tensor
    zero: Tensor
    low: Tensor


def tie(value: Tensor, dim: int | None) -> Tensor:
    if dim is None or not value.shape[dim]:
        return value
    return value.narrow(dim, 0, 1).expand(value.shape).contiguous()


def horizons(
    function: Function, inputs: Sequence[Input], *, seed: int = 0, bases: int = 3, until: Sequence[Tensor] | None = None
) -> list[Truth]:
    """The truth of each output of `function(tensors)`, which must leave its arguments as they are.

    An output whose shape an input moves is moved in all its elements. With `until` the search goes on to as many bases
    only for elements that are below their label there.
    """
    generator = torch.Generator().manual_seed(seed)
    first = _run(function, [each.value for each in inputs])
    horizon = [torch.full(t.shape, FIXED, dtype=torch.int64) for t in first]
    zero = [_is_zero(t) for t in first]
    low = [_is_low(t) for t in first]
    labels = sorted({int(n) for each in inputs for n in each.labels.unique() if n >= GENERIC}, reverse=True)

    enough = [labels[0] if labels else FIXED] * len(first) if until is None else until
    for number in range(bases):
        if until is not None and all(bool((h >= u).all()) for h, u in zip(horizon, until, strict=True)):
            break
        based = list(inputs) if number == 0 else [each.with_base(generator) for each in inputs]
        base = first if number == 0 else _tried(function, [each.value for each in based], number)
        if base is None or any(b.shape != f.shape for b, f in zip(base, first, strict=True)):
            continue
        for zeros, lows, value in zip(zero, low, base, strict=True):
            zeros &= _is_zero(value)
            lows &= _is_low(value)
        for label in labels:
            if all(bool(((h >= label) | (h >= e)).all()) for h, e in zip(horizon, enough, strict=True)):
                break  # lower labels move nothing more
            for changed in _changes(based, label, generator):
                result = _tried(function, changed, number)
                if result is None:
                    continue
                for k, (before, after) in enumerate(zip(base, result, strict=True)):
                    if before.shape != after.shape:
                        horizon[k].clamp_(min=label)
                        continue
                    horizon[k][_differs(before, after) & (horizon[k] < label)] = label
    return [Truth(h, z, b) for h, z, b in zip(horizon, zero, low, strict=True)]


def _changes(inputs: Sequence[Input], label: int, generator: torch.Generator) -> Iterator[list[Tensor]]:
    """The inputs with all elements of the label changed: drawn anew, kicked up and down, booleans flipped."""
    at = [each.labels == label for each in inputs]

    def apply(change: Callable[[Input], Tensor]) -> list[Tensor]:
        return [
            each.changed(where, change(each)) if bool(where.any()) else each.value
            for each, where in zip(inputs, at, strict=True)
        ]

    def kick(each: Input, size: float) -> Tensor:
        if each.value.dtype == torch.bool:
            return ~each.value
        if not (each.value.is_floating_point() or each.value.is_complex()):
            return each.draw(generator, each.value.shape)
        return each.value + size * (0.5 + torch.rand(each.value.shape, generator=generator, dtype=torch.float64))

    yield apply(lambda each: each.draw(generator, each.value.shape))
    for size in (1e3, -1e3, 0.5):
        yield apply(lambda each, size=size: kick(each, size))  # type: ignore[misc]


def _run(function: Function, values: Sequence[Tensor], seed: int = 0) -> list[Tensor]:
    torch.default_generator.manual_seed(seed)  # what an op draws by itself is no effect of its inputs
    return list(function(values))


def _tried(function: Function, values: Sequence[Tensor], seed: int) -> list[Tensor] | None:
    """`None` where the op does not take these values."""
    try:
        return _run(function, values, seed)
    except (RuntimeError, IndexError, ValueError):
        return None


def _differs(a: Tensor, b: Tensor) -> Tensor:
    return (a != b) & ~((a != a) & (b != b))


def _is_zero(value: Tensor) -> Tensor:
    return value == 0


def _is_low(value: Tensor) -> Tensor:
    return value <= LOW if value.is_floating_point() else torch.zeros(value.shape, dtype=torch.bool)
