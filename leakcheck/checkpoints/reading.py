"""A reading: one stage of one path in one layer, with the tensor seen there and a way to run the stage again."""

import ast
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from types import CodeType
from typing import Any, Protocol

import torch

from leakcheck.checkpoints.axes import Axes, tensors_in
from leakcheck.checkpoints.recorder import Call, Recording, Visit

STANDARD = "standard"
RECOMPUTE = "recompute"
Spot = tuple[int, str, int | None]  # stage, path, layer: what one checkpoint of a report stands for


@dataclass(frozen=True)
class Stage:
    """What a plan looks for. `number` orders the stages; a later stage of the same call counts as the inner one."""

    number: int
    phase: str
    title: str


@dataclass(frozen=True, eq=False)
class Reading:
    """What one forward showed at a stage.

    `code` and `node` are where it stands in the source. `tensors` were seen there; a control-flow stage has none and
    only counts its `runs`. `run` runs the stage again on other `inputs`, `pick` takes the tensors out of what it
    returns; readings of one call share its `run`. `call` is the call whose arguments the stage passes.
    """

    stage: Stage
    path: str
    layer: int | None
    module: str
    code: CodeType
    node: ast.stmt | None
    runs: int = 1
    call: Call | None = None
    tensors: tuple[torch.Tensor, ...] = ()
    inputs: Any = None
    run: Callable[[Any], Any] | None = None
    pick: Callable[[Any], Iterable[torch.Tensor]] = tuple
    span: tuple[int, int] = (0, 0)
    replayed_layer: int | None = None
    note: str = ""

    @property
    def key(self) -> tuple[int, str, int | None, int | None, str]:
        return self.stage.number, self.path, self.layer, self.replayed_layer, self.module

    @property
    def spot(self) -> Spot:
        return self.stage.number, self.path, self.layer

    def replay(self, inputs: Any) -> tuple[torch.Tensor, ...]:
        """The tensors that the stage gives on other inputs."""
        assert self.run is not None
        return tuple(self.pick(self.run(inputs)))

    def encloses(self, other: "Reading") -> bool:
        """Whether `other` happens inside this stage; of two readings of one call the later stage is inside."""
        if self.span == other.span:
            return (self.stage.number, self.path == STANDARD) < (other.stage.number, other.path == STANDARD)
        return self.span[0] <= other.span[0] and other.span[1] <= self.span[1]


class Plan(Protocol):
    """Where to look in one kind of model."""

    name: str
    stages: tuple[Stage, ...]
    paths: tuple[str, ...]
    root: CodeType  # of the outermost forward that is watched

    def watch(self) -> Mapping[str, Any]:
        """Keyword arguments for `recorder.record`."""

    def readings(self, recording: Recording, axes: Axes) -> list[Reading]:
        """The readings of one recorded forward, in the order in which they happened."""


def hidden_tensors(value: Any, axes: Axes) -> tuple[torch.Tensor, ...]:
    """The tensors in `value` with one sequence axis: hidden states, queries, keys, values."""
    return tuple(t for t in tensors_in(value) if axes.rows(t) is not None and not axes.pairwise(t))


def pairwise_tensors(value: Any, axes: Axes) -> tuple[torch.Tensor, ...]:
    """The tensors in `value` with two sequence axes: attention weights and masks."""
    return tuple(t for t in tensors_in(value) if axes.rows(t) is not None and axes.pairwise(t))


def of_call(call: Call, pick: Callable[[Any, Axes], tuple[torch.Tensor, ...]], axes: Axes, **place: Any) -> Reading:
    """A reading of what `call` returned."""
    return Reading(
        call=call,
        tensors=pick(call.result, axes),
        inputs=call.arguments,
        run=call.run,
        pick=lambda result: pick(result, axes),
        span=call.span,
        **place,
    )


def of_arguments(
    call: Call, pick: Callable[[Any, Axes], tuple[torch.Tensor, ...]], axes: Axes, **place: Any
) -> Reading:
    """A reading of what is handed to `call`."""
    return Reading(
        call=call,
        tensors=pick(call.arguments, axes),
        inputs=call.arguments,
        run=lambda arguments: arguments,
        pick=lambda result: pick(result, axes),
        span=call.span,
        **place,
    )


def of_statement(visit: Visit, statement: ast.stmt, output: ast.expr, axes: Axes, **place: Any) -> Reading:
    """A reading of the expression `output` after `statement` ran.

    It is run again by executing its own source on the locals that it saw.
    """
    loaded = {n.id for n in ast.walk(statement) if isinstance(n, ast.Name)} & visit.before.keys()
    filename = visit.call.code.co_filename
    body = compile(ast.Module([statement], []), filename, "exec")
    value = compile(ast.fix_missing_locations(ast.Expression(output)), filename, "eval")
    scope = visit.call.function.__globals__

    def either(result: Any) -> tuple[torch.Tensor, ...]:
        return hidden_tensors(result, axes) + pairwise_tensors(result, axes)

    def run(inputs: dict[str, Any]) -> Any:
        names = {**visit.before, **inputs}
        exec(body, scope, names)
        return eval(value, scope, names)

    return Reading(
        tensors=either(eval(value, scope, dict(visit.after))),
        inputs={name: visit.before[name] for name in sorted(loaded)},
        run=run,
        pick=either,
        span=visit.span,
        **place,
    )
