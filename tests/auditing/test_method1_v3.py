"""The subject itself: causal with a mask, leaking without, the same when decoded, checkpointed, or of one layer.

Every configuration of it is in reports/, and tests/test_reports.py runs them.
"""

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from leakcheck.auditing.examine import Examiner
from leakcheck.auditing.leaks import findings
from leakcheck.config import Configuration, Settings
from leakcheck.findings import Verdict
from leakcheck.subjects import running
from tests import models, oracle
from tests.models import SEQ, VOCAB, subject_of


def examined(model, attention="eager", mask="none", mode="eval"):
    configuration = Configuration(attention, mask, mode)
    return Examiner(model, seq=SEQ, vocab_size=VOCAB, seed=0).examine(configuration)


def assert_proven(result):
    assert result.result.verdict is Verdict.PROVEN
    assert result.result.horizon == 0
    assert set(result.result.paths.values()) == {Verdict.PROVEN}
    assert {(c.verdict, c.horizon) for c in result.checkpoints} <= {
        (Verdict.PROVEN, 0),
        (Verdict.NOT_APPLICABLE, None),
    }
    assert result.result.output_delta == result.result.gradient_delta == 0
    assert all(not c.output_delta and not c.gradient_delta and not c.local_delta for c in result.checkpoints)
    assert all(control.caught for control in (*result.probed.controls, *result.proof.controls))


def tokens(rows=2, seq=SEQ):
    return torch.randint(VOCAB, (rows, seq), generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("kv_heads", [1, 2, 4])
@pytest.mark.parametrize(("layers", "merge_attention_output"), [(1, False), (2, True), (3, False), (4, True)])
def test_with_a_materialised_mask_it_is_causal(layers, kv_heads, merge_attention_output):
    model = models.method1(
        num_hidden_layers=layers, num_key_value_heads=kv_heads, merge_attention_output=merge_attention_output
    )
    assert oracle.largest_leak(oracle.moves(model, seq=SEQ, vocab_size=VOCAB, draws=1)) == 0
    assert_proven(examined(model, attention="sdpa"))


def test_as_published_both_paths_leak_under_sdpa_without_padding():
    result = examined(models.method1(materialize_causal_mask=False), "sdpa")
    assert result.result.verdict is Verdict.LEAK
    assert set(result.result.paths.values()) == {Verdict.LEAK}
    first = result.first_leak_on("standard")
    assert (first.stage, first.layer) == (8, 0)
    assert result.first_leak_on("recompute").stage == 11
    assert result.result.worst_case.cut <= SEQ - 1


def test_the_finding_says_that_the_mask_was_none_and_where_it_was_made():
    model = models.method1(materialize_causal_mask=False)
    found = findings(subject_of(model), [examined(model, "sdpa")], Settings())
    assert [f.code for f in found] == ["LC201", "LC101", "LC501"]
    assert "the mask is None" in found[0].message
    assert "`return None`" in found[0].message
    assert found[0].file == "transformers/masking_utils.py"


def test_every_position_of_the_published_model_reads_the_last_token():
    moved = oracle.moves(models.method1(materialize_causal_mask=False), seq=SEQ, vocab_size=VOCAB)
    assert (moved[SEQ - 1] > 1e-6).all()


def test_padded_queries_move_and_are_no_leak():
    result = examined(models.method1(), "eager", "left-padded").result
    assert result.padded_queries == 2
    assert result.padded_queries_moved == 2
    assert result.output_delta == 0


@pytest.mark.parametrize("merge_attention_output", [False, True])
@pytest.mark.parametrize("kv_heads", [1, 2, 4])
@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_decoding_with_a_cache_equals_the_full_forward(attention, kv_heads, merge_attention_output):
    model = models.method1(
        num_key_value_heads=kv_heads, merge_attention_output=merge_attention_output, attn_implementation=attention
    )
    ids = tokens()
    with torch.no_grad():
        whole = model(ids).logits
        out = model(ids[:, :4], use_cache=True)
        steps = [out.logits]
        for start, end in ((4, 5), (5, 8), (8, 9), (9, SEQ)):  # single tokens and chunks
            out = model(ids[:, start:end], past_key_values=out.past_key_values, use_cache=True)
            steps.append(out.logits)
    assert torch.allclose(torch.cat(steps, 1), whole, atol=1e-4)


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_gradients_under_checkpointing_equal_plain_ones(attention):
    model = models.method1(attn_implementation=attention)
    gradients = []
    for mode in ("train", "train+checkpointing"):
        configuration = Configuration(attention, "none", mode)
        model.zero_grad()
        with running.configured(model, configuration):
            running.forward(model, tokens(), configuration).square().mean().backward()
        gradients.append({name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None})
    plain, checkpointed = gradients
    assert plain.keys() == checkpointed.keys() == dict(model.named_parameters()).keys()
    for name, gradient in plain.items():
        assert torch.allclose(gradient, checkpointed[name], rtol=1e-4, atol=1e-6), name


def test_one_layer_is_llama():
    model = models.method1(num_hidden_layers=1)
    control = LlamaForCausalLM(LlamaConfig(**{**models.LLAMA_SIZES, "num_hidden_layers": 1})).eval()
    control.load_state_dict(model.state_dict())
    with torch.no_grad():
        assert torch.allclose(model(tokens()).logits, control(tokens()).logits, atol=1e-5)


@pytest.mark.parametrize("merge_attention_output", [False, True])
def test_the_forward_is_that_of_the_equations(merge_attention_output):
    """h_l = x_l + O(A V);  r_i(x) = f_i(p_i(x + O(softmax(A_i + M) V_i)));  x_{l+1} = sum r_i + m_l (+ h_l)."""
    model = models.method1(merge_attention_output=merge_attention_output, num_key_value_heads=4).double()
    ids = tokens()
    mask = torch.full((SEQ, SEQ), -torch.inf, dtype=torch.float64).triu(1)
    stack = model.model

    def heads(states):
        return states.view(2, SEQ, 4, -1).transpose(1, 2)

    def apply(layer, weights, states):
        values = heads(layer.self_attn.v_proj(states))
        return layer.self_attn.o_proj((weights @ values).transpose(1, 2).reshape(2, SEQ, -1))

    def rotate(states):
        half = states.shape[-1] // 2
        frequencies = torch.arange(SEQ)[:, None] * 10_000.0 ** (-torch.arange(half) / half)[None]
        cos, sin = frequencies.double().cos(), frequencies.double().sin()
        a, b = states[..., :half], states[..., half:]
        return torch.cat([a * cos - b * sin, b * cos + a * sin], -1)

    with torch.no_grad():
        x = stack.embed_tokens(ids)
        stored = []
        for number, layer in enumerate(stack.layers):
            normed = layer.input_layernorm(x)
            query, key = (rotate(heads(p(normed))) for p in (layer.self_attn.q_proj, layer.self_attn.k_proj))
            weights = (query @ key.transpose(2, 3) * query.shape[-1] ** -0.5 + mask).softmax(-1)
            h = x + apply(layer, weights, normed)
            m = layer.mlp(layer.post_attention_layernorm(h))
            if number == 0:
                following = h + m
            else:
                following = m + (h if merge_attention_output else 0)
                for earlier, attention in zip(stack.layers, stored, strict=False):
                    remasked = (attention + mask).softmax(-1)
                    attended = x + apply(earlier, remasked, earlier.input_layernorm(x))
                    following = following + earlier.mlp(earlier.post_attention_layernorm(attended))
            stored.append(weights)
            x = following
        expected = model.lm_head(stack.norm(x))
        assert torch.allclose(model(ids).logits, expected, rtol=1e-4, atol=1e-4)
