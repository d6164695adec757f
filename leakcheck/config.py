"""What a run is asked to do: plain data, no torch."""

from dataclasses import dataclass, replace
from typing import Any

from leakcheck.errors import UsageError

MASKS = ("none", "ones", "left-padded", "right-padded")
MODES = ("eval", "train", "train+checkpointing")


@dataclass(frozen=True)
class Contract:
    """Which inputs an output may see: by default those up to its own position.

    `lookahead` more after it; the first `prefix`, wherever it stands; with a `window`, no more than that many, its own
    among them. `bidirectional`: it must see beyond its own position, wherever there is something to see.
    """

    lookahead: int = 0
    prefix: int = 0
    window: int | None = None
    bidirectional: bool = False

    def latest(self, seq: int) -> list[int]:
        """For each of `seq` positions the last one that it may see."""
        return [min(seq - 1, max(t + self.lookahead, self.prefix - 1)) for t in range(seq)]

    def earliest(self, seq: int) -> list[int]:
        """For each of `seq` positions the first one that it may see; what is in the prefix may be seen by all."""
        return [0 if self.window is None else max(0, t - self.window + 1) for t in range(seq)]

    @property
    def shortest(self) -> int:
        """A length at which there is something that may not be seen, at several positions."""
        return max(2 * self.lookahead + 3, self.prefix + 6, 2 * self.window + 1 if self.window else 0)

    def pairs(self, seq: int) -> int:
        """How many pairs of a position and an input that it may not see there are."""
        return sum(seq - 1 - last for last in self.latest(seq)) + sum(self.earliest(seq))

    def __str__(self) -> str:
        said = [
            f"lookahead:{self.lookahead}" if self.lookahead else "",
            f"prefix:{self.prefix}" if self.prefix else "",
            f"window:{self.window}" if self.window is not None else "",
            "bidirectional" if self.bidirectional else "",
        ]
        return "+".join(filter(None, said)) or "causal"


def parse_contract(texts: tuple[str, ...]) -> Contract:
    """The contract that several texts make together: `lookahead:3`, `prefix:4`, `window:16`, `bidirectional`.

    Raises:
        UsageError: a text is none of these, or they exclude each other.
    """
    made = Contract()
    for text in texts:
        name, _, number = text.partition(":")
        if name in ("causal", "bidirectional") and not number:
            made = replace(made, bidirectional=name == "bidirectional")
        elif name in ("lookahead", "prefix", "window") and number.isdecimal() and int(number) > 0:
            number_of: dict[str, Any] = {name: int(number)}
            made = replace(made, **number_of)
        else:
            raise UsageError(f"--contract {text}: known are causal, lookahead:N, prefix:N, window:N and bidirectional")
    if made.bidirectional and made != Contract(bidirectional=True):
        raise UsageError("--contract bidirectional: it excludes the others, which bound what may be seen")
    if made.prefix and made.window is not None:
        raise UsageError("--contract prefix and window: a prefix that all may see has no window; audit one at a time")
    return made


CAUSAL = Contract()


@dataclass(frozen=True)
class Configuration:
    """One cell of the audited matrix."""

    attention: str  # a transformers attention backend, or "default" for a model that has none to choose
    mask: str  # one of MASKS
    mode: str  # one of MODES
    cache: str = "none"
    contract: Contract = CAUSAL
    accepted: tuple[str, ...] = ()  # modules whose coupling of the batch is accepted: they stay in eval mode

    @property
    def id(self) -> str:
        return f"{self.attention}/{self.mask}/{self.mode}"


@dataclass(frozen=True)
class Settings:
    """Options of one run. `None` means: derived from the subject."""

    attention: tuple[str, ...] | None = None
    seq_len: int | None = None
    seed: int = 0
    strict: bool = False
    policies: tuple[str, ...] = (str(CAUSAL),)  # "causal" stands for the contract; "all" for every policy there is
    contract: Contract = CAUSAL
    accept_batch: tuple[str, ...] = ()  # names or classes of modules, see `Configuration.accepted`
    inputs: tuple[str, ...] = ()  # NAME=DESCRIPTION, see `subjects.inputs`
    outputs: tuple[str, ...] = ()
    no_weights: bool = False
    trust_remote_code: bool = False


@dataclass(frozen=True)
class Limits:
    """What a run may take. `None` means: as much as there is."""

    timeout: float | None = None  # seconds
    memory: int | None = None  # bytes
