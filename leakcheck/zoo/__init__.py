"""Known leaks with their clean twins, ways to plant one in any model, and correct models that look like leaks."""

from leakcheck.zoo import controls, leaks, mutators
from leakcheck.zoo.registry import CONTROLS, LEAKS, MUTATORS, Control, Inapplicable, Leak, Mutator

__all__ = ["CONTROLS", "LEAKS", "MUTATORS", "Control", "Inapplicable", "Leak", "Mutator"]
del controls, leaks, mutators
