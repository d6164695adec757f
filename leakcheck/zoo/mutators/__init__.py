"""Ways to plant a leak in any model; each module registers its own."""

from leakcheck.zoo.mutators import (
    modules,
    ops,
)

__all__ = [
    "modules",
    "ops",
]
