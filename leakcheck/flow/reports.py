"""What a trace has to say besides labels: holes, soft masks, and loops that were run at their widest."""

import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType

import torch

CONTROL_FLOW = "token-dependent control flow"
LEAVES = "the value goes on in Python, where no label follows"

_PACKAGE = Path(__file__).parent.parent
_OWN = str(_PACKAGE)  # looks at tensors of the run and hands them over, decides nothing in it
_BUILT_IN = (str(_PACKAGE / "subjects" / "method1_v3"), str(_PACKAGE / "zoo"))  # of this package, and subjects
_BELOW = (str(_PACKAGE / "flow"), str(_PACKAGE / "checkpoints"))  # runs between an op and the user's line
_TORCH = str(Path(torch.__file__).parent)

# Functions that branch on tokens only to warn: they return nothing and write to no tensor. Read before you add one.
_ONLY_WARN = frozenset({("transformers/modeling_utils.py", "PreTrainedModel.warn_if_padding_and_no_attention_mask")})


@dataclass(frozen=True)
class Place:
    """A line of code; `function` is what it stands in."""

    file: str
    line: int
    function: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}"


@dataclass(frozen=True)
class Hole:
    """Where the proof ends. `kind` is "op without a rule", "opaque op" or "token-dependent control flow".

    `carries` says in words what may cross here.
    """

    op: str
    kind: str
    carries: str
    place: Place | None

    def __str__(self) -> str:
        where = f" at {self.place}" if self.place else ""
        return f"{self.kind}: {self.op}{where}: {self.carries}"


@dataclass(frozen=True)
class SoftMask:
    """A finite mask value that blocks only while scores stay above it.

    `value` is the mask value, `margin` by how much the highest blocked score lies below the lowest row maximum (the
    weight that it lets through is at most exp(-margin)). They are NaN where the scores have no values.
    """

    value: float
    margin: float
    place: Place | None


@dataclass
class Reports:
    holes: Counter[Hole] = field(default_factory=Counter)
    soft_masks: dict[Place | None, SoftMask] = field(default_factory=dict)
    widened: dict[Place, dict[torch.Size, torch.Tensor]] = field(default_factory=dict)  # by shape: what can be true
    departed: bool = False  # whether the program went on with another result than an op's own
    natural: bool = False  # whether it must not
    unwritten: dict[Place | None, str] = field(default_factory=dict)  # op that read memory no op wrote
    _unheard: set[str] = field(default_factory=set)

    def hole(self, op: str, kind: str, carries: str) -> None:
        self.hole_at(here(), op, kind, carries)

    def hole_at(self, place: Place | None, op: str, kind: str, carries: str) -> None:
        if op not in self._unheard and not _only_warns(place):
            self.holes[Hole(op, kind, carries, place)] += 1

    @contextmanager
    def unheard(self, op: str) -> Iterator[None]:
        """Leave out holes of one op, where what it reads decides nothing."""
        self._unheard.add(op)
        try:
            yield
        finally:
            self._unheard.discard(op)

    def note_unwritten(self, op: str) -> None:
        self.unwritten.setdefault(here(), op)

    def soft_mask(self, value: float, margin: float) -> None:
        place = here()
        known = self.soft_masks.get(place)
        if known is None or margin < known.margin:
            self.soft_masks[place] = SoftMask(value, margin, place)


def _only_warns(place: Place | None) -> bool:
    if place is None:
        return False
    return any(place.function == function and Path(place.file).match(f"*/{file}") for file, function in _ONLY_WARN)


def is_user_code(frame: FrameType) -> bool:
    file = frame.f_code.co_filename
    return file.startswith(_BUILT_IN) or not file.startswith((_OWN, _TORCH, "<"))


def here() -> Place | None:
    """The innermost line of the subject: outside torch, and called by this package."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and not is_user_code(frame):
        file = frame.f_code.co_filename
        frame = None if file.startswith(_OWN) and not file.startswith(_BELOW) else frame.f_back
    if frame is None:
        return None
    return Place(frame.f_code.co_filename, frame.f_lineno, frame.f_code.co_qualname)
