"""Leaks by mechanism; each module registers its own."""

from leakcheck.zoo.leaks import isolation, masks

__all__ = ["isolation", "masks"]
