"""Leaks by mechanism; each module registers its own."""

from leakcheck.zoo.leaks import masks

__all__ = ["masks"]
