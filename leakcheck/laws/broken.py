"""What a law says that does not hold: a counterexample; or why there is nothing to say."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

_LAYER = re.compile(r"(?<=\.)\d+(?=\.|$)")


@dataclass(frozen=True)
class Counterexample:
    """What broke a law: concrete inputs, and the output that is not what it has to be.

    `inputs` are the law's arguments by name, tensors as lists. Output `position` of row `row` differs by `delta` in
    float64; `rounding` is the largest difference there that rounding explains. `module` is the first one, in the order
    in which they return, whose output differs already; empty if only the logits do.
    """

    law: str
    claim: str  # what should have been the same, in words
    inputs: Mapping[str, Any]
    row: int
    position: int
    delta: float
    rounding: float
    module: str

    @property
    def layer(self) -> int | None:
        """The layer that the module's name speaks of."""
        index = _LAYER.search(self.module)
        return int(index.group()) if index else None

    def __str__(self) -> str:
        layer = "" if self.layer is None else f" (layer {self.layer})"
        width = max((len(name) for name in self.inputs), default=0)
        places = f"  position {self.position} of row {self.row} differs by {self.delta:.3g}"
        lines = [
            f"{self.law}: {self.claim}",
            f"{places} (rounding: below {self.rounding:.1g}), first in {self.module or 'the logits'}{layer}",
            *(f"  {name:{width}} = {value}" for name, value in self.inputs.items()),
        ]
        return "\n".join(lines)


class Broken(AssertionError):
    """A law does not hold."""

    def __init__(self, counterexample: Counterexample):
        super().__init__(str(counterexample))
        self.counterexample = counterexample


class NotApplicable(Exception):
    """The law says nothing of this model: it has no cache, takes no mask, does not run in float64."""


class Vacuous(NotApplicable):
    """The law says nothing of these inputs; of others it may."""
