"""The law of flow: what its labels call unreachable never moves."""

import torch
from torch import Tensor

from leakcheck.flow import trace
from leakcheck.laws.broken import NotApplicable, Vacuous
from leakcheck.laws.compare import expect_same, forward, of_mask
from leakcheck.laws.registry import law
from leakcheck.laws.twin import twin


@law
def flow_is_sound(model: object, tokens: Tensor, changed: Tensor) -> None:
    """No output moves with an input that is later than the horizon which `flow.trace` gives the output.

    Each token of `tokens` `[1, seq]` that differs in `changed` is changed by itself.

    Cost: a traced forward, and two of one row for each token that is changed.

    Raises:
        Broken: one does.
        NotApplicable: flow admits that every output reads every input.
        Vacuous: nothing is changed that some output cannot reach.
    """
    both = twin(model)
    traced = trace(both.original, tokens)
    places = torch.arange(tokens.shape[1])
    blind = traced.covered[0] & (traced.horizon[0] < places[:, None])  # [input, output]
    if not blind.any():
        raise NotApplicable(f"flow claims nothing of {both.name}: every output may read every input")
    sources = [int(s) for s in (tokens != changed)[0].nonzero() if blind[s].any()]
    if not sources:
        raise Vacuous("every output may read the tokens that are changed")
    for source in sources:
        other = tokens.clone()
        other[0, source] = changed[0, source]
        one = of_mask(forward(tokens), blind[source][None])
        two = of_mask(forward(other), blind[source][None])
        claim = f"flow says that nothing here reads position {source}"
        inputs = {"tokens": tokens.tolist(), "changed": other.tolist()}
        expect_same("flow_is_sound", both, one, two, claim, inputs)
