"""Correct models that are easily taken for leaking ones, by family; each module registers its own."""

from leakcheck.zoo.controls import (
    attention,
    contracts,
    convolution,
    isolation,
    library,
    norms,
    positions,
    recurrence,
    routing,
)

__all__ = [
    "attention",
    "contracts",
    "convolution",
    "isolation",
    "library",
    "norms",
    "positions",
    "recurrence",
    "routing",
]
