"""Holds the labels of a small function against what moves when its inputs are changed, in float64.

The expectation never looks at a label: every input element with a label is changed several times, and whichever output
element moves beyond rounding depends on it.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from leakcheck.flow.context import tensors_of
from leakcheck.flow.engine import Flow
from leakcheck.flow.labels import GENERIC, HOLE, Labels
from leakcheck.flow.reports import Reports
from leakcheck.flow.storage import Mirror

NOTHING = -1  # the horizon of what no labelled element moves


@dataclass(frozen=True)
class Given:
    """One argument: its value, a label for each element (`NOTHING` for a weight), and another valid value."""

    value: Tensor
    labels: Tensor
    redraw: Callable[[], Tensor]
    grows: bool = False  # whether a value thirty times as large is valid too


def tokens(*shape: int, along: int | None = None, start: int = 0, draw: Callable[..., Tensor] | None = None) -> Given:
    """Labelled values: by position along a dimension, or every element for itself, in an order that is no order."""
    grows = draw is None
    draw = draw or (lambda *s: torch.randn(*s, dtype=torch.float64))
    size = torch.Size(shape).numel()
    if along is None:
        labels = (torch.arange(size) * 7919 % max(size, 1)).reshape(shape)
        assert size == len(labels.unique())
    else:
        positions = torch.arange(shape[along]).reshape(
            [-1 if d == along % len(shape) else 1 for d in range(len(shape))]
        )
        labels = positions.expand(shape)
    return Given(draw(*shape), labels + start, lambda: draw(*shape), grows)


def labelled(value: Tensor, labels: Tensor, redraw: Callable[[], Tensor] | None = None) -> Given:
    return Given(value, labels.expand(value.shape), redraw or (lambda: torch.randn_like(value)))


def weight(*shape: int) -> Given:
    """A parameter: its value is not assumed."""
    value = torch.randn(*shape, dtype=torch.float64)
    return Given(value, torch.full(shape, NOTHING), lambda: value)


@dataclass(frozen=True)
class Traced:
    result: Any
    labels: list[Tensor]
    reports: Reports


def traced(function: Callable[..., Any], *args: Any, strict: bool = True) -> Traced:
    """The function's result and its labels; `Given` arguments are labelled, others are known."""
    mirror, reports = Mirror(), Reports()
    flow = Flow(mirror, reports)
    flow.strict = strict
    values = []
    for arg in args:
        value = arg
        if isinstance(arg, Given):
            value = arg.value.clone()
            uniform = bool((arg.labels == NOTHING).all())
            labels = Labels.full(value.shape, GENERIC) if uniform else Labels(arg.labels.to(torch.int16).contiguous())
            mirror.seed(value, labels)
        elif isinstance(arg, Tensor):
            value = arg.clone()
        values.append(value)
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        with flow:
            result = function(*values)
        labels = [mirror.read(t).settled().hardened().plane.long() for t in tensors_of(result)]
    mirror.close()
    return Traced(result, labels, reports)


def moved(function: Callable[..., Any], *args: Any, draws: int = 4) -> list[Tensor]:
    """Of each element of each output the highest label that moves it."""

    def run(values: Sequence[Any]) -> list[Tensor]:
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)  # what an op draws by itself is no effect of its inputs
            return list(tensors_of(function(*[v.clone() if isinstance(v, Tensor) else v for v in values])))

    base = [a.value if isinstance(a, Given) else a for a in args]
    truth = [torch.full(t.shape, NOTHING) for t in run(base)]
    every = sorted({int(n) for a in args if isinstance(a, Given) for n in a.labels.unique() if n >= 0})
    for draw in range(draws):
        if draw:
            base = [_kept_weights(a) if isinstance(a, Given) else a for a in args]
        before = run(base)
        for label in every:
            changed = [
                _changed(a, b, label, draw) if isinstance(a, Given) else b for a, b in zip(args, base, strict=True)
            ]
            for k, (old, new) in enumerate(zip(before, run(changed), strict=True)):
                truth[k] = torch.where(_differs(old, new), truth[k].clamp(min=label), truth[k])
    return truth


def _changed(given: Given, base: Tensor, label: int, draw: int) -> Tensor:
    """Another value; in turn a very high and a very low one, since a maximum moves only if it is passed."""
    other = given.redraw()
    if given.grows and draw:
        other = other.abs() * (100 if draw % 2 else -100)
    return torch.where(given.labels == label, other, base)


def _kept_weights(given: Given) -> Tensor:
    return torch.where(given.labels == NOTHING, given.value, given.redraw())


def _differs(a: Tensor, b: Tensor) -> Tensor:
    if a.is_quantized:
        a, b = a.dequantize(), b.dequantize()
    if not (a.is_floating_point() or a.is_complex()):
        return a != b
    size = max(1.0, a.abs().max().item(), b.abs().max().item()) if a.numel() else 1.0
    tolerance = size * (1e-9 if a.dtype in (torch.float64, torch.complex128) else 1e-5)
    return (a - b).abs() > tolerance


def check(function: Callable[..., Any], *args: Any, exact: bool = True, draws: int = 4, strict: bool = True) -> Traced:
    """Assert that labels claim no less than what moves and, if `exact`, no more."""
    seen = traced(function, *args, strict=strict)
    truth = moved(function, *args, draws=draws)
    assert not seen.reports.holes, list(seen.reports.holes)
    for number, (label, horizon) in enumerate(zip(seen.labels, truth, strict=True)):
        assert label.shape == horizon.shape
        label = label.clamp(min=NOTHING)
        unsound = label < horizon
        assert not bool(unsound.any()), f"output {number} claims too little: {label} where {horizon} moves"
        assert not bool((label >= HOLE).any())
        if exact:
            coarse = label > horizon
            assert not bool(coarse.any()), f"output {number} claims too much: {label} where {horizon} moves"
    return seen
