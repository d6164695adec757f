"""What calls hand on that is a mask, where a mask was made, and the calls that lead there."""

import ast
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from types import CodeType
from typing import Any

import torch

from leakcheck.checkpoints import source
from leakcheck.checkpoints.reading import Reading, Spot, Stage
from leakcheck.checkpoints.recorder import Call, Recording
from leakcheck.findings import Location, Step
from leakcheck.lineage.masks import Op, OpLog, describe


@dataclass
class Passed:
    """What the lineage of one stage, path and layer showed.

    `inside` is the function that the stage calls, or the stage's own lines where it is no call; `chain` are the call
    sites that lead there. `identity` and `order` are for a plan whose stages have no numbers of their own: what makes a
    stage the same under another configuration, and where it comes.
    """

    stage: Stage
    module: str
    code: CodeType
    location: Location
    inside: Location
    chain: tuple[Step, ...] = ()
    runs: int = 0
    passes: tuple[str, ...] = ()
    library: Location | None = None
    notes: list[str] = field(default_factory=list)
    identity: tuple = ()
    order: tuple[int, ...] = ()


@dataclass(frozen=True)
class Origin:
    """Where a mask in use was made, in the function that returned it or by the op that made it; the calls down to it.

    `acts` says whether it, or what was derived from it, met data.
    """

    mask: str
    is_none: bool
    location: Location
    chain: tuple[Step, ...]
    acts: bool = False


@dataclass(frozen=True)
class Application:
    """One op in which the mask acted, in the function of `code`."""

    code: CodeType | None
    location: Location | None
    mask: str


def of_readings(readings: list[Reading], masks: Collection[int]) -> dict[Spot, Passed]:
    """What each stage of a plan hands on; `masks` are identities."""
    stages: dict[Spot, Passed] = {}
    for reading in readings:
        key = reading.spot
        passed = stages.get(key)
        if passed is None:
            location = source.locate(reading.code, reading.node)
            called = reading.call is not None and reading.call.code is not reading.code
            passed = stages[key] = Passed(
                stage=reading.stage,
                module=reading.module,
                code=reading.code,
                location=location,
                inside=source.locate(reading.call.code) if reading.call and called else location,
                chain=chain(reading.call, masks),
                passes=_passes(reading, masks),
            )
        passed.runs += reading.runs
        if reading.note and reading.note not in passed.notes:
            passed.notes.append(reading.note)
    return stages


def _passes(reading: Reading, masks: Collection[int]) -> tuple[str, ...]:
    """What the stage hands on that is the mask; a statement hands on the names that it reads."""
    if reading.call is not None:
        return handed_on(reading.call, masks)
    inputs = reading.inputs or {}
    return tuple(name for name, value in inputs.items() if isinstance(value, torch.Tensor) and id(value) in masks)


def handed_on(call: Call, masks: Collection[int]) -> tuple[str, ...]:
    """The arguments of a call that are a mask, by identity or derivation; `=None` where there is none.

    A `None` has no identity: it is listed for a parameter that is called a mask.
    """
    passes = []
    expressions = expressions_of(call)
    for name, value in _arguments(call):
        if any(id(tensor) in masks for tensor in _tensors(value)):
            passes.append(f"{name}={ast.unparse(expressions[name])}" if name in expressions else name)
        elif value is None and "mask" in name:
            passes.append(f"{name}=None")
    return tuple(passes)


def _arguments(call: Call) -> Iterator[tuple[str, Any]]:
    """By name, also what `**kwargs` collected."""
    code = call.code
    rest = code.co_varnames[code.co_argcount + code.co_kwonlyargcount + bool(code.co_flags & 0x04) :][:1]
    for name, value in call.arguments.items():
        if code.co_flags & 0x08 and (name,) == rest and isinstance(value, Mapping):
            yield from ((str(key), entry) for key, entry in value.items())
        else:
            yield name, value


def _tensors(value: Any) -> list[torch.Tensor]:
    """A tensor, or those of a container of tensors: some models keep a mask for each kind of layer."""
    if isinstance(value, torch.Tensor):
        return [value]
    entries = value.values() if isinstance(value, Mapping) else value if isinstance(value, list | tuple) else ()
    return [entry for entry in entries if isinstance(entry, torch.Tensor)]


def returned(call: Call, masks: Collection[int]) -> bool:
    """Whether a call returned a mask that it was not given."""
    given = {id(tensor) for _, value in _arguments(call) for tensor in _tensors(value)}
    return any(id(tensor) in masks and id(tensor) not in given for tensor in _tensors(call.result))


def expressions_of(call: Call) -> dict[str, ast.expr]:
    """Keyword arguments as they stand in the calling source."""
    if call.parent is None or call.position is None:
        return {}
    node = source.call_at(call.parent.code, call.position)
    return {k.arg: k.value for k in node.keywords if k.arg} if node else {}


def site_of(call: Call) -> tuple[CodeType, ast.stmt | None]:
    """The function that calls, and the statement in it."""
    if call.parent is None:
        return call.code, None
    return call.parent.code, source.statement_at(call.parent.code, call.position)


def chain(call: Call | None, masks: Collection[int]) -> tuple[Step, ...]:
    """The call sites from the outermost watched function down to `call`, each with what it hands on."""
    steps: list[Step] = []
    while call is not None and call.parent is not None:
        site = source.locate(*site_of(call))
        said = ", ".join(handed_on(call, masks)) or site.operation
        steps.insert(0, _step(site, said))
        call = call.parent
    return tuple(steps)


def descent(recording: Recording, made: Call) -> list[Call]:
    """From a call that returned a mask to the innermost that returned the very same object.

    `None` is the same object everywhere, so there the way also ends at a `return None` that is written out.
    """
    calls = [made]
    while True:
        inside = [c for c in recording.calls if c.parent is calls[-1]]
        if made.result is None:
            inside = [] if _returns_none(calls[-1]) else inside[-1:]
        same = [c for c in inside if c.result is made.result]
        if not same:
            return calls
        calls.append(same[-1])


def origin(recording: Recording, made: Call, log: OpLog, *, acts: bool = False) -> Origin:
    """Where the mask, or the `None`, that a call returned was made."""
    result, calls = made.result, descent(recording, made)
    producer: Op | None = log.producer(result) if isinstance(result, torch.Tensor) else None
    location = producer.location if producer and producer.code is calls[-1].code else None
    return Origin(
        mask=describe(result),
        is_none=result is None,
        location=location or return_of(calls[-1]),
        chain=tuple(_step(here, here.operation) for here in map(return_of, calls)),
        acts=acts,
    )


def _step(location: Location, said: str) -> Step:
    return Step(said, location.function, source.excerpt(location.file, location.lines[0]))


def return_of(call: Call) -> Location:
    """The lines with which a call returned."""
    line = call.return_line or call.code.co_firstlineno
    statement = return_statement(call)
    return source.locate(call.code, statement, lines=None if statement else (line, line))


def return_statement(call: Call) -> ast.stmt | None:
    line = call.return_line or call.code.co_firstlineno
    return source.statement_at(call.code, (line, line, 10**6, 0))


def _returns_none(call: Call) -> bool:
    tree = source.syntax_of(call.code)
    for node in ast.walk(tree) if tree else ():
        if isinstance(node, ast.Return) and node.lineno == call.return_line:
            return isinstance(node.value, ast.Constant)
    return False
