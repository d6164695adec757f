"""Correct models that are easily taken for leaking ones, by family; each module registers its own."""

from leakcheck.zoo.controls import attention, isolation

__all__ = ["attention", "isolation"]
