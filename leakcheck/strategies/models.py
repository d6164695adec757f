"""Small models of every architecture of the library, and the same with a leak planted."""

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from hypothesis import assume
from hypothesis import strategies as st
from torch import nn

from leakcheck.laws import twin
from leakcheck.subjects import architectures
from leakcheck.subjects.load import quiet
from leakcheck.subjects.shrink import variations
from leakcheck.zoo import MUTATORS, Inapplicable, Mutator


@dataclass(frozen=True)
class Small:
    """A small model of a type of the library: `fields` of its configuration other than `architectures.build` has."""

    model_type: str
    fields: tuple[tuple[str, int], ...]
    seed: int

    def build(self) -> nn.Module:
        """In eval mode, with weights so that every path carries signal; the same at each call."""
        with quiet():
            return architectures.build(self.model_type, self.seed, **dict(self.fields))


@dataclass(frozen=True)
class Mutant:
    """A small model and the leak to plant in it."""

    host: Small
    mutator: str

    def build(self, *, leaky: bool) -> nn.Module:
        """The model with the leak, or with its causal counterpart."""
        return MUTATORS[self.mutator].plant(self.host.build(), leaky)


@st.composite
def configurations(draw: st.DrawFn, *, names: Sequence[str] | None = None, seeds: int = 100) -> Small:
    """Small configurations of registered architectures, by default of all: layers, heads, experts, windows vary.

    What an architecture refuses is left out, and so is one that cannot be built or run.
    """
    model_type = draw(st.sampled_from(names or architectures.names()), label="architecture")
    sizes = _sizes(model_type)
    fields = {name: draw(st.sampled_from(sizes[name]), label=name) for name in sizes}
    heads = min((size for name, size in fields.items() if "head" in name and not _shared(name)), default=4)
    fields = {name: min(size, heads) if _shared(name) else size for name, size in fields.items()}
    small = Small(model_type, tuple(fields.items()), draw(st.integers(0, seeds - 1), label="seed of the weights"))
    assume(_runs(model_type, small.fields))
    return small


def mutators(*, names: Sequence[str] | None = None) -> st.SearchStrategy[Mutator]:
    """Ways to plant a leak, of `leakcheck.zoo.MUTATORS`."""
    return st.sampled_from(names or sorted(MUTATORS)).map(MUTATORS.__getitem__)


@st.composite
def mutants(
    draw: st.DrawFn,
    *,
    hosts: st.SearchStrategy[Small] | None = None,
    planted: st.SearchStrategy[Mutator] | None = None,
) -> Mutant:
    """Small models with a leak to plant in them, where the mutator finds what it changes."""
    host = draw(configurations() if hosts is None else hosts)
    mutant = Mutant(host, draw(mutators() if planted is None else planted).name)
    try:
        mutant.build(leaky=True)
    except Inapplicable:
        assume(False)
    return mutant


def _shared(name: str) -> bool:
    return "key_value" in name or "kv" in name or name == "num_query_groups"


@functools.cache
def _sizes(model_type: str) -> dict[str, tuple[int, ...]]:
    try:
        with quiet():
            return variations(architectures.configuration(model_type))
    except Exception:  # whatever the configuration raises; `_runs` leaves it out
        return {}


@functools.cache
def _runs(model_type: str, fields: tuple[tuple[str, Any], ...]) -> bool:
    try:
        twin(Small(model_type, fields, 0).build()).double(torch.zeros(1, 3, dtype=torch.long))
    except Exception:  # whatever the library raises of a combination that it does not take
        return False
    return True
