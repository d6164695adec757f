"""The registry of op rules: one decorator, one dictionary, an error on a duplicate.

A rule is a function of an op's functional arguments with an `Operand` in place of each tensor, and returns the labels
of each output: `Labels`, or a tuple of them. In-place, out= and functional variants of an op share one rule, and the
engine writes where the schema says.
"""

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any


class Tier(StrEnum):
    """How much a rule promises.

    EXACT: no label is missing, and none is claimed that brute force does not show on generic values. COARSE: none is
    missing. A rule that mixes positions in a way that can cancel (an FFT) returns HOLE labels where it does.
    """

    EXACT = "exact"
    COARSE = "coarse"


@dataclass(frozen=True)
class Rule:
    """`rowwise` rules are given owners and deal with them; `soft` rules are given soft labels."""

    ops: tuple[str, ...]
    function: Callable[..., Any]
    tier: Tier
    rowwise: bool
    soft: bool
    context: bool  # whether the function takes `context`

    @property
    def family(self) -> str:
        return self.function.__module__.rpartition(".")[2]


RULES: dict[str, Rule] = {}


def rule(
    *ops: str, tier: Tier = Tier.EXACT, rowwise: bool = False, soft: bool = False
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Register a rule for ops named as in their schema: `aten::mm`, or `aten::max.dim` for one overload alone.

    Raises:
        ValueError: an op already has a rule.
    """

    def register(function: Callable[..., Any]) -> Callable[..., Any]:
        made = Rule(ops, function, tier, rowwise, soft, "context" in inspect.signature(function).parameters)
        for op in ops:
            if op in RULES:
                raise ValueError(f"op {op} has two rules: {RULES[op].function.__name__} and {function.__name__}")
            RULES[op] = made
        return function

    return register


def rule_for(schema_name: str, overload: str) -> Rule | None:
    """The rule of an op: of its overload, of its name, of the op that it is the in-place or out= variant of."""
    for name in _names(schema_name):
        for key in (f"{name}.{overload}", f"{name}.{overload.removesuffix('_out')}", name):
            if key in RULES:
                return RULES[key]
    return None


def _names(schema_name: str) -> tuple[str, ...]:
    if schema_name.endswith("_") and not schema_name.endswith("__"):
        return schema_name, schema_name[:-1]
    return (schema_name,)
