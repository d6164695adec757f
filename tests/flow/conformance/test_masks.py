"""What a mask blocks stays blocked on its way to the softmax: each position sees itself and what is before it."""

import pytest
import torch

from leakcheck.flow import trace
from leakcheck.flow.engine import Flow
from tests.flow.conformance.samples_programs import (
    KEEP,
    LOWEST,
    MASKS,
    additive,
    by_hand,
    by_logs,
    by_max_and_indices,
    masked,
)  # fmt: skip


def seen(attention, length=3):
    """The horizon of each position of `attention(x, x, x)`, and the soft masks on the way."""
    x = torch.randn(1, length, 2, dtype=torch.float64)
    found = trace(lambda inputs_embeds: attention(*(3 * (inputs_embeds[0],)))[None], {"inputs_embeds": x})
    assert not found.holes
    return found.horizon[0].tolist(), found.soft_masks


@pytest.fixture(autouse=True)
def _strict(monkeypatch):
    monkeypatch.setattr(Flow, "strict", True)


@pytest.mark.parametrize("normalise", [None, by_hand, by_max_and_indices, by_logs])
@pytest.mark.parametrize("mask", MASKS)
def test_blocked(mask, normalise):
    assert seen(masked(mask, normalise))[0] == [0, 1, 2]


@pytest.mark.parametrize("normalise", [None, by_hand])
def test_rows_without_a_live_score_see_everything(normalise):
    assert seen(masked(lambda s: s + torch.full((3, 3), -1e9, dtype=s.dtype), normalise))[0] == [2, 2, 2]
    assert seen(masked(lambda s: s.masked_fill(torch.ones(3, 3, dtype=torch.bool), LOWEST), normalise))[0] == [2, 2, 2]


def test_a_small_constant_is_no_mask():
    assert seen(masked(lambda s: s + additive(-50.0)))[0] == [2, 2, 2]
    assert seen(masked(lambda s: (s + additive(-1e4)) * 1e-4))[0] == [2, 2, 2]
    assert seen(masked(lambda s: (s + additive(-1e9)) * -1.0))[0] == [2, 2, 2]
    assert seen(masked(lambda s: s + additive(-1e9) - additive(-1e9)))[0] == [2, 2, 2]
    assert seen(masked(lambda s: s + additive(-1e9) + (~KEEP) * 1e9))[0] == [2, 2, 2]


@pytest.mark.parametrize("normalise", [None, by_hand])
def test_soft_masks_are_reported_with_value_and_margin(normalise):
    _, soft = seen(masked(lambda s: s + additive(-1e4), normalise))
    assert len(soft) == 1
    assert soft[0].value == pytest.approx(-1e4, abs=50)
    assert soft[0].margin == pytest.approx(1e4, abs=100)
    assert not seen(masked(lambda s: s + additive(LOWEST), normalise))[1]


def test_fused_attention_reports_the_margin_too():
    def fused(q, k, v):
        return torch.nn.functional.scaled_dot_product_attention(q[None], k[None], v[None], attn_mask=additive(-1e4))[0]

    horizon, soft = seen(fused)
    assert horizon == [0, 1, 2]
    assert [mask.value for mask in soft] == pytest.approx([-1e4], abs=50)
    assert soft[0].margin == pytest.approx(1e4, abs=100)


def test_a_mask_made_of_tokens_hides_no_more_than_it_must():
    """Padding that the tokens decide, on top of the causal mask: row t depends on tokens up to t."""

    def attention(q, k, v):
        hidden = (k[:, 0] > 0) & ~torch.eye(3, dtype=torch.bool)
        return (q @ k.mT).masked_fill(hidden | ~KEEP, -1e9).softmax(-1) @ v

    assert seen(attention)[0] == [0, 1, 2]
