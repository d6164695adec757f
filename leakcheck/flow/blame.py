"""Why an output position sees an input after it: the op to blame, its line, and the way from input to output."""

import itertools
import sys
import sysconfig
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from leakcheck.errors import UsageError
from leakcheck.flow.crossing import Late, crossing
from leakcheck.flow.provenance import Frame, Move, Recording, record
from leakcheck.flow.reports import Place
from leakcheck.flow.rows import Axis, Layout
from leakcheck.flow.sentences import Meeting, sentence
from leakcheck.flow.trace import Violation, _labelled_input
from leakcheck.subjects.state import preserved

_INSTALLED = tuple(sysconfig.get_paths()[name] for name in ("purelib", "platlib", "stdlib"))
_SHOWN = 6  # links before the op to blame, and after it: more than that nobody reads


@dataclass(frozen=True)
class Link:
    """Ops of one line, on the way of the label. `effect`: at which position it was and is, and the shapes."""

    op: str
    place: Place | None
    module: str
    effect: str

    def __str__(self) -> str:
        where = f" at {self.place}" if self.place else ""
        return f"{self.op}{where}: {self.effect}"


@dataclass(frozen=True)
class Blame:
    """Why output `position` sees input `source`: indices along the sequence, or along the batch if labels differ there.

    `place`, `module` and `op` are those of the op to blame, `place` as the innermost line of the user's code. `chain`
    leads from the input to the output.
    """

    sentence: str
    place: Place | None
    module: str
    op: str
    chain: tuple[Link, ...]
    source: int
    position: int


def blame(
    model: Callable[..., Any],
    inputs: Tensor | Mapping[str, Any],
    violation: Violation,
    labels: Tensor | None = None,
    *,
    limit: Tensor | None = None,
    run: Callable[[Tensor], Any] | None = None,
) -> Blame:
    """Run `model` once more and follow the violation back to the input it reads.

    Positions are told from the sizes of axes. So if `inputs` are nothing but tokens, the replay has one row of them,
    and is as much longer as it takes for its length to be no size of the model; else their length should not be one.

    Args:
        model: as for `trace`; the paths of its modules are reported.
        inputs: those that `violation` was found with.
        labels: those that it was found with.
        limit: integer `[batch, seq]`, the one that it was found with; by default no index may see a larger one.
        run: called in place of the model, with the token ids or embeddings of `inputs`.

    Raises:
        UsageError: with these inputs there is no such violation.
    """
    source = _labelled_input(inputs)
    if labels is None:
        labels = torch.arange(source.shape[1]).expand(source.shape[:2])
    asked = _Asked(source, labels, violation.batch, violation, limit)
    call = run or _call(model, inputs, source)
    found = None
    with preserved(model):
        if run is None and isinstance(inputs, Tensor):
            found = _replayed(model, call, asked.clearer(model), forgiving=True)
        found = found or _replayed(model, call, asked)
    if found is None:
        raise UsageError(
            f"output position {violation.position} of row {violation.batch} does not see an input with label "
            f"{violation.source} here"
        )
    return found


@dataclass(frozen=True, eq=False)
class _Asked:
    """A violation in row `row` of the inputs `source`."""

    source: Tensor  # [batch, seq, ...]
    labels: Tensor  # [batch, seq]
    row: int
    violation: Violation
    limit: Tensor | None = None  # [batch, seq]

    @property
    def along_sequence(self) -> bool:
        return bool((self.labels[self.row] == self.violation.source).any())

    def axis(self) -> tuple[Axis, list[int]]:
        """The axis along which the label differs from that of the output, and where on it the inputs with it are."""
        rows, length = self.labels.shape
        there = self.labels == self.violation.source
        if self.along_sequence:
            return Axis("sequence", length, rows), there[self.row].nonzero().squeeze(1).tolist()
        return Axis("batch", rows, length), there.any(1).nonzero().squeeze(1).tolist()

    def late(self, axis: Axis) -> Late | None:
        """Which indices of the axis may not see the label; `None` where those before it may not."""
        if self.limit is None:
            return None
        along = self.limit[self.row] if axis.name == "sequence" else self.limit[:, self.violation.position]
        return lambda index: bool(along[index] < self.violation.source)

    def clearer(self, model: Any) -> "_Asked":
        """The same in one row, with more tokens behind it where the number of tokens divides a size of the model.

        What is added has the lowest label, and can hide none.
        """
        if not self.along_sequence:
            return self
        source, labels = self.source[self.row : self.row + 1], self.labels[self.row : self.row + 1]
        parameters = model.parameters() if isinstance(model, nn.Module) else ()
        sizes = {size for parameter in parameters for size in parameter.shape if size > 1}
        length = next(n for n in itertools.count(source.shape[1]) if n > 1 and all(size % n for size in sizes))
        more = length - source.shape[1]
        source = torch.cat([source, source[:, -1:].repeat_interleave(more, 1)], 1)
        labels = torch.cat([labels, labels.amin(1, keepdim=True).expand(-1, more)], 1)
        return _Asked(source, labels, 0, self.violation)


def _replayed(model: Any, call: Callable[[Tensor], Any], asked: _Asked, *, forgiving: bool = False) -> Blame | None:
    """What a replay tells; `None` if the violation is not there. If `forgiving`, also if these inputs cannot be run."""
    try:
        recording, logits, seen = record(call, asked.source, model, asked.labels)
    except Exception:
        if forgiving:
            return None
        raise
    position, label = asked.violation.position, asked.violation.source
    if asked.row >= seen.shape[0] or position >= seen.shape[1]:
        return None
    features = (seen[asked.row, position] == label).nonzero()
    if not len(features):
        return None
    axis, homes = asked.axis()
    target = position if axis.name == "sequence" else asked.row
    way = recording.way(logits, (asked.row, position, *features[0].tolist()), label, axis, target, homes)
    if not way:
        return None
    begin = axis.row(way[0].taken.shape, way[0].source) if way[0].taken.storage == recording.source.storage else None
    return _told(model, recording, way, axis, homes[0] if begin is None else begin, target, asked.late(axis))


def _call(model: Callable[..., Any], inputs: Tensor | Mapping[str, Any], source: Tensor) -> Callable[[Tensor], Any]:
    def run(tokens: Tensor) -> Any:
        with torch.no_grad():
            if isinstance(inputs, Tensor):
                return model(tokens)
            return model(**{name: tokens if value is source else value for name, value in inputs.items()})

    return run


def _told(
    model: Any, recording: Recording, way: list[Move], axis: Axis, source: int, target: int, late: Late | None
) -> Blame:
    found = crossing(way, recording, axis, source, late, back=target < source)
    guilty = way[found.number]
    own = _Own(model)
    later = (axis.row(move.made.shape, move.target) for move in way[found.number + 1 :])
    reached = next((row for row in (found.row, *later) if row is not None), target)
    turned_at = None if found.turned_by is None else own.place(found.turned_by.step.frames)
    meeting = Meeting(
        way=tuple(way),
        number=found.number,
        recording=recording,
        axis=axis,
        source=source,
        target=reached,
        calls=own.calls(guilty.step.frames),
        turned_at=turned_at,
        turned=found.turned_by is not None,
    )
    return Blame(
        sentence=sentence(meeting),
        place=own.place(guilty.step.frames),
        module=guilty.step.module,
        op=_short(guilty.step.name),
        chain=_chain(way, found.number, axis, own),
        source=source,
        position=target,
    )


class _Own:
    """Which calls are the user's: outside installed packages; else in a file that defines a module of the model."""

    def __init__(self, model: Any):
        modules = model.modules() if isinstance(model, nn.Module) else ()
        names = {type(module).__module__ for module in modules}
        self._files = {getattr(sys.modules.get(name), "__file__", None) for name in names}

    def calls(self, frames: Sequence[Frame]) -> tuple[Frame, ...]:
        outside = [f for f in frames if not f.place.file.startswith(_INSTALLED)]
        return tuple(outside or [f for f in frames if f.place.file in self._files] or frames)

    def place(self, frames: Sequence[Frame]) -> Place | None:
        calls = self.calls(frames)
        return calls[0].place if calls else None


def _chain(way: Sequence[Move], blamed: int, axis: Axis, own: _Own) -> tuple[Link, ...]:
    """One link for each line before the op to blame, one for that op, one for each line after it."""
    before, after = _links(way[:blamed], axis, own), _links(way[blamed + 1 :], axis, own)
    return (*_shortened(before), *_links(way[blamed : blamed + 1], axis, own), *_shortened(after))


def _links(way: Sequence[Move], axis: Axis, own: _Own) -> list[Link]:
    links: list[Link] = []
    first = 0
    for number, move in enumerate(way):
        here, module = own.place(move.step.frames), move.step.module
        last = number + 1 == len(way) or own.place(way[number + 1].step.frames) != here
        if last or way[number + 1].step.module != module:
            several = way[first : number + 1]
            ops = dict.fromkeys(_short(m.step.name) for m in several)
            links.append(Link(", ".join(ops), here, module, _effect(several[0], several[-1], axis)))
            first = number + 1
    return links


def _effect(first: Move, last: Move, axis: Axis) -> str:
    told = [_position(first.taken, first.source, axis), _position(last.made, last.target, axis)]
    moved = " -> ".join(dict.fromkeys(told))
    shapes = " -> ".join(dict.fromkeys(str(list(layout.shape)) for layout in (first.taken, last.made)))
    return f"{moved}, {shapes}"


def _position(layout: Layout, at: Sequence[int], axis: Axis) -> str:
    rows = axis.rows(layout.shape, at)
    word = "position" if axis.name == "sequence" else "row"
    if not rows:
        return f"no {axis.name} axis"
    return f"{word} {rows[0]}" if len(rows) == 1 else f"{word}s {', '.join(map(str, rows))}"


def _shortened(links: list[Link]) -> list[Link]:
    if len(links) <= _SHOWN:
        return links
    half = _SHOWN // 2
    left_out = links[half:-half]
    modules = list(dict.fromkeys(link.module for link in left_out))
    between = modules[0] if len(modules) == 1 else f"{modules[0]} to {modules[-1]}"
    return [*links[:half], Link("...", None, between, f"{len(left_out)} more lines"), *links[-half:]]


def _short(name: str) -> str:
    return name.partition("::")[2]
