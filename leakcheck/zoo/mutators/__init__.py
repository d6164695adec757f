"""Ways to plant a leak in any model; each module registers its own."""

from leakcheck.zoo.mutators import (
    arguments,
    modules,
    ops,
)

__all__ = [
    "arguments",
    "modules",
    "ops",
]
