"""What a run is asked to do: plain data, no torch."""

from dataclasses import dataclass

MASKS = ("none", "ones", "left-padded", "right-padded")
MODES = ("eval", "train", "train+checkpointing")


@dataclass(frozen=True)
class Configuration:
    """One cell of the audited matrix."""

    attention: str  # a transformers attention backend, or "default" for a model that has none to choose
    mask: str  # one of MASKS
    mode: str  # one of MODES
    cache: str = "none"

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
    no_weights: bool = False
