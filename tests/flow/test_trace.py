"""The public verb: what it accepts, what it follows, and that it leaves nothing behind."""

import pytest
import torch
from torch import nn
from torch.nn.attention.flex_attention import create_block_mask, flex_attention

from leakcheck.errors import UsageError
from leakcheck.flow import trace
from leakcheck.flow.engine import Flow

SEQ, VOCAB, WIDTH = 7, 11, 8


@pytest.fixture(autouse=True)
def strict(monkeypatch):
    monkeypatch.setattr(Flow, "strict", True)


@pytest.fixture
def tokens():
    return torch.randint(0, VOCAB, (2, SEQ), generator=torch.Generator().manual_seed(0))


class Attention(nn.Module):
    """One layer; `attend(q)` is what a test is about."""

    def __init__(self, attend):
        super().__init__()
        self.embedding = nn.Embedding(VOCAB, WIDTH)
        self.query = nn.Linear(WIDTH, WIDTH)
        self.attend = attend

    def forward(self, tokens):
        x = self.embedding(tokens)  # [batch, seq, features]
        return x + self.attend(self.query(x))


def causal_attend(x):
    scores = x @ x.mT  # [batch, query, key]
    return (scores + torch.full(scores.shape[1:], -torch.inf).triu(1)).softmax(-1) @ x


def own(tokens):
    return torch.arange(tokens.shape[1]).expand(tokens.shape)


def test_horizon_of_a_causal_model_is_each_position(tokens):
    traced = trace(Attention(causal_attend), tokens)
    assert torch.equal(traced.horizon, own(tokens))
    assert traced.proven
    assert traced.ops > 0


def test_horizon_without_a_mask_is_the_last_position(tokens):
    traced = trace(Attention(lambda x: (x @ x.mT).softmax(-1) @ x), tokens)
    assert bool((traced.horizon == SEQ - 1).all())
    assert not traced.proven
    assert {(v.batch, v.position) for v in traced.violations} == {(b, t) for b in range(2) for t in range(SEQ - 1)}
    assert {v.source for v in traced.violations} == {SEQ - 1}


def test_output_that_reads_no_input(tokens):
    traced = trace(lambda ids: torch.ones(*ids.shape, 3), tokens)
    assert bool((traced.horizon == -1).all())


def test_padded_positions_may_see_anything(tokens):
    valid = torch.ones(SEQ, dtype=torch.bool)
    valid[:2] = False
    model = Attention(lambda x: torch.cat([x.sum(1, keepdim=True).expand(-1, 2, -1), x[:, 2:]], 1))
    assert {v.position for v in trace(model, tokens).violations} == {0, 1}
    assert trace(model, tokens, valid=valid).proven


def test_other_labels_ask_other_questions(tokens):
    rows = torch.arange(2).unsqueeze(1).expand(tokens.shape)
    assert trace(Attention(causal_attend), tokens, labels=rows).proven
    across = trace(Attention(lambda x: x.mean(0, keepdim=True)), tokens, labels=rows)
    assert {v.batch for v in across.violations} == {0}  # the first row sees a later one; reversed labels see the other


def test_keyword_arguments(tokens):
    class Masked(Attention):
        def forward(self, input_ids, attention_mask):
            scores = (x := self.embedding(input_ids)) @ x.mT
            return scores.masked_fill(~attention_mask, -torch.inf).softmax(-1) @ x

    mask = torch.ones(SEQ, SEQ, dtype=torch.bool).tril()
    assert trace(Masked(None), {"input_ids": tokens, "attention_mask": mask}).proven
    assert trace(Masked(None), {"input_ids": tokens, "attention_mask": mask.mT}).violations


@pytest.mark.parametrize("inputs", [torch.zeros(3), {"attention_mask": torch.ones(1, 3)}, {"input_ids": None}])
def test_inputs_that_cannot_be_labelled(inputs):
    with pytest.raises(UsageError, match="inputs must be"):
        trace(Attention(causal_attend), inputs)


def test_labels_that_do_not_fit(tokens):
    with pytest.raises(UsageError, match="do not fit"):
        trace(Attention(causal_attend), tokens, labels=torch.zeros(1, 1))
    with pytest.raises(UsageError, match="from 0 to"):
        trace(Attention(causal_attend), tokens, labels=torch.full(tokens.shape, 20_000))


@pytest.mark.parametrize("shift", [0, 1])
def test_flex_attention_by_mask_and_by_score(tokens, shift):
    def by_mask(x):
        mask = create_block_mask(lambda b, h, q, k: q + shift >= k, None, None, SEQ, SEQ, device="cpu")
        return flex_attention(x[:, None], x[:, None], x[:, None], block_mask=mask)[:, 0]

    def by_score(x):
        def score(s, b, h, q, k):
            return torch.where(q + shift >= k, s, -torch.inf)

        return flex_attention(x[:, None], x[:, None], x[:, None], score_mod=score)[:, 0]

    for attend in (by_mask, by_score):
        traced = trace(Attention(attend), tokens)
        assert torch.equal(traced.horizon, (own(tokens) + shift).clamp(max=SEQ - 1))
        assert not traced.holes


@pytest.mark.parametrize(("attend", "proven"), [(causal_attend, True), (lambda x: x.flip(1), False)])
def test_compiled_functions_run_op_by_op(tokens, attend, proven):
    assert trace(Attention(torch.compile(attend)), tokens).proven is proven


def test_inference_mode(tokens):
    @torch.inference_mode()
    def attend(x):
        mask = torch.zeros(SEQ, SEQ)
        mask.masked_fill_(torch.ones(SEQ, SEQ, dtype=torch.bool).triu(1), -torch.inf)
        return (x @ x.mT + mask).softmax(-1) @ x

    assert trace(Attention(attend), tokens).proven


def test_memory_that_no_op_wrote_is_a_hole(tokens):
    def half_written(x):
        out = torch.empty_like(x)
        out[..., : WIDTH // 2] = x[..., : WIDTH // 2]
        return out

    def written(x):
        out = torch.empty_like(x)
        out[..., : WIDTH // 2] = x[..., : WIDTH // 2]
        out[..., WIDTH // 2 :] = x[..., WIDTH // 2 :]
        return out

    traced = trace(Attention(half_written), tokens)
    assert not traced.proven
    assert [hole.kind for hole in traced.holes] == ["opaque op"]
    assert trace(Attention(written), tokens).proven


@pytest.mark.parametrize("fails", [False, True])
def test_nothing_is_left_on_the_model(tokens, fails):
    def attend(x):
        if fails:
            raise ValueError("no")
        return x

    model = Attention(attend)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    if fails:
        with pytest.raises(ValueError, match="no"):
            trace(model, tokens)
    else:
        trace(model, tokens)
    for tensor in (*model.parameters(), tokens):
        assert not vars(tensor.untyped_storage())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert torch.overrides._get_current_function_mode() is None
    assert not torch.utils._python_dispatch.is_in_torch_dispatch_mode()
