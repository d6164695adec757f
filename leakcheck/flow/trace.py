"""The public verb: one forward pass with labels, and what it establishes."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from leakcheck.errors import UsageError
from leakcheck.flow.absent import autocast_without_values, is_absent
from leakcheck.flow.compiled import uncompiled
from leakcheck.flow.engine import Flow
from leakcheck.flow.escapes import Escapes
from leakcheck.flow.labels import GENERIC, KNOWN, LARGEST, UNWRITTEN, Labels
from leakcheck.flow.reports import CONTROL_FLOW, Hole, Reports, SoftMask
from leakcheck.flow.storage import Mirror
from leakcheck.flow.widening import explained, unexplained
from leakcheck.subjects.kernels import as_unwatched
from leakcheck.subjects.state import preserved
from leakcheck.subjects.subject import logits_of

Result = TypeVar("Result")


@dataclass(frozen=True)
class Violation:
    """An output position that can see an input after it: row `batch`, `position`, and the latest input it sees."""

    batch: int
    position: int
    source: int


@dataclass(frozen=True, eq=False)
class Trace:
    """What one traced forward established, for every sequence of tokens and every weight of these shapes.

    `horizon`, an integer tensor `[batch, seq]`: the label of the latest input that any feature of that output position
    can see; with the default labels, its position; -1 if it sees none. `covered`, boolean `[batch, seq]`: false where a
    hole was in the way, so that the horizon is only the largest possible. `ops` counts the operations that ran.
    """

    horizon: Tensor
    covered: Tensor
    labels: Tensor
    violations: tuple[Violation, ...]
    holes: tuple[Hole, ...]
    soft_masks: tuple[SoftMask, ...]
    ops: int

    @property
    def proven(self) -> bool:
        """Whether no position sees a later input, with every op covered by a sound rule."""
        return not self.violations and not self.holes and bool(self.covered.all())


def trace(
    model: Callable[..., Any],
    inputs: Tensor | Mapping[str, Any],
    labels: Tensor | None = None,
    *,
    valid: Tensor | None = None,
    limit: Tensor | None = None,
) -> Trace:
    """Run `model` once and say of every output position how late an input it can see; nothing of its state changes.

    Args:
        model: a module or function; its output is logits `[batch, seq, ...]`, or holds them as `.logits` or first.
        inputs: token ids `[batch, seq]`, or keyword arguments with `input_ids` or `inputs_embeds`. Every other
        argument,
            such as a mask, counts as known: the proof is for it as it is given.
        labels: integer `[batch, seq]`, one for each input position; by default its index. Output position t is a
            violation if its label is above that of input position t.
        valid: boolean `[seq]` or `[batch, seq]`; a position that is not (padding) may see anything.
        limit: integer `[seq]` or `[batch, seq]`, the largest label that each output position may have, in place of its
            own: for a look-ahead, or a prefix that all may see.

    Raises:
        UsageError: `labels` do not fit, or no input is labelled.
    """
    keywords = dict(inputs) if isinstance(inputs, Mapping) else {}
    source = _labelled_input(inputs)

    def run(tokens: Tensor) -> Any:
        if isinstance(inputs, Tensor):
            return model(tokens)
        return model(**{name: tokens if value is source else value for name, value in keywords.items()})

    with preserved(model), torch.no_grad():
        tracer, output = traced(lambda: logits_of(run(source)), model, source, labels)
        seen = tracer.read(output)
        if tracer.reports.widened and tracer.weightless:
            unexplained(tracer.reports)
        elif tracer.reports.widened:
            explained(run, source, tracer.reports)
    return conclude(tracer, seen, valid, limit)


def traced(
    run: Callable[[], Result], model: Any, source: Tensor, labels: Tensor | None = None
) -> tuple["Tracer", Result]:
    """What `run` returns, and the tracer that it ran under, from which labels can be read until it is closed."""
    tracer = Tracer(model, source, labels)
    try:
        with tracer:
            return tracer, run()
    except Exception:
        if not tracer.reports.departed:
            raise
    tracer = Tracer(model, source, labels)  # the program does not take what its tokens could have been
    tracer.reports.natural = True
    with tracer:
        return tracer, run()


class Tracer:
    """The modes that keep labels, as one context; `read` tells the labels of a tensor while they are kept."""

    def __init__(self, model: Any, source: Tensor, labels: Tensor | None = None):
        if labels is None:
            labels = torch.arange(source.shape[1]).expand(source.shape[:2])
        if labels.shape != source.shape[:2]:
            raise UsageError(f"labels of shape {list(labels.shape)} do not fit inputs {list(source.shape)}")
        if labels.numel() and (int(labels.max()) > LARGEST or int(labels.min()) < 0):
            raise UsageError(f"labels must be from 0 to {LARGEST}; audit at most {LARGEST + 1} positions at a time")
        self.source, self.labels = source, labels
        self.reports = Reports()
        self.mirror = Mirror()
        self.model = model
        self.flow = Flow(self.mirror, self.reports, weightless=self.weightless)
        self._entered: list[Any] = []

    @property
    def weightless(self) -> bool:
        """Whether the model has tensors without values, on the meta device."""
        if not isinstance(self.model, nn.Module):
            return False
        return any(map(is_absent, (*self.model.parameters(), *self.model.buffers())))

    def __enter__(self) -> "Tracer":
        if isinstance(self.model, nn.Module):
            for parameter in self.model.parameters():
                self.mirror.seed(parameter, Labels.full(parameter.shape, GENERIC))
        labels = self.labels.to(torch.int16)
        labels = labels.reshape(labels.shape + (1,) * (self.source.dim() - 2)).expand(self.source.shape)
        self.mirror.seed(self.source, Labels(labels))
        self._entered = [uncompiled(), autocast_without_values(), as_unwatched(), Escapes(self.flow), self.flow]
        for mode in self._entered:
            mode.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        for mode in reversed(self._entered):
            mode.__exit__(*error)
        if error[0] is not None:
            self.close()

    def read(self, tensor: Tensor) -> Tensor:
        """int16, of the tensor's shape; owners count with all that their slots can hold."""
        return self.mirror.read(tensor).settled().hardened().plane

    def close(self) -> None:
        self.mirror.close()


def conclude(tracer: Tracer, seen: Tensor, valid: Tensor | None = None, limit: Tensor | None = None) -> Trace:
    """The trace from the labels of an output `[batch, seq, ...]`."""
    tracer.close()
    rows = seen.reshape(*seen.shape[:2], -1)
    if rows.stride(-1) == 0:  # all features have one label
        rows = rows[..., :1]
    per_position = rows.amax(-1) if rows.shape[-1] else rows.new_full(rows.shape[:2], KNOWN)  # [batch, seq]
    covered = per_position < UNWRITTEN
    if bool((rows == UNWRITTEN).any()):
        for place, op in (tracer.reports.unwritten or {None: "aten::empty"}).items():
            carries = "it reads memory that no op wrote: a kernel that torch does not dispatch may have"
            tracer.reports.hole_at(place, op, "opaque op", carries)
    clear = torch.where(rows < UNWRITTEN, rows, KNOWN).amax(-1) if rows.shape[-1] else per_position
    latest = tracer.labels.max() if tracer.labels.numel() else 0
    horizon = torch.where(covered, per_position, latest).long().clamp(min=-1)
    own = tracer.labels
    usable = torch.ones_like(covered) if valid is None else valid.expand(covered.shape)
    late = (clear > (own if limit is None else limit)) & usable
    if any(hole.kind == CONTROL_FLOW for hole in tracer.reports.holes):
        # The program knew more of its tokens than labels say (sizes to split by, say): a label that is too late may be
        # the labels' fault, and one that is not may be luck.
        covered, late = covered & ~late, torch.zeros_like(late)
    violations = tuple(
        Violation(batch, position, int(clear[batch, position])) for batch, position in late.nonzero().tolist()
    )
    return Trace(
        horizon=horizon,
        covered=covered | ~usable,
        labels=own,
        violations=violations,
        holes=tuple(tracer.reports.holes),
        soft_masks=tuple(tracer.reports.soft_masks.values()),
        ops=tracer.flow.ops,
    )


def _labelled_input(inputs: Tensor | Mapping[str, Any]) -> Tensor:
    found: Any = inputs
    if not isinstance(inputs, Tensor):
        found = next((inputs[name] for name in ("input_ids", "inputs_embeds") if inputs.get(name) is not None), None)
    if not isinstance(found, Tensor) or found.dim() < 2:
        raise UsageError("inputs must be token ids [batch, seq], or a mapping with input_ids or inputs_embeds")
    return found
