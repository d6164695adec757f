"""Correct models that are easily taken for leaking ones, by family; each module registers its own."""

<<<<<<< HEAD
from leakcheck.zoo.controls import attention, contracts, convolution, isolation, norms, positions, recurrence, routing

__all__ = ["attention", "contracts", "convolution", "isolation", "norms", "positions", "recurrence", "routing"]
=======
from leakcheck.zoo.controls import attention, contracts, convolution, library, norms, positions, recurrence, routing

__all__ = ["attention", "contracts", "convolution", "library", "norms", "positions", "recurrence", "routing"]
>>>>>>> b89aa0d287542d99ea9ef85d9cb5b8200229bbd5
