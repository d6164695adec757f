"""The re-mask's total variation distance against a computation of its own in numpy."""

import numpy as np
import pytest
import torch

from leakcheck.checkpoints import plan_for
from leakcheck.config import Configuration
from leakcheck.lineage.trace import trace
from leakcheck.subjects import running
from tests import models
from tests.models import SEQ, VOCAB


def stored_weights(model, tokens, configuration) -> list[np.ndarray]:
    """The attention weights `[heads, query, key]` of each layer for the first row."""
    stored = []
    hooks = [
        layer.register_forward_hook(lambda module, args, output: stored.append(output[1]["attn_weights"][0].numpy()))
        for layer in model.model.layers
    ]
    with running.configured(model, configuration), torch.no_grad():
        running.forward(model, tokens, configuration)
    for hook in hooks:
        hook.remove()
    return stored


def distances(weights: np.ndarray, valid: np.ndarray) -> np.ndarray:
    """`[heads, query]`: stored weights against their softmax over the keys that a query may see."""
    heads, seq, _ = weights.shape
    found = np.zeros((heads, seq))
    for head in range(heads):
        for query in range(seq):
            seen = [key for key in range(query + 1) if valid[key]]
            if not seen:
                continue
            exponential = np.exp(weights[head, query, seen].astype(np.float64))
            after = np.zeros(seq)
            after[seen] = exponential / exponential.sum()
            found[head, query] = 0.5 * np.abs(after - weights[head, query]).sum()
    return found[:, valid]


@pytest.mark.parametrize("mask", ["none", "left-padded", "right-padded"])
def test_distance_by_hand(mask):
    model = models.method1()
    configuration = Configuration("eager", mask, "eval")
    tokens = torch.randint(VOCAB, (7, SEQ), generator=torch.Generator().manual_seed(0))
    valid = running.valid_positions(configuration, SEQ)
    plan = plan_for(model)
    found = trace(model, plan, configuration, tokens).fidelity

    first, second, _ = (distances(w, valid.numpy()) for w in stored_weights(model, tokens, configuration))
    replays = {0: first, 1: second}  # layer 1 replays layer 0, layer 2 replays both
    assert found.mean == pytest.approx(np.mean([first, first, second]), abs=1e-6)
    assert found.worst == pytest.approx(max(first.max(), second.max()), abs=1e-6)
    row = int(valid.numpy().nonzero()[0].tolist().index(found.position))
    assert replays[found.layer][found.head, row] == pytest.approx(found.worst, abs=1e-6)
    assert 0.1 < found.worst < 1


def test_nothing_to_say_where_the_remask_did_not_act():
    plan_and_model = models.method1(safety_strict_remask=False)
    plan = plan_for(plan_and_model)
    configuration = Configuration("eager", "none", "eval")
    tokens = torch.randint(VOCAB, (7, SEQ), generator=torch.Generator().manual_seed(0))
    assert trace(plan_and_model, plan, configuration, tokens).fidelity is None
