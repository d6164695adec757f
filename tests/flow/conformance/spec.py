"""The words that `samples.py` is written in: tensors to be, and calls of ops with them."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from leakcheck.flow.registry import RULES
from tests.flow.conformance.oracle import Draw


@dataclass(frozen=True)
class Spec:
    """A tensor argument to be drawn. `role`: what its labels are; "varied" ones get all patterns of `cases.py`.

    `zero`: whether 0 is a value that the op takes here. `blocks`: whether blocking values are.
    """

    shape: tuple[int, ...]
    draw: Draw
    role: str = "varied"
    zero: bool = True
    blocks: bool = True

    @property
    def generic(self) -> "Spec":
        return replace(self, role="generic")

    @property
    def known(self) -> "Spec":
        return replace(self, role="known")


@dataclass(frozen=True)
class Sample:
    """One way to call an op, named as in its schema: `aten::mm`, or `aten::add.Tensor` for an overload.

    `reference` computes what the op does, for ops that the CPU cannot run. `program` calls the op in passing. `random`:
    the op draws numbers by itself. `blocking`: the values that blocked elements have. `exact`: whether claims above the
    truth count.
    """

    op: str
    args: tuple
    kwargs: dict[str, Any]
    reference: Callable[..., Any] | None = None
    program: Callable[..., Any] | None = None
    random: bool = False
    blocking: tuple[float, ...] = (-1e30,)
    exact: bool = True

    @property
    def overload(self) -> Any:
        name, _, overload = self.op.partition(".")
        namespace, _, base = name.partition("::")
        return getattr(getattr(getattr(torch.ops, namespace), base), overload or "default")

    @property
    def function(self) -> Callable[..., Any]:
        return self.reference or self.program or self.overload

    @property
    def mutates(self) -> bool:
        """Whether the op itself, not a variant, writes an argument."""
        return self.program is None and self.reference is None and self.overload._schema.is_mutable

    @property
    def tags(self) -> list[torch.Tag]:
        return [] if self.program else self.overload.tags

    @property
    def key(self) -> str:
        """The entry of the registry that it is a sample of."""
        return self.op if self.op in RULES else self.op.partition(".")[0]

    def specs(self) -> list[Spec]:
        return [leaf for leaf in leaves((self.args, self.kwargs)) if isinstance(leaf, Spec)]

    def __str__(self) -> str:
        shown = [_shown(value) for value in self.args] + [
            f"{name}={_shown(value)}" for name, value in self.kwargs.items()
        ]
        return f"{self.op}({', '.join(shown)})"


def sample(op: str, *args: Any, **kwargs: Any) -> Sample:
    return Sample(op, args, kwargs)


def program(op: str, function: Callable[..., Any], *args: Any) -> Sample:
    return Sample(op, args, {}, program=function)


def random(*samples: Sample) -> list[Sample]:
    return [replace(each, random=True) for each in samples]


def sound(one: Sample) -> Sample:
    """Claims above the truth do not count: known zeros, rounding, or a fixed number of results hide what moves."""
    return replace(one, exact=False)


def leaves(value: Any) -> Iterator[Any]:
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, (list, tuple)):
        for item in value:
            yield from leaves(item)
    else:
        yield value


def fill(value: Any, leaf: Callable[[Any], Any]) -> Any:
    """The same structure with each leaf replaced."""
    if isinstance(value, dict):
        return {name: fill(item, leaf) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(fill(item, leaf) for item in value)
    return leaf(value)


def _shown(value: Any) -> str:
    if isinstance(value, Spec):
        return f"{value.role}{list(value.shape)}"
    if isinstance(value, Tensor):
        return f"{str(value.dtype).removeprefix('torch.')}{list(value.shape)}"
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(_shown(item) for item in value)}]"
    return str(value)


def _normal(generator: torch.Generator, shape: Sequence[int]) -> Tensor:
    return torch.randn(shape, generator=generator, dtype=torch.float64)


def _between(low: float, high: float) -> Draw:
    def draw(generator: torch.Generator, shape: Sequence[int]) -> Tensor:
        return low + (high - low) * torch.rand(shape, generator=generator, dtype=torch.float64)

    return draw


def _away_from_zero(generator: torch.Generator, shape: Sequence[int]) -> Tensor:
    signs = torch.randint(0, 2, shape, generator=generator) * 2 - 1
    return signs * _between(0.5, 2)(generator, shape)


def _integers(low: int, high: int, dtype: torch.dtype = torch.int64) -> Draw:
    def draw(generator: torch.Generator, shape: Sequence[int]) -> Tensor:
        return torch.randint(low, high, shape, generator=generator).to(dtype)

    return draw


def _complex(generator: torch.Generator, shape: Sequence[int]) -> Tensor:
    return torch.complex(_normal(generator, shape), _normal(generator, shape))


def x(*shape: int) -> Spec:
    """Float64, normal."""
    return Spec(shape, _normal)


def finite(*shape: int) -> Spec:
    """As `x`, but never a mask: what blocks does so among moderate values."""
    return Spec(shape, _normal, blocks=False)


def positive(*shape: int) -> Spec:
    return Spec(shape, _between(0.5, 2), zero=False, blocks=False)


def negative(*shape: int) -> Spec:
    return Spec(shape, _between(-2, -0.5), zero=False, blocks=False)


def divisor(*shape: int) -> Spec:
    return Spec(shape, _away_from_zero, zero=False)


def unit(*shape: int) -> Spec:
    """Between 0 and 1."""
    return Spec(shape, _between(0.05, 0.95), blocks=False)


def cx(*shape: int) -> Spec:
    """Complex."""
    return Spec(shape, _complex)


def flags(*shape: int) -> Spec:
    """Boolean."""
    return Spec(shape, _integers(0, 2, torch.bool))


def ints(*shape: int, low: int = 0, high: int, dtype: torch.dtype = torch.int64) -> Spec:
    """Integers from low to high - 1: indices."""
    return Spec(shape, _integers(low, high, dtype), zero=low <= 0)


def permutation(n: int) -> Spec:
    """Known: each row once."""
    return Spec((n,), lambda generator, shape: torch.randperm(n, generator=generator), role="known")
