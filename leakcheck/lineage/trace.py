"""Trace one configuration: what each stage passes, where the mask was made, where it acted, how deep."""

import ast
from dataclasses import dataclass, field
from types import CodeType
from typing import Any

import torch
from torch import nn

from leakcheck.checkpoints import source
from leakcheck.checkpoints.axes import Axes
from leakcheck.checkpoints.method1_v3 import Method1Plan
from leakcheck.checkpoints.reading import STANDARD, Plan, Reading, Spot, Stage
from leakcheck.checkpoints.recorder import Call, Recording, record
from leakcheck.config import Configuration
from leakcheck.findings import Fidelity, Location
from leakcheck.lineage.fidelity import fidelity
from leakcheck.lineage.masks import Op, OpLog, describe
from leakcheck.subjects import running


@dataclass
class Passed:
    """What the lineage of one stage, path and layer showed.

    `inside` is the function that the stage calls, or the stage's own lines where it is no call; `chain` are the call
    sites that lead there.
    """

    stage: Stage
    module: str
    code: CodeType
    location: Location
    inside: Location
    chain: tuple[str, ...]
    runs: int = 0
    passes: tuple[str, ...] = ()
    library: Location | None = None
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Origin:
    """Where the mask in use was made: the innermost function that returned it, and the calls down to it."""

    mask: str
    is_none: bool
    location: Location
    chain: tuple[str, ...]


@dataclass(frozen=True)
class Application:
    """One op in which the mask acted, in the function of `code`."""

    code: CodeType | None
    location: Location | None
    mask: str


@dataclass(frozen=True)
class Lineage:
    """The lineage of one configuration. `origins` has one entry for each call that made a mask."""

    stages: dict[Spot, Passed]
    origins: tuple[Origin, ...]
    standard_applications: tuple[Application, ...]
    recompute_applications: tuple[Application, ...]
    foreign_masks: tuple[str, ...]
    length_checks: int
    call_depth: dict[str, int]
    fidelity: Fidelity | None


def trace(model: nn.Module, plan: Plan, configuration: Configuration, token_ids: torch.Tensor) -> Lineage:
    """Run `token_ids` `[batch, seq]` once under `configuration` and read off the lineage. Cost: one forward.

    Nothing of the forward is kept: neither tensors nor frames.
    """
    log = OpLog()
    with running.configured(model, configuration), torch.no_grad(), log:
        _, recording = record(lambda: running.forward(model, token_ids, configuration), **plan.watch())
    readings = plan.readings(recording, Axes(*token_ids.shape))
    if not isinstance(plan, Method1Plan):
        return Lineage(_stages(readings, set()), (), (), (), (), 0, {}, None)

    made = recording.of(plan.update_mask)
    masks = [call.result for call in made if isinstance(call.result, torch.Tensor)]
    family = log.family(masks)
    stages = _stages(readings, family)
    origins = tuple(_origin(recording, call, log) for call in made)
    applications = tuple(Application(op.code, op.location, describe(mask)) for op, mask in log.applications(family))
    kernels = _kernels(plan, recording)
    acting = [a for a in applications if a.code in kernels]
    for key, passed in stages.items():
        if key[0] == 2 and origins:
            passed.library = origins[-1].location
        if key[0] == 8:
            passed.library = acting[0].location if acting else passed.inside
            if not acting:
                passed.notes.append("no mask acts here")
    return Lineage(
        stages=stages,
        origins=origins,
        standard_applications=tuple(acting),
        recompute_applications=tuple(a for a in applications if a.code is plan.precomputed),
        foreign_masks=_foreign(readings, family),
        length_checks=_length_checks(plan, recording),
        call_depth=_call_depth(readings),
        fidelity=fidelity(readings, plan, running.valid_positions(configuration, token_ids.shape[1])),
    )


def _stages(readings: list[Reading], family: set[int]) -> dict[Spot, Passed]:
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
                chain=_chain(reading.call, family),
                passes=_passes(reading, family),
            )
        passed.runs += reading.runs
        if reading.note and reading.note not in passed.notes:
            passed.notes.append(reading.note)
    return stages


def _passes(reading: Reading, family: set[int]) -> tuple[str, ...]:
    """What the stage hands on that is the mask; a statement hands on the names that it reads."""
    call = reading.call
    if call is not None:
        if reading.stage.number == 2 and isinstance(call.result, torch.Tensor) and id(call.result) in family:
            return ("returns the mask",)
        return _handed_on(call, family)
    inputs = reading.inputs or {}
    return tuple(name for name, value in inputs.items() if isinstance(value, torch.Tensor) and id(value) in family)


def _handed_on(call: Call, family: set[int]) -> tuple[str, ...]:
    """The arguments of a call that are the mask, by identity or derivation; `=None` where there is none.

    A `None` has no identity: it is listed for a parameter that is called a mask.
    """
    passes = []
    expressions = _expressions(call)
    for name, value in call.arguments.items():
        if isinstance(value, torch.Tensor) and id(value) in family:
            passes.append(f"{name}={expressions[name]}" if name in expressions else name)
        elif value is None and "mask" in name:
            passes.append(f"{name}=None")
        elif not family and isinstance(value, torch.Tensor) and "mask" in name:
            passes.append(name)
    return tuple(passes)


def _chain(call: Call | None, family: set[int]) -> tuple[str, ...]:
    """The call sites from the outermost watched function down to `call`, each with what it hands on."""
    steps: list[str] = []
    while call is not None and call.parent is not None:
        site = source.locate(call.parent.code, source.statement_at(call.parent.code, call.position))
        said = ", ".join(_handed_on(call, family)) or site.operation
        steps.insert(0, f"{site.file}:{site.lines[0]} in {site.function}: {said}")
        call = call.parent
    return tuple(steps)


def _expressions(call: Call) -> dict[str, str]:
    """Keyword arguments as they stand in the calling source."""
    if call.parent is None or call.position is None:
        return {}
    node = source.call_at(call.parent.code, call.position)
    return {k.arg: ast.unparse(k.value) for k in node.keywords if k.arg} if node else {}


def _origin(recording: Recording, made: Call, log: OpLog) -> Origin:
    """Follow the returned object down: the last call inside that returned the very same object made it.

    `None` is the same object everywhere, so there the walk also ends at a `return None` that is written out.
    """
    result, call, chain = made.result, made, [_step(made)]
    while True:
        inside = [c for c in recording.calls if c.parent is call]
        if result is None:
            inside = [] if _returns_none(call) else inside[-1:]
        same = [c for c in inside if c.result is result]
        if not same:
            break
        call = same[-1]
        chain.append(_step(call))
    producer: Op | None = log.producer(result) if isinstance(result, torch.Tensor) else None
    location = producer.location if producer and producer.code is call.code else None
    return Origin(
        mask=describe(result),
        is_none=result is None,
        location=location or _return_of(call),
        chain=tuple(chain),
    )


def _step(call: Call) -> str:
    location = _return_of(call)
    return f"{location.file}:{location.lines[0]} in {location.function}: {location.operation}"


def _return_of(call: Call) -> Location:
    line = call.return_line or call.code.co_firstlineno
    statement = source.statement_at(call.code, (line, line, 10**6, 0))
    return source.locate(call.code, statement, lines=None if statement else (line, line))


def _returns_none(call: Call) -> bool:
    tree = source.syntax_of(call.code)
    for node in ast.walk(tree) if tree else ():
        if isinstance(node, ast.Return) and node.lineno == call.return_line:
            return isinstance(node.value, ast.Constant)
    return False


def _kernels(plan: Method1Plan, recording: Recording) -> set[CodeType]:
    """The functions in which the parent class applies its mask: itself, or the kernels that it calls."""
    called = {c.code for c in recording.calls if c.parent is not None and c.parent.code is plan.parent_forward}
    return called | {plan.parent_forward}


def _foreign(readings: list[Reading], family: set[int]) -> tuple[str, ...]:
    """Mask arguments that are not from the generation call, in words."""
    foreign = []
    for reading in readings:
        if reading.call is None or reading.stage.number < 5:
            continue
        for name, value in reading.call.arguments.items():
            if "attention_mask" in name and isinstance(value, torch.Tensor) and id(value) not in family:
                place = source.locate(reading.code, reading.node)
                foreign.append(f"{name} at {place.file}:{place.lines[0]}")
    return tuple(dict.fromkeys(foreign))


def _length_checks(plan: Method1Plan, recording: Recording) -> int:
    """How often the length check before the re-mask was evaluated."""
    node: Any = plan.nodes.length_check
    if node is None:
        return 0
    visits = recording.visits.get(plan.precomputed, ())
    return sum(visit.lines == (node.lineno, node.end_lineno) for visit in visits)


def _call_depth(readings: list[Reading]) -> dict[str, int]:
    depth: dict[str, int] = {}
    for reading in readings:
        call, number = reading.call, reading.stage.number
        if call is None or number < 5:
            continue
        if (reading.path == STANDARD) != (number <= 8):  # the weights that 5 to 8 return are no call of the replay
            continue
        length = 0
        while call is not None:
            length, call = length + 1, call.parent
        depth[reading.path] = max(depth.get(reading.path, 0), length)
    return depth
