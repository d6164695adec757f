"""Correct models that are easily taken for leaking ones, by family; each module registers its own."""

from leakcheck.zoo.controls import attention

__all__ = ["attention"]
