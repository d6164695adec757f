"""Measure one batch: how far past positions move end to end, by gradient, and locally, at every checkpoint."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import nn
from torch.utils import _pytree as pytree

from leakcheck.checkpoints.axes import Axes
from leakcheck.checkpoints.reading import Plan, Reading
from leakcheck.checkpoints.recorder import record
from leakcheck.config import Configuration
from leakcheck.errors import SubjectCrash
from leakcheck.findings import WorstCase
from leakcheck.probes.draws import BASE, PAST, TWIN, Batch, Plant
from leakcheck.probes.tap import tapped
from leakcheck.subjects import running
from leakcheck.subjects.subject import input_embedding

Within = Callable[[], AbstractContextManager]

_BLOCKING = 1e30  # masks block with values beyond this; they are no measure of the size of activations
_TINY = 1e-30  # stands for the size of a channel that is zero throughout


@dataclass(frozen=True)
class Deltas:
    """Numbers of one tensor under one batch.

    `output` is the largest move of a past position, `allowed` the largest move of a position that may see the change,
    `gradient` the largest gradient of a random combination of past activations with respect to a future embedding,
    `local` the largest move of a past position when only the future rows of the stage's own input change.
    """

    output: float = 0.0
    allowed: float = 0.0
    relative: float = 0.0  # the largest move of a past position in units of its channel's largest value
    gradient: float = 0.0
    gradient_scale: float = 0.0  # the largest gradient with respect to any embedding
    local: float | None = None
    local_relative: float = 0.0  # as `relative`, of the local move
    padded: int = 0  # padded positions that moved
    worst: WorstCase | None = None
    by_position: torch.Tensor | None = field(
        default=None, compare=False
    )  # [seq]: `relative` at each; `None` where nothing moved

    def join(self, other: "Deltas") -> "Deltas":
        """The worse of two measurements of the same tensor."""
        local = [value for value in (self.local, other.local) if value is not None]
        return Deltas(
            output=max(self.output, other.output),
            allowed=max(self.allowed, other.allowed),
            gradient=max(self.gradient, other.gradient),
            local=max(local, default=None),
            local_relative=max(self.local_relative, other.local_relative),
            relative=max(self.relative, other.relative),
            gradient_scale=max(self.gradient_scale, other.gradient_scale),
            padded=max(self.padded, other.padded),
            worst=self.worst if self.output >= other.output else other.worst,
            by_position=_larger(self.by_position, other.by_position),
        )


def _larger(a: torch.Tensor | None, b: torch.Tensor | None) -> torch.Tensor | None:
    return b if a is None else a if b is None else torch.maximum(a, b)


@dataclass(frozen=True, eq=False)
class Measurement:
    """One forward: the deltas of the logits and of each reading, and whether the past reaches the last position."""

    logits: Deltas
    readings: tuple[tuple[Reading, Deltas], ...]
    past_effect: float
    twin_delta: float
    size: float  # the largest logit
    by_rows: bool  # whether each row ran by itself
    base_logits: torch.Tensor  # [seq, vocab]
    embedded: bool = True  # whether the inputs have embeddings, which a gradient can be taken with respect to


def measure(
    model: nn.Module,
    plan: Plan | None,
    batch: Batch,
    configuration: Configuration,
    *,
    plant: Plant | None = None,
    each_gradient: bool = False,
    within: Within = nullcontext,
) -> Measurement:
    """Run `batch` once under `configuration` (which the model is already in) and measure everything.

    The subject's code runs inside `within()`, ours does not.

    One backward pass of all tensors together shows whether any has a gradient towards the future; only with
    `each_gradient` is it then told which. Until then every tensor is given the joint gradient.

    Cost: one forward, one backward, one run of each stage; with `each_gradient` one backward for each tensor.

    Raises:
        SubjectCrash: the forward raised, or a position that the change cannot excuse is not finite.
    """
    axes = batch.axes
    with torch.enable_grad(), tapped(input_embedding(model), batch.scale, plant=plant) as tap:

        def run() -> torch.Tensor:
            with within():
                return running.forward(model, batch.tokens, configuration)

        if plan is None:
            logits, readings = run(), []
        else:
            logits, recording = record(run, **plan.watch())
            readings = [r for r in plan.readings(recording, axes) if r.tensors]
    if logits.shape[:2] != batch.tokens.shape:
        raise SubjectCrash(
            f"logits have shape {list(logits.shape)}, expected [batch, seq, vocab] of {list(batch.tokens.shape)}"
        )
    _expect_finite(logits, batch, configuration)

    rows = [logits.flatten(2), *(_rows(reading.tensors, axes) for reading in readings)]
    gradients = _gradients(rows, batch, tap.leaves, each=each_gradient)
    moved = [
        replace(_moves(r, batch), gradient=future, gradient_scale=every)
        for r, (future, every) in zip(rows, gradients, strict=True)
    ]
    local = _locals(readings, batch, within)
    last = int(batch.valid.nonzero()[-1])
    return Measurement(
        logits=moved[0],
        readings=tuple(
            (reading, replace(deltas, local=moves[0] if moves else None, local_relative=moves[1] if moves else 0.0))
            for reading, deltas, moves in zip(readings, moved[1:], local, strict=True)
        ),
        past_effect=distance(logits[PAST, last], logits[BASE, last]).max().item(),
        twin_delta=distance(logits[TWIN], logits[BASE])[batch.valid].max().item(),
        size=logits[BASE].detach().abs().max().item(),
        by_rows=False,
        base_logits=logits[BASE].detach(),
        embedded=bool(tap.leaves),
    )


def measure_rows(
    model: nn.Module,
    batch: Batch,
    configuration: Configuration,
    *,
    plant: Plant | None = None,
    within: Within = nullcontext,
) -> Measurement:
    """The deltas of the logits alone, each row run by itself from the same random state.

    For a model whose rows depend on their batch: dropout draws another mask for each row, batch statistics mix rows.
    Cost: one forward for each row and one more, no gradient.

    Raises:
        SubjectCrash: as `measure`.
    """

    def run(row: int) -> torch.Tensor:
        torch.manual_seed(0)
        with torch.no_grad(), tapped(input_embedding(model), batch.scale[row, None], plant=plant), within():
            return running.forward(model, batch.tokens[row, None], configuration)[0]

    run(BASE)  # what is drawn at random once, and kept, is there from here on
    logits = torch.stack([run(row) for row in range(len(batch.tokens))])  # [batch, seq, vocab]
    _expect_finite(logits, batch, configuration)
    last = int(batch.valid.nonzero()[-1])
    return Measurement(
        logits=_moves(logits, batch),
        readings=(),
        past_effect=distance(logits[PAST, last], logits[BASE, last]).max().item(),
        twin_delta=distance(logits[TWIN], logits[BASE])[batch.valid].max().item(),
        size=logits[BASE].abs().max().item(),
        by_rows=True,
        base_logits=logits[BASE],
    )


def _expect_finite(logits: torch.Tensor, batch: Batch, configuration: Configuration) -> None:
    if not logits[BASE, batch.valid].isfinite().all():
        raise SubjectCrash(f"the forward returned NaN or infinity under {configuration.id}")


@torch.no_grad()
def measure_logits(
    model: nn.Module, batch: Batch, configuration: Configuration, *, within: Within = nullcontext
) -> Deltas:
    """How far past logits move, and no more. Cost: one forward."""
    with tapped(input_embedding(model), batch.scale), within():
        logits = running.forward(model, batch.tokens, configuration)
    return _moves(logits, batch)


def planted_local(readings: Sequence[Reading], batch: Batch, plant: Plant) -> float | None:
    """The local delta of a stage to whose output a leak is added; `None` when no stage returns hidden states."""
    axes = batch.axes
    for reading in reversed(readings):
        if reading.run is None or any(axes.pairwise(tensor) for tensor in reading.tensors):
            continue

        def planted(result: Any, pick: Callable = reading.pick) -> list[torch.Tensor]:
            rows = _rows(tuple(pick(result)), axes).clone()
            rows[:, plant.position] += 1e-3 * rows[:, plant.source]
            return [rows]

        (moves,) = _locals([replace(reading, pick=planted)], batch, nullcontext)
        return moves[0] if moves else None
    return None


def _rows(tensors: Sequence[torch.Tensor], axes: Axes) -> torch.Tensor:
    """The tensors of a reading side by side: `[batch, seq, features]`."""
    rows = [axes.rows(tensor) for tensor in tensors]
    return torch.cat(
        [r if r.is_floating_point() else r.to(torch.get_default_dtype()) for r in rows if r is not None], -1
    )


def distance(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """|a - b|, zero where both are the same infinity, infinite where one is not a number."""
    difference = torch.where(a == b, torch.zeros((), dtype=a.dtype), (a - b).abs())
    return difference.detach().nan_to_num(nan=float("inf"))


def _moves(rows: torch.Tensor, batch: Batch) -> Deltas:
    rows = rows.detach()
    moved = distance(rows, rows[BASE])  # [batch, seq, features]
    largest = moved.amax(-1)  # [batch, seq]
    allowed = largest.masked_fill(~batch.allowed, 0.0).max().item()
    past = largest.masked_fill(~batch.past, 0.0)
    output = past.max().item()
    padded = 0
    if not batch.valid.all():
        padded = int((largest.masked_fill(~batch.past_padding, 0.0) > 0).any(0).sum())
    if not output:
        return Deltas(allowed=allowed, padded=padded)
    row, position = divmod(int(past.argmax()), past.shape[1])
    channel = int(moved[row, position].argmax())
    worst = WorstCase(int(batch.cut[row]), position, channel, batch.draws[row], output, before=batch.mirrored)
    relative = (moved / channel_scale(rows)).amax(-1).masked_fill(~batch.past, 0.0).amax(0)  # [seq]
    return Deltas(output, allowed, relative.max().item(), padded=padded, worst=worst, by_position=relative)


def channel_scale(rows: torch.Tensor) -> torch.Tensor:
    """The largest value of each channel `[features]`, blocking values left out, never zero.

    By channel, since one large logit must not make the rounding of all others look large.
    """
    values = rows.abs()
    return values.masked_fill(~(values < _BLOCKING), 0.0).amax((0, 1)).clamp(min=_TINY)


def _gradients(
    rows: Sequence[torch.Tensor], batch: Batch, leaves: Sequence[torch.Tensor], *, each: bool
) -> list[tuple[float, float]]:
    """For each tensor, the largest gradient of its past rows with respect to future embeddings, and to any.

    All past activations are combined with random signs, so that one backward pass covers every pair of positions;
    two gradients cancel with probability zero.
    """
    generator = torch.Generator().manual_seed(0)
    combined: list[torch.Tensor | None] = []
    for r in rows:
        if not r.requires_grad:
            combined.append(None)
            continue
        signs = torch.randint(0, 2, r.shape[1:], generator=generator).to(r.dtype) * 2 - 1  # [seq, features]
        combined.append((r * signs * batch.past[..., None]).sum())
    connected = [c for c in combined if c is not None]
    if not connected or not leaves:
        return [(0.0, 0.0)] * len(rows)
    if not each:
        joint = _largest(torch.stack(connected).sum(), leaves, batch.future)
        return [(0.0, 0.0) if c is None or not joint[0] else joint for c in combined]
    return [(0.0, 0.0) if c is None else _largest(c, leaves, batch.future) for c in combined]


def _largest(value: torch.Tensor, leaves: Sequence[torch.Tensor], future: torch.Tensor) -> tuple[float, float]:
    try:
        gradients = torch.autograd.grad(value, leaves, retain_graph=True, allow_unused=True)
    except Exception:  # the subject's own backward pass; the planted gradient is then missed as well
        return 0.0, 0.0
    sizes = [g.abs().amax(-1).nan_to_num(nan=float("inf")) for g in gradients if g is not None]  # [batch, seq]
    return (
        max((size.masked_fill(~future, 0.0).max().item() for size in sizes), default=0.0),
        max((size.max().item() for size in sizes), default=0.0),
    )


@torch.no_grad()
def _locals(readings: Sequence[Reading], batch: Batch, within: Within) -> list[tuple[float, float] | None]:
    """Run each stage on inputs whose past rows are the base's and whose future rows are another sequence's.

    Returns for each the largest move of a past position, and in units of its channel's largest value. `None` where the
    stage cannot be run again: it was watched once, and may have changed a state that it depends on. Readings of the
    same call share one run.
    """
    results: dict[Any, Any] = {}
    moves: list[tuple[float, float] | None] = []
    for reading in readings:
        if reading.run is not None and reading.run not in results:
            results[reading.run] = _run_patched(reading, batch, within)
        result = results.get(reading.run)
        tensors = () if result is None else tuple(reading.pick(result))
        if not tensors:
            moves.append(None)
            continue
        moved = _moves(_rows(tensors, batch.axes), batch)
        moves.append((moved.output, moved.relative))
    return moves


def _run_patched(reading: Reading, batch: Batch, within: Within) -> Any:
    axes, source = batch.axes, batch.source

    def patch(leaf: Any) -> Any:
        if not isinstance(leaf, torch.Tensor) or isinstance(leaf, nn.Parameter):
            return leaf
        return axes.patch(leaf.detach(), source)

    assert reading.run is not None
    inputs = pytree.tree_map(patch, reading.inputs)
    try:
        with within():
            return reading.run(inputs)
    except Exception:  # the user's own code, out of its context
        return None
