"""Laws that a causal model keeps, as plain functions of a model and concrete inputs.

    laws.causal(model, tokens, changed)     # raises Broken, with the counterexample, or returns

Brute force: the model is run in float64 on both inputs, and the outputs are compared. Nothing of the probes' measuring
or of flow's labels is used, so a law can refute both.
"""

from leakcheck.laws.broken import Broken, Counterexample, NotApplicable, Vacuous
from leakcheck.laws.decoding import Append, Crop, Decoding, Reorder, Reset, Step, cache_consistent, chunks
from leakcheck.laws.future import causal, prefix_consistent, repeatable
from leakcheck.laws.registry import LAWS
from leakcheck.laws.rows import (
    SIDES,
    batch_independent,
    documents_independent,
    padding_invariant,
    padding_unseen,
    separates_documents,
)
from leakcheck.laws.soundness import flow_is_sound
from leakcheck.laws.twin import Twin, twin

__all__ = [
    "LAWS",
    "SIDES",
    "Append",
    "Broken",
    "Counterexample",
    "Crop",
    "Decoding",
    "NotApplicable",
    "Reorder",
    "Reset",
    "Step",
    "Twin",
    "Vacuous",
    "batch_independent",
    "cache_consistent",
    "causal",
    "chunks",
    "documents_independent",
    "flow_is_sound",
    "padding_invariant",
    "padding_unseen",
    "prefix_consistent",
    "repeatable",
    "separates_documents",
    "twin",
]
