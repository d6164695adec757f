"""Hypothesis strategies for laws: inputs, small models, leaks to plant in them, and a machine that decodes.

    @given(strategies.arguments("causal", vocab_size=100))
    def test_my_model(arguments):
        laws.causal(model, **arguments)

They describe valid values, and shrink to the shortest sequence and the smallest change.
"""

from leakcheck.strategies.arguments import arguments
from leakcheck.strategies.inputs import chunkings, cuts, packings, paddings, parts, replacements, tokens
from leakcheck.strategies.machine import decoding
from leakcheck.strategies.models import Mutant, Small, configurations, mutants, mutators

__all__ = [
    "Mutant",
    "Small",
    "arguments",
    "chunkings",
    "configurations",
    "cuts",
    "decoding",
    "mutants",
    "mutators",
    "packings",
    "paddings",
    "parts",
    "replacements",
    "tokens",
]
