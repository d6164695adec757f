"""Leaks by mechanism; each module registers its own."""

from leakcheck.zoo.leaks import (
    blocks,
    isolation,
    lowrank,
    masks,
    memory,
    quantisation,
    routing,
    sharing,
    spectral,
    targets,
)

__all__ = [
    "blocks",
    "isolation",
    "lowrank",
    "masks",
    "memory",
    "quantisation",
    "routing",
    "sharing",
    "spectral",
    "targets",
]
