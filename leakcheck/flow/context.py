"""What a rule may ask for besides its operands, and how it may change the program's course."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from leakcheck.flow.reports import Reports


@dataclass(frozen=True)
class Instead:
    """What a rule returns to have the program go on with another result than the op's own.

    `sized`: whether tokens still decide how large it is.
    """

    result: Any
    labels: Any
    sized: bool = False


@dataclass(frozen=True)
class Context:
    """For rules that need more than their operands: they take it as `context`."""

    result: Any  # what the op returned
    reports: Reports
    name: str
    computed: Callable[[], Tensor]

    @property
    def values(self) -> Tensor:
        """Of an elementwise op the values of its result, or of stand-ins (`absent.py`), which broadcast to its shape.

        They count where the operands' labels say that these are known.
        """
        return self.computed()


def tensors_of(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from tensors_of(item)
