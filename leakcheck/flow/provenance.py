"""A replay that remembers every op, and the way back from an element to the input that its label came from.

An element is a byte of a storage at a time, so views need no steps. What wrote it last is an op of the replay; which
element of its operands gave it the label is found with the op's own rule: lower all labels in question but some, apply
the rule again, and see whether the output still has it. Halving finds one in log2(n) applications.
"""

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import CodeType, FrameType
from typing import Any

import torch
from torch import Tensor, nn

from leakcheck.flow.context import Instead
from leakcheck.flow.labels import GENERIC, KNOWN, UNWRITTEN, Labels
from leakcheck.flow.operand import Operand
from leakcheck.flow.reports import Place, is_user_code
from leakcheck.flow.rows import Axis, Layout
from leakcheck.flow.storage import Mirror
from leakcheck.flow.trace import Tracer
from leakcheck.subjects.subject import logits_of

At = tuple[int, ...]  # coordinates of an element


@dataclass(frozen=True)
class Frame:
    """One call on the stack of an op. `masks`: locals named like one, with their type and shape, or "None"."""

    place: Place
    masks: tuple[tuple[str, str], ...]


class Taken:
    """An operand as it was when the op ran: later ops may overwrite its values. Its labels are never written again."""

    def __init__(self, operand: Operand, layout: Layout):
        labels = operand.labels
        self.operand, self.layout = operand, layout
        self._kept = operand.value.clone() if labels.uniform == KNOWN else None
        self._version = operand.tensor._version
        self.structure = operand.structure if labels.uniform == KNOWN else None
        self._labels = labels

    @property
    def labels(self) -> Labels:
        """Settled: an owned element counts with all that its slot can hold."""
        if self._labels.owners is not None:
            self._labels = self._labels.settled()
        return self._labels

    def give(self, labels: Labels | None = None) -> None:
        """Put the operand back as it was, with other labels if given."""
        if self._kept is not None and self.operand.tensor._version != self._version:
            self.operand.value = self._kept
        structure = self.structure if labels is None else None
        self.operand.labels = self.labels if labels is None else labels
        self.operand._structure = structure or self.operand.labels

    def at_least(self, label: int) -> Tensor | None:
        """Boolean, of the operand's shape: elements that could give an output this label; `None` for nowhere."""
        labels = self.labels
        if labels.uniform is not None and not label <= labels.uniform < UNWRITTEN:
            return None
        plane = labels.hardened().plane
        found = (plane >= label) & (plane < UNWRITTEN)
        return found if bool(found.any()) else None

    def lowered(self, where: Tensor, to: int = GENERIC) -> Labels:
        """The labels with another one where the mask is true; soft ones stay soft."""
        made = Labels(torch.where(where, to, self.labels.hardened().plane).to(torch.int16))
        return made.softened(self.labels.is_soft()) if self.labels.soft else made


@dataclass(frozen=True, eq=False)
class Step:
    """One op of the replay. `frames` are its user's calls, innermost first."""

    number: int
    name: str
    apply: Callable[[], Any]
    operands: tuple[Taken, ...]
    outputs: tuple[Layout, ...]
    frames: tuple[Frame, ...]
    module: str

    def result(self, given: Mapping[int, Labels] | None = None) -> list[Any]:
        """What the rule says of each output, with other labels for some operands."""
        for i, taken in enumerate(self.operands):
            taken.give((given or {}).get(i))
        labels = self.apply()
        labels = labels.labels if isinstance(labels, Instead) else labels
        return list(labels) if isinstance(labels, (list, tuple)) else [labels] * len(self.outputs)

    def plane(self, output: int, given: Mapping[int, Labels] | None = None) -> Tensor:
        """The labels of one output."""
        shape, labels = self.outputs[output].shape, self.result(given)[output]
        labels = Labels.full(shape, labels) if isinstance(labels, int) else labels
        return labels.settled().hardened().plane.expand(shape)


@dataclass(frozen=True, eq=False)
class Move:
    """One step on the way of a label: from an element of an operand to one of an output."""

    step: Step
    operand: int
    source: At
    output: int
    target: At

    @property
    def taken(self) -> Layout:
        return self.step.operands[self.operand].layout

    @property
    def made(self) -> Layout:
        return self.step.outputs[self.output]

    def mixes(self) -> bool:
        """Whether the output element also depends on another element that depends on an input."""
        given = {}
        for i, taken in enumerate(self.step.operands):
            inputs = taken.at_least(0)
            if inputs is not None:
                given[i] = taken.lowered(inputs, to=0)
                if i == self.operand:
                    here = torch.zeros_like(inputs)
                    here[self.source] = True
                    given[i] = Labels(torch.where(here, GENERIC, given[i].hardened().plane))
        return int(self.step.plane(self.output, given)[self.target]) >= 0

    def reverses(self, dim: int) -> bool:
        """Of an op that only moves elements: whether it turns their order along a dim around."""
        size, here = self.taken.shape[dim], self.source[dim]
        other = here + 1 if here + 1 < size else here - 1
        neighbour = (*self.source[:dim], other, *self.source[dim + 1 :])
        given = {}
        for i, taken in enumerate(self.step.operands):
            inputs = taken.at_least(0)
            if inputs is not None:
                plane = taken.lowered(inputs).hardened().plane.clone()
                if i == self.operand:
                    plane[neighbour] = 0
                given[i] = Labels(plane)
        found = (self.step.plane(self.output, given) >= 0).nonzero()
        return any(int(at[dim]) - self.target[dim] == here - other for at in found)

    def furthest(self, dim: int) -> Tensor:
        """For each index of the output along a dim, the largest index of the operand along it that is read there."""
        size = self.taken.shape[dim]
        along = torch.arange(size).reshape([size if d == dim else 1 for d in range(len(self.taken.shape))])
        labels = {self.operand: Labels(along.expand(self.taken.shape).to(torch.int16))}
        plane = self.step.plane(self.output, labels)
        return plane.movedim(dim, 0).reshape(self.made.shape[dim], -1).amax(1).long()


@dataclass(eq=False)
class Recording:
    """Every op of one forward that had labels to compute."""

    source: Layout
    steps: list[Step] = field(default_factory=list)
    _writers: dict[int, list[tuple[int, int]]] = field(default_factory=dict)  # storage -> steps and their outputs

    def add(self, step: Step) -> None:
        self.steps.append(step)
        for k, layout in enumerate(step.outputs):
            self._writers.setdefault(layout.storage, []).append((step.number, k))

    def writer(self, layout: Layout, at: At, before: int) -> tuple[Step, int, At] | None:
        """The last op before a time that wrote an element; which output it is of, and where in it."""
        byte = layout.byte(at)
        for number, k in reversed(self._writers.get(layout.storage, [])):
            if number < before:
                step = self.steps[number]
                found = step.outputs[k].at(byte)
                if found is not None:
                    return step, k, found
        return None

    def age(self, layout: Layout, before: int) -> int:
        """The time of the last write to a storage."""
        return max((number for number, _ in self._writers.get(layout.storage, []) if number < before), default=-1)

    def way(self, layout: Layout, at: At, label: int, axis: Axis, row: int, homes: Sequence[int]) -> list[Move]:
        """The moves that brought `label` to an element of the output in row `row`, from the input on.

        Where several elements could have given it, the way stays in its row as long as that is possible, so that it
        leaves it where the label first came in; and then goes to the rows of the inputs with this label, `homes`.
        """
        moves: list[Move] = []
        before = len(self.steps)
        while (found := self.writer(layout, at, before)) is not None:
            step, output, target = found
            giver = self._giver(step, output, target, label, axis, row, homes)
            if giver is None:
                break
            operand, source = giver
            moves.append(Move(step, operand, source, output, target))
            layout, at, before = step.operands[operand].layout, source, step.number
            told = axis.row(layout.shape, at)
            row = row if told is None else told
        return moves[::-1]

    def _giver(
        self, step: Step, output: int, target: At, label: int, axis: Axis, row: int, homes: Sequence[int]
    ) -> tuple[int, At] | None:
        """An element of an operand that gives an output element its label."""
        masks = {i: mask for i, taken in enumerate(step.operands) if (mask := taken.at_least(label)) is not None}
        pool: list[tuple[int, Tensor, Tensor]] = []  # operand, flat indices, ranks
        for i, mask in masks.items():
            shape = step.operands[i].layout.shape
            flat = mask.reshape(-1).nonzero().squeeze(1)
            age = self.age(step.operands[i].layout, step.number)
            rank = _rank(axis.rows(shape, torch.unravel_index(flat, shape) if shape else ()), row, homes, flat)
            # In its own row the older tensor first: a residual stream before what is added to it. Else the last
            # operand first: values before keys and weights.
            rank = rank * 2**32 + torch.where(rank == 0, age, len(step.operands) - i)
            pool.append((i, flat, rank))
        if not pool:
            return None
        operands = torch.cat([torch.full_like(flat, i) for i, flat, _ in pool])
        flats, ranks = torch.cat([flat for _, flat, _ in pool]), torch.cat([rank for *_, rank in pool])
        order = ranks.argsort(stable=True)
        operands, flats, ranks = operands[order], flats[order], ranks[order]

        def gives(which: Tensor) -> bool:
            given = {}
            for i, mask in masks.items():
                lower = mask.clone().reshape(-1)
                lower[flats[which[operands[which] == i]]] = False
                given[i] = step.operands[i].lowered(lower.reshape(mask.shape))
            try:
                return label <= int(step.plane(output, given)[target]) < UNWRITTEN
            except Exception:  # labels that the rule did not foresee: no answer
                return False

        chosen = torch.zeros(1, dtype=torch.int64)  # by rank alone, where the rule has no answer
        for rank in ranks.unique().tolist():
            group = (ranks == rank).nonzero().squeeze(1)
            if gives(group):
                while len(group) > 1:
                    half = group[: len(group) // 2]
                    group = half if gives(half) else group[len(group) // 2 :]
                chosen = group
                break
        i = int(operands[chosen[0]])
        shape = step.operands[i].layout.shape
        at = torch.unravel_index(flats[chosen[0]], shape) if shape else ()
        return i, tuple(int(c) for c in at)


def _rank(rows: list[Tensor], row: int, homes: Sequence[int], like: Tensor) -> Tensor:
    """0: in this row. 1: in the rows of the inputs. 2: in another one. 3, 4: several rows, or none, can be told."""
    home = torch.tensor(list(homes), dtype=torch.int64)
    if len(rows) == 1:
        return torch.where(rows[0] == row, 0, torch.where(torch.isin(rows[0], home), 1, 2))
    several = torch.zeros_like(like, dtype=torch.bool)
    for each in rows:
        several |= torch.isin(each, home)
    return torch.where(several, 3, torch.full_like(like, 4))


class _Recorder:
    """Listens to the engine."""

    def __init__(self, mirror: Mirror, source: Tensor, model: Any):
        self._mirror = mirror
        self.recording = Recording(self.layout(source))
        modules = model.named_modules() if isinstance(model, nn.Module) else ()
        self._paths = {id(module): path for path, module in modules}
        self._masks: dict[CodeType, tuple[str, ...]] = {}

    def layout(self, tensor: Tensor) -> Layout:
        return Layout.of(tensor, self._mirror.record(tensor).number)

    def __call__(self, name: str, apply: Callable[[], Any], operands: list[Operand], outputs: list[Tensor]) -> None:
        frames, module = self._stack()
        step = Step(
            number=len(self.recording.steps),
            name=name,
            apply=apply,
            operands=tuple(Taken(x, self.layout(x.tensor)) for x in operands),
            outputs=tuple(self.layout(x) for x in outputs),
            frames=frames,
            module=module,
        )
        self.recording.add(step)

    def _stack(self) -> tuple[tuple[Frame, ...], str]:
        """The calls of the user's code inside the model, innermost first; and the path of the innermost module."""
        frames: list[Frame] = []
        inside, module = 0, None  # how many of the frames are inside the model
        frame: FrameType | None = sys._getframe(2)
        while frame is not None and frame.f_code is not _recorded.__code__:
            code = frame.f_code
            if is_user_code(frame) and code.co_name != "__torch_function__":  # which passes on what a line calls
                frames.append(Frame(Place(code.co_filename, frame.f_lineno, code.co_qualname), self._masks_in(frame)))
            owner = frame.f_locals.get("self") if code.co_varnames[:1] == ("self",) else None
            if (path := self._paths.get(id(owner))) is not None:
                module = path if module is None else module
                inside = len(frames)
            frame = frame.f_back
        return tuple(frames[:inside] if inside else frames), module or ""

    def _masks_in(self, frame: FrameType) -> tuple[tuple[str, str], ...]:
        code = frame.f_code
        if code not in self._masks:
            names = (*code.co_varnames, *code.co_cellvars, *code.co_freevars)
            self._masks[code] = tuple(name for name in names if "mask" in name.lower())
        if not self._masks[code]:
            return ()
        found = ((name, frame.f_locals.get(name, ...)) for name in self._masks[code])
        return tuple((name, _described(value)) for name, value in found if value is None or isinstance(value, Tensor))


def _described(value: Tensor | None) -> str:
    return "None" if value is None else f"{str(value.dtype).removeprefix('torch.')} {list(value.shape)}"


def record(
    run: Callable[[Tensor], Any], source: Tensor, model: Any, labels: Tensor | None
) -> tuple[Recording, Layout, Tensor]:
    """Run with labels and remember every op: the recording, the layout of the logits, and their labels."""
    tracer = Tracer(model, source, labels)
    try:
        return _recorded(tracer, run)
    except Exception:
        if not tracer.reports.departed:
            raise
        tracer.close()
        tracer = Tracer(model, source, labels)  # as in `trace`
        tracer.reports.natural = True
        return _recorded(tracer, run)
    finally:
        tracer.close()


def _recorded(tracer: Tracer, run: Callable[[Tensor], Any]) -> tuple[Recording, Layout, Tensor]:
    with tracer:
        recorder = _Recorder(tracer.mirror, tracer.source, tracer.model)
        tracer.flow.watch = recorder
        logits = logits_of(run(tracer.source))
    return recorder.recording, recorder.layout(logits), tracer.read(logits)
