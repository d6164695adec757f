"""The registry: leaks with their clean twins, mutators that plant a leak in any model, controls that do not leak.

Each is one decorated function. Tests and the scoreboard iterate over `LEAKS`, `MUTATORS` and `CONTROLS`.
"""

import inspect
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import partial
from typing import TypeVar

import torch
from torch import nn

from leakcheck.codes import CODES
from leakcheck.config import CAUSAL, Configuration, Contract
from leakcheck.errors import UsageError
from leakcheck.findings import Verdict
from leakcheck.subjects import architectures
from leakcheck.subjects.inputs import Inputs
from leakcheck.subjects.load import prepared
from leakcheck.subjects.subject import Subject
from leakcheck.zoo.parts import LENGTH, Mixer, Model

DETECTORS = ("flow", "perturbation", "gradient")
_SEED = 0
_AS_GIVEN = Configuration("default", "none", "eval")

Make = Callable[[bool], nn.Module]
Maker = TypeVar("Maker", bound=Callable)


class Inapplicable(UsageError):
    """A mutator does not find in the model what it changes."""


@dataclass(frozen=True)
class Leak:
    """A known leak and its clean twin, which is as like it as can be.

    It shows from `shortest` positions on, under `configuration`. `blind` are the detectors that cannot see it. An audit
    gives `verdict`, raises at least `codes`, and names one of `lines` first, unless it is not `blamed` yet.
    `learned_from` is the public issue, paper or file that it was seen in.
    """

    name: str
    mechanism: str
    make: Make = field(repr=False)
    lines: frozenset[tuple[str, int]] = field(repr=False)  # file and line of what is to blame
    learned_from: str
    shortest: int = 2
    configuration: Configuration = _AS_GIVEN
    policy: str = "causal"
    verdict: Verdict = Verdict.LEAK
    codes: tuple[str, ...] = ("LC101",)
    blind: tuple[str, ...] = ()
    blamed: bool = True
    weights: str = "random"  # or "as built"
    inputs: Inputs | None = None

    def build(self, *, leaky: bool) -> nn.Module:
        """The leaking model or its twin; the same one each time."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(_SEED)
            return whole(self.make(leaky))

    def subject(self, *, leaky: bool) -> Subject:
        """Ready to be examined, at a length that shows it."""
        return self.subject_of(self.build(leaky=leaky), max(self.shortest, LENGTH))

    def subject_of(self, model: nn.Module, seq_len: int) -> Subject:
        return prepared(self.name, model, self.weights, seq_len=seq_len, inputs=self.inputs)


@dataclass(frozen=True)
class Mutator:
    """A way to plant a leak in a model that somebody else wrote.

    `plant(model, leaky)` changes the model in place and returns it; without `leaky` it plants the causal counterpart.
    It raises `Inapplicable` where the model has nothing that it could change.
    """

    name: str
    plant: Callable[[nn.Module, bool], nn.Module] = field(repr=False)
    learned_from: str


@dataclass(frozen=True)
class Control:
    """A correct model that is easily taken for a leaking one.

    `proven` says whether flow can prove it; if not, an audit ends OPEN. Its audit covers every configuration.
    """

    name: str
    family: str
    make: Callable[[], nn.Module] = field(repr=False)
    learned_from: str
    proven: bool = True
    contract: Contract = CAUSAL
    policies: tuple[str, ...] = ("causal",)
    seq_len: int = LENGTH
    weights: str = "random"
    inputs: Inputs | None = None

    def subject(self) -> Subject:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(_SEED)
            model = whole(self.make())
        return prepared(self.name, model, self.weights, seq_len=self.seq_len, inputs=self.inputs)


LEAKS: dict[str, Leak] = {}
MUTATORS: dict[str, Mutator] = {}
CONTROLS: dict[str, Control] = {}


def leak(
    *,
    learned_from: str,
    shortest: int = 2,
    mode: str = "eval",
    mask: str = "none",
    attention: str = "default",
    contract: Contract = CAUSAL,
    policy: str = "causal",
    verdict: Verdict = Verdict.LEAK,
    codes: Iterable[str] = ("LC101",),
    blind: Iterable[str] = (),
    blamed: bool = True,
    weights: str = "random",
    inputs: Inputs | None = None,
) -> Callable[[Maker], Maker]:
    """Register `make(leaky) -> model`, or a `Mixer` class, under its name; the line to blame ends in `# leak`.

    Raises:
        ValueError: the name is taken, no line is marked, or a code or a detector is unknown.
    """

    def register(make: Maker) -> Maker:
        _add(
            Leak(
                name=make.__name__,
                mechanism=_room(make),
                make=make,
                lines=marked(make),
                learned_from=learned_from,
                shortest=shortest,
                configuration=Configuration(attention, mask, mode, contract=contract),
                policy=policy,
                verdict=verdict,
                codes=tuple(codes),
                blind=tuple(blind),
                blamed=blamed,
                weights=weights,
                inputs=inputs,
            )
        )
        return make

    return register


def mutator(
    *,
    hosts: Iterable[str],
    learned_from: str,
    shortest: int = 2,
    mode: str = "eval",
    attention: str = "default",
    verdict: Verdict = Verdict.LEAK,
    codes: Iterable[str] = ("LC101",),
    blind: Iterable[str] = (),
    blamed: bool = True,
) -> Callable[[Maker], Maker]:
    """Register `plant(model, leaky) -> model`, and a leak for each of the `hosts`, types of model of transformers.

    Raises:
        ValueError: as `leak`.
    """

    def register(plant: Maker) -> Maker:
        name = plant.__name__
        if name in MUTATORS:
            raise ValueError(f"mutator {name} is registered twice")
        MUTATORS[name] = Mutator(name, plant, learned_from)
        for host in hosts:
            _add(
                Leak(
                    name=f"{name}[{host}]",
                    mechanism=_room(plant),
                    make=partial(_planted, plant, host),
                    lines=marked(plant),
                    learned_from=learned_from,
                    shortest=shortest,
                    configuration=Configuration(attention, "none", mode),
                    verdict=verdict,
                    codes=tuple(codes),
                    blind=tuple(blind),
                    blamed=blamed,
                    weights="as built",  # `architectures.build` has drawn them
                )
            )
        return plant

    return register


def control(
    *,
    learned_from: str,
    proven: bool = True,
    contract: Contract = CAUSAL,
    policies: Iterable[str] = ("causal",),
    seq_len: int = LENGTH,
    weights: str = "random",
    inputs: Inputs | None = None,
) -> Callable[[Maker], Maker]:
    """Register `make() -> model`, or a `Mixer` class whose instances are made without the leak.

    Raises:
        ValueError: the name is taken.
    """

    def register(make: Maker) -> Maker:
        name = make.__name__
        if name in CONTROLS:
            raise ValueError(f"control {name} is registered twice")
        CONTROLS[name] = Control(
            name=name,
            family=_room(make),
            make=make,
            learned_from=learned_from,
            proven=proven,
            contract=contract,
            policies=tuple(policies),
            seq_len=seq_len,
            weights=weights,
            inputs=inputs,
        )
        return make

    return register


def marked(make: Callable, word: str = "leak") -> frozenset[tuple[str, int]]:
    """File and number of the lines of a function or class that end in a comment of this word."""
    lines, first = inspect.getsourcelines(make)
    file = inspect.getfile(make)
    return frozenset((file, n) for n, line in enumerate(lines, first) if line.rstrip().endswith(f"# {word}"))


def whole(made: nn.Module) -> nn.Module:
    """A mixer inside a small language model; a model as it is."""
    return Model(made) if isinstance(made, Mixer) else made


def _planted(plant: Callable[[nn.Module, bool], nn.Module], host: str, leaky: bool) -> nn.Module:
    return plant(architectures.build(host), leaky)


def _room(make: Callable) -> str:
    return make.__module__.rpartition(".")[2]


def _add(found: Leak) -> None:
    if found.name in LEAKS:
        raise ValueError(f"leak {found.name} is registered twice")
    if not found.lines:
        raise ValueError(f"leak {found.name}: no line ends in `# leak`")
    unknown = [*(set(found.codes) - set(CODES)), *(set(found.blind) - set(DETECTORS))]
    if unknown:
        raise ValueError(f"leak {found.name}: {unknown[0]} is no finding code and no detector")
    LEAKS[found.name] = found
