"""What a forward takes and returns, in words: `int[batch, time] < 100`, `float[batch, 80, time]`, `[batch, time/2]`."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

from leakcheck.errors import UsageError

BATCH, TIME = "batch", "time"
Axis = str | int  # "batch", "time", or a size

_ARGUMENT = re.compile(r"(int|float|bool|length)\s*\[([^\]]*)\]\s*(?:<\s*(\d+))?")
_RESULT = re.compile(r"\[([^\]]*)\]")
_TIME = re.compile(r"time\s*(?:=\s*(?P<fixed>\d+)|(?P<by>[/*])\s*(?P<rate>\d+))?\s*(?P<more>[+-]\s*\d+)?")

GRAMMAR = (
    "int[batch, time] < 1000 (token ids), float[batch, 80, time] (features), bool[batch, time] (all true) and "
    "length[batch] (how many steps each row has); one without `time` is held fixed"
)


@dataclass(frozen=True)
class Argument:
    """One argument of a forward. `below` bounds the integers; `fixed` is the only length that it can have, if any."""

    kind: str  # "int", "float", "bool" (all true), "length" (the number of steps)
    axes: tuple[Axis, ...]
    below: int | None = None
    fixed: int | None = None

    @property
    def audited(self) -> bool:
        """Whether it is changed over time; the others are held fixed."""
        return TIME in self.axes and self.kind in ("int", "float")

    @property
    def features(self) -> tuple[int, ...]:
        return tuple(axis for axis in self.axes if isinstance(axis, int))

    @property
    def batched(self) -> bool:
        return BATCH in self.axes

    def __str__(self) -> str:
        axes = ", ".join(f"time={self.fixed}" if a == TIME and self.fixed else str(a) for a in self.axes)
        return f"{self.kind}[{axes}]" + (f" < {self.below}" if self.below else "")


@dataclass(frozen=True)
class Result:
    """One output: which axis is the batch (`None`: rows run one by one), which the time, and how long it is.

    It has `rate` steps for each step of the input, and `offset` more.
    """

    batch: int | None
    time: int
    rate: Fraction = Fraction(1)
    offset: int = 0

    def __str__(self) -> str:
        return "at each step" if self.rate == 1 else f"{self.rate.numerator} for {self.rate.denominator} steps"


@dataclass(frozen=True)
class Inputs:
    """What to call a model with, and which of its outputs to audit.

    `arguments` are in the order and by the names of the forward's parameters. A text describes a tensor, as in
    `float[batch, 80, time]`; it is drawn at random, and changed over `time` if it has that axis. Anything else is
    handed over as it is. `outputs` describes those to audit, by key or number (`{"0": "[batch, time/2, 40]"}`); by
    default each with a batch and a time axis is, which are found by running the model at several sizes. With outputs
    alone, the arguments are told from the model. Of tensors that
    are handed over, those with `rows` rows hold a batch, of which the first stands for all.

    Raises:
        UsageError: a text is no such description, or none of the arguments has a `time`.
    """

    arguments: Mapping[str, Any]
    outputs: Mapping[str, str] = field(default_factory=dict)
    rows: int | None = None

    def __post_init__(self) -> None:
        parsed = {n: argument(n, v) if isinstance(v, str) else v for n, v in self.arguments.items()}
        object.__setattr__(self, "arguments", parsed)
        object.__setattr__(self, "results", {n: result(n, text) for n, text in self.outputs.items()})
        if not self.audited and (self.arguments or not self.results):
            raise UsageError(f"no argument has a `time` axis, so nothing can be audited; describe one: {GRAMMAR}")

    results: Mapping[str, Result] = field(init=False, repr=False)

    @property
    def audited(self) -> dict[str, Argument]:
        return {n: v for n, v in self.arguments.items() if isinstance(v, Argument) and v.audited}

    def __str__(self) -> str:
        said = [f"{n}: {v if isinstance(v, Argument) else 'as given'}" for n, v in self.arguments.items()]
        return ", ".join(said)


def declared(arguments: tuple[str, ...], outputs: tuple[str, ...]) -> Inputs | None:
    """The inputs out of texts `NAME=DESCRIPTION`, of a command line; `None` without any.

    Raises:
        UsageError: as `Inputs`, or a text has no name.
    """
    if not arguments and not outputs:
        return None
    return Inputs(_named(arguments, "--input"), _named(outputs, "--output"))


def _named(texts: tuple[str, ...], option: str) -> dict[str, str]:
    pairs = [text.partition("=") for text in texts]
    for name, _, description in pairs:
        if not description or "[" in name:
            raise UsageError(f"{option} {name}: NAME=DESCRIPTION is needed, as in {option} 'x=float[batch, time, 80]'")
    return {name.strip(): description.strip() for name, _, description in pairs}


def argument(name: str, text: str) -> Argument:
    """Raises UsageError where the text does not say what an argument is."""
    match = _ARGUMENT.fullmatch(text.strip())
    if match is None:
        raise UsageError(f"{name}={text}: not a description of a tensor; known are {GRAMMAR}")
    kind, axes, below = match.groups()
    parsed: list[Axis] = []
    fixed = None
    for axis in filter(None, (part.strip() for part in axes.split(","))):
        time = _TIME.fullmatch(axis)
        if time and not time["by"] and not time["more"]:
            parsed.append(TIME)
            fixed = int(time["fixed"]) if time["fixed"] else None
        elif axis == BATCH or axis.isdecimal():
            parsed.append(axis if axis == BATCH else int(axis))
        else:
            raise UsageError(f"{name}={text}: the axis {axis!r} is none of batch, time, time=16 or a size")
    if any(parsed.count(axis) > 1 for axis in (BATCH, TIME)):
        raise UsageError(f"{name}={text}: batch and time may each be there once")
    if kind == "int" and not below:
        raise UsageError(f"{name}={text}: how many values there are is missing, as in {text} < 1000")
    return Argument(kind, tuple(parsed), int(below) if below else None, fixed)


def result(name: str, text: str) -> Result:
    """Raises UsageError where the text does not say what an output is."""
    match = _RESULT.fullmatch(text.strip())
    axes = [part.strip() for part in match[1].split(",")] if match else []
    times = [(i, _TIME.fullmatch(axis)) for i, axis in enumerate(axes)]
    found = [(i, time) for i, time in times if time and not time["fixed"]]
    if len(found) != 1 or axes.count(BATCH) > 1:
        raise UsageError(
            f"{name}={text}: not a description of an output; one is [batch, time, 80], [batch, 40, time/2]"
        )
    (axis, time), rate = found[0], Fraction(1)
    if time["by"]:
        rate = Fraction(int(time["rate"])) if time["by"] == "*" else Fraction(1, int(time["rate"]))
    return Result(
        batch=axes.index(BATCH) if BATCH in axes else None,
        time=axis,
        rate=rate,
        offset=int((time["more"] or "0").replace(" ", "")),
    )
