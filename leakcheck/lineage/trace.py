"""Trace one configuration: what each stage passes, where the mask was made, where it acted, how deep."""

from dataclasses import dataclass, field
from types import CodeType
from typing import Any

import torch
from torch import nn

from leakcheck.checkpoints import source
from leakcheck.checkpoints.axes import Axes
from leakcheck.checkpoints.method1_v3 import Method1Plan
from leakcheck.checkpoints.modules import ModulesPlan
from leakcheck.checkpoints.reading import STANDARD, Plan, Reading, Spot
from leakcheck.checkpoints.recorder import Recording, record
from leakcheck.config import Configuration
from leakcheck.findings import Fidelity
from leakcheck.lineage import passing
from leakcheck.lineage.discovery import MODULES, Discovery
from leakcheck.lineage.family import Masks
from leakcheck.lineage.fidelity import fidelity
from leakcheck.lineage.masks import OpLog, describe
from leakcheck.lineage.passing import Application, Origin, Passed
from leakcheck.subjects import running


@dataclass(frozen=True)
class Lineage:
    """The lineage of one configuration. `origins` has one entry for each mask that was made, or `None` in its place.

    `stages` are those of the plan; for a plan without stages of its own for the mask, what was discovered too.
    """

    stages: dict[Spot, Passed]
    origins: tuple[Origin, ...]
    applications: tuple[Application, ...]
    standard_applications: tuple[Application, ...] = ()
    recompute_applications: tuple[Application, ...] = ()
    foreign_masks: tuple[str, ...] = ()
    length_checks: int = 0
    call_depth: dict[str, int] = field(default_factory=dict)
    fidelity: Fidelity | None = None


def trace(model: nn.Module, plan: Plan, configuration: Configuration, token_ids: torch.Tensor) -> Lineage:
    """Run `token_ids` `[batch, seq]` once under `configuration` and read off the lineage. Cost: one forward.

    Nothing of the forward is kept: neither tensors nor frames.
    """
    watch = plan.watch_everything() if isinstance(plan, ModulesPlan) else plan.watch()
    recording = Recording()
    log = OpLog(lambda: recording.clock)
    with running.configured(model, configuration), torch.no_grad(), log:
        record(lambda: running.forward(model, token_ids, configuration), **watch, into=recording)
    readings = plan.readings(recording, Axes(*token_ids.shape))
    masks = Masks(log.ops, tokens=token_ids, given=_given(recording, plan.root))
    if isinstance(plan, Method1Plan):
        valid = running.valid_positions(configuration, token_ids.shape[1])
        return _of_method1(plan, recording, readings, log, masks, valid)
    assert isinstance(plan, ModulesPlan)
    return _discovered(plan, recording, readings, log, masks)


def _given(recording: Recording, root: CodeType) -> list[torch.Tensor]:
    """What the caller gave to the model, whose forward is `root`."""
    handed = recording.of(root)[0].arguments.values() if recording.of(root) else ()
    return [value for value in handed if isinstance(value, torch.Tensor)]


def _discovered(plan: ModulesPlan, recording: Recording, readings: list[Reading], log: OpLog, masks: Masks) -> Lineage:
    stages = passing.of_readings(readings, masks.roots)
    for (number, _, _), passed in stages.items():
        passed.identity, passed.order = (number,), (MODULES, number, 0)
    found = Discovery(recording, log, masks, plan, stages)
    whole = stages.get((1, STANDARD, None))  # the model itself
    if whole is not None and found.summary:
        whole.notes.append(found.summary)
    return Lineage({**stages, **found.numbered(len(plan.stages) + 1)}, found.origins, found.acted)


def _of_method1(
    plan: Method1Plan, recording: Recording, readings: list[Reading], log: OpLog, masks: Masks, valid: torch.Tensor
) -> Lineage:
    made = recording.of(plan.update_mask)
    family = masks.family(call.result for call in made if isinstance(call.result, torch.Tensor))
    stages = passing.of_readings(readings, family | masks.given)
    origins = tuple(passing.origin(recording, call, log) for call in made)
    applications = tuple(Application(op.code, op.location, describe(mask)) for op, mask in masks.applications(family))
    kernels = _kernels(plan, recording)
    acting = tuple(a for a in applications if a.code in kernels)
    if family:
        for path in plan.paths:
            stages[2, path, None].passes = ("returns the mask",)
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
        applications=applications,
        standard_applications=acting,
        recompute_applications=tuple(a for a in applications if a.code is plan.precomputed),
        foreign_masks=_foreign(readings, family),
        length_checks=_length_checks(plan, recording),
        call_depth=_call_depth(readings),
        fidelity=fidelity(readings, plan, valid),
    )


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
