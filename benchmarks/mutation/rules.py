"""Mutants of the entries of flow's registry: each rule's operands and what it returns, changed around the rule.

The rule itself is not looked at, so that every rule there is, and every one to come, has its mutants. `Watched` notes
what a rule is given and returns while the suite runs; `mutants` breaks each of these in turn: an operand that is not
seen, an axis along which one label counts for all, an output one position too early, everything joined along an axis,
a known zero that is not claimed, the arrangement of slots lost, and so on.
"""

import copy
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import wraps
from typing import Any

import torch
from torch import Tensor

from benchmarks.mutation.mutant import Mutant
from leakcheck.flow.context import Context, Instead
from leakcheck.flow.labels import BLOCKED, DTYPE, GENERIC, HOLE, KNOWN, LARGEST, ZERO, Labels
from leakcheck.flow.operand import Operand
from leakcheck.flow.registry import RULES, Rule
from leakcheck.flow.reports import Reports

AXES = 2  # the last ones

Change = Callable[[Tensor], Tensor]


@dataclass
class Seen:
    """What one entry was given and returned in all calls of the suite, in words (`varies along -1`, `has owners`)."""

    operands: dict[int, set[str]] = field(default_factory=lambda: defaultdict(set))
    outputs: dict[int, set[str]] = field(default_factory=lambda: defaultdict(set))
    reports: bool = False

    def note(self, operands: list[Operand], outputs: list[Labels]) -> None:
        for number, x in enumerate(operands):
            self.operands[number] |= _traits(x.labels)
        for number, labels in enumerate(outputs):
            self.outputs[number] |= _traits(labels)

    def joined(self, other: "Seen") -> "Seen":
        joined = Seen(reports=self.reports or other.reports)
        for each in (self, other):
            for mine, theirs in ((joined.operands, each.operands), (joined.outputs, each.outputs)):
                for number, traits in theirs.items():
                    mine[number] |= traits
        return joined

    def document(self) -> dict[str, Any]:
        return {
            "operands": {n: sorted(traits) for n, traits in self.operands.items()},
            "outputs": {n: sorted(traits) for n, traits in self.outputs.items()},
            "reports": self.reports,
        }

    @classmethod
    def read(cls, document: dict[str, Any]) -> "Seen":
        seen = cls(reports=document["reports"])
        for mine, theirs in ((seen.operands, document["operands"]), (seen.outputs, document["outputs"])):
            mine.update({int(n): set(traits) for n, traits in theirs.items()})
        return seen


class Watched:
    """While it is active, every call of a rule is noted in `seen`, and the names of those that ran in `ran`."""

    def __init__(self) -> None:
        self.seen: dict[str, Seen] = defaultdict(Seen)
        self.ran: set[str] = set()
        self._kept = dict(RULES)

    def __enter__(self) -> "Watched":
        for key, rule in self._kept.items():
            RULES[key] = replace(rule, function=_standing_in(rule, self._watching(key, rule)))
        return self

    def __exit__(self, *_: object) -> None:
        RULES.update(self._kept)

    def _watching(self, key: str, rule: Rule) -> Callable[..., Any]:
        def watching(*args: Any, **kwargs: Any) -> Any:
            reports = kwargs["context"].reports if rule.context else Reports()
            said = len(reports.soft_masks) + sum(reports.holes.values())
            result = rule.function(*args, **kwargs)
            self.ran.add(key)
            outputs: list[Labels] = []
            _mapped(result, lambda labels: outputs.append(labels) or labels)  # type: ignore[func-returns-value]
            self.seen[key].note(_operands(args, kwargs), outputs)
            self.seen[key].reports |= len(reports.soft_masks) + sum(reports.holes.values()) > said
            return result

        return watching


def _traits(labels: Labels) -> set[str]:
    hard = labels.hardened()
    plane = hard.plane
    found: set[str] = set()
    if not plane.numel():
        return found
    core = hard.core
    names = {ZERO: "ZERO", BLOCKED: "BLOCKED", KNOWN: "KNOWN", GENERIC: "GENERIC"}
    if hard.least < 0:
        found |= {f"has {name}" for label, name in names.items() if bool((core == label).any())}
    if bool(((core >= 0) & (core <= LARGEST)).any()):
        found.add("has inputs")
    for d in range(-1, -1 - min(AXES, plane.dim()), -1):
        if core.shape[d] > 1 and bool((core.clamp(min=KNOWN) != core.clamp(min=KNOWN).amax(d, keepdim=True)).any()):
            found.add(f"varies along {d}")
    for what in ("owners", "facts", "soft"):
        if getattr(labels, what):
            found.add(f"has {what}")
    return found


def mutants(seen: dict[str, Seen]) -> Iterator[Mutant]:
    """All variants of every entry of the registry."""
    for key, rule in RULES.items():
        for direction, change, function in _variants(rule, seen.get(key, Seen())):
            yield Mutant(f"rules: {rule.family}", direction, key, change, key, _replacing(key, rule, function))


def _replacing(key: str, rule: Rule, function: Callable[..., Any]) -> Callable[[], None]:
    def apply() -> None:
        RULES[key] = replace(rule, function=_standing_in(rule, function))

    return apply


def _standing_in(rule: Rule, function: Callable[..., Any]) -> Callable[..., Any]:
    """The function in the name and in the file of the rule, so that flow does not take its frame for the user's."""
    function.__code__ = function.__code__.replace(co_filename=rule.function.__code__.co_filename)  # type: ignore[attr-defined]
    return wraps(rule.function)(function)


def _variants(rule: Rule, seen: Seen) -> Iterator[tuple[str, str, Callable[..., Any]]]:
    """Direction, change in words, and the broken rule."""
    for number, traits in sorted(seen.operands.items()):
        which = f"operand {number}"
        yield "unsound", f"{which} is not seen", _given(rule, number, _unseen)
        for d in _along(traits):
            yield "unsound", f"{which}: of axis {d} the least counts", _given(rule, number, _spread(d, "amin"))
    for number, traits in sorted(seen.outputs.items()):
        which = f"output {number}" if len(seen.outputs) > 1 else "the output"
        for direction, change, function in _of_output(traits):
            yield direction, f"{which} {change}", _returned(rule, number, function)
    if seen.reports:
        yield "unsound", "reports are lost", _muted(rule)
    if any("has owners" in traits for traits in seen.operands.values()):
        yield "coarse", "is given no owners", _given(rule, None, Labels.settled)
    if any("has soft" in traits for traits in seen.operands.values()):
        yield "coarse", "is given no soft labels", _given(rule, None, Labels.hardened)


def _of_output(traits: set[str]) -> Iterator[tuple[str, str, Callable[[Labels], Labels]]]:
    if "has inputs" in traits:
        yield "unsound", "claims nothing", _by_plane(lambda plane: torch.full_like(plane, KNOWN))
        yield "unsound", "is one position early", _by_plane(lambda plane: torch.where(_inputs(plane), plane - 1, plane))
        yield "unsound", "misses its first element", _by_plane(_missing(0))
        yield "unsound", "misses its last element", _by_plane(_missing(-1))
        yield "coarse", "is one position late", _by_plane(lambda plane: torch.where(_inputs(plane), plane + 1, plane))
    if "has GENERIC" in traits:
        yield "unsound", "takes parameters for constants", _by_plane(_swapped(GENERIC, KNOWN))
    if "has KNOWN" in traits:
        yield "unsound", "takes constants for zeros", _by_plane(_swapped(KNOWN, ZERO))
        yield "unsound", "takes constants for masks", _by_plane(_swapped(KNOWN, BLOCKED))
    if "has ZERO" in traits:
        yield "coarse", "does not claim its zeros", _by_plane(_swapped(ZERO, KNOWN))
    if "has BLOCKED" in traits:
        yield "coarse", "does not claim what is blocked", _by_plane(_swapped(BLOCKED, KNOWN))
    along = _along(traits)
    for d in along:
        yield "coarse", f"is joined along axis {d}", _by_plane(_spread_plane(d, "amax"))
    if len(along) > 1:
        yield "coarse", "may depend on everything", _by_plane(lambda plane: plane.amax().expand(plane.shape))
    if "has inputs" in traits:
        yield "coarse", "is a hole", _by_plane(lambda plane: torch.full_like(plane, HOLE))
    if "has owners" in traits:
        yield "coarse", "settles its owners", Labels.settled
        yield "unsound", "loses its owners", _without_owners
    if "has facts" in traits:
        yield "coarse", "states no facts", _without_facts
    if "has soft" in traits:
        yield "coarse", "is not soft", Labels.hardened


def _along(traits: set[str]) -> list[int]:
    return [d for d in range(-1, -1 - AXES, -1) if f"varies along {d}" in traits]


def _inputs(plane: Tensor) -> Tensor:
    return (plane >= 0) & (plane <= LARGEST)


def _missing(at: int) -> Change:
    def change(plane: Tensor) -> Tensor:
        flat = plane.flatten().clone()
        if len(flat):
            flat[at] = flat[at].clamp(max=KNOWN)
        return flat.reshape(plane.shape)

    return change


def _swapped(old: int, new: int) -> Change:
    return lambda plane: plane.masked_fill(plane == old, new)


def _spread_plane(d: int, how: str) -> Change:
    def change(plane: Tensor) -> Tensor:
        if plane.dim() < -d or not plane.numel():
            return plane
        return getattr(plane, how)(d, keepdim=True).expand(plane.shape)

    return change


def _spread(d: int, how: str) -> Callable[[Labels], Labels]:
    return _by_plane(_spread_plane(d, how))


def _by_plane(change: Change) -> Callable[[Labels], Labels]:
    """The labels with their plane changed; what else hangs on them stays."""

    def changed(labels: Labels) -> Labels:
        if not labels.shape.numel():
            return labels
        made = Labels(change(labels.hardened().plane).to(DTYPE), labels.owners)
        if labels.soft:
            made = made.softened(labels.is_soft())
        made.facts = labels.facts
        first = made.core.flatten()[0]
        if made.owners is None and not made.soft and not made.facts and bool((made.core == first).all()):
            return Labels.full(labels.shape, int(first))  # as rules say it of what is constant
        return made

    return changed


def _unseen(labels: Labels) -> Labels:
    made = _by_plane(lambda plane: plane.clamp(max=GENERIC))(labels)
    return _without_owners(made)


def _without_owners(labels: Labels) -> Labels:
    made = labels.view(lambda t: t)
    made.owners, made.facts = None, labels.facts
    return made


def _without_facts(labels: Labels) -> Labels:
    return labels.view(lambda t: t)


def _operands(args: Any, kwargs: dict[str, Any]) -> list[Operand]:
    found: list[Operand] = []
    _each((args, kwargs), lambda x: found.append(x) or x)  # type: ignore[func-returns-value]
    return found


def _each(value: Any, function: Callable[[Operand], Operand]) -> Any:
    if isinstance(value, Operand):
        return function(value)
    if isinstance(value, dict):
        return {name: _each(item, function) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(_each(item, function) for item in value)
    return value


def _mapped(result: Any, function: Callable[[Labels], Labels]) -> Any:
    """What a rule returned, with each output's labels changed, in order."""
    if isinstance(result, Instead):
        return replace(result, labels=_mapped(result.labels, function))
    if isinstance(result, int):
        return function(Labels.full((), result))
    if isinstance(result, Labels):
        return function(result)
    return [_mapped(each, function) for each in result]


def _given(rule: Rule, number: int | None, change: Callable[[Labels], Labels]) -> Callable[..., Any]:
    """The rule with the labels of one operand changed, or of all."""

    def mutated(*args: Any, **kwargs: Any) -> Any:
        count = iter(range(len(_operands(args, kwargs))))

        def changed(x: Operand) -> Operand:
            if next(count) != number and number is not None:
                return x
            made = copy.copy(x)
            made.labels, made._structure = change(x.labels), None
            return made

        args, kwargs = _each((args, kwargs), changed)
        return rule.function(*args, **kwargs)

    return mutated


def _returned(rule: Rule, number: int, change: Callable[[Labels], Labels]) -> Callable[..., Any]:
    def mutated(*args: Any, **kwargs: Any) -> Any:
        count = iter(range(100_000))
        return _mapped(
            rule.function(*args, **kwargs), lambda labels: change(labels) if next(count) == number else labels
        )

    return mutated


def _muted(rule: Rule) -> Callable[..., Any]:
    def mutated(*args: Any, context: Context, **kwargs: Any) -> Any:
        return rule.function(*args, context=replace(context, reports=Reports()), **kwargs)

    return mutated
