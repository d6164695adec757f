"""Copies of the subject with one text replaced: which stage, path and layer is blamed, and that nothing else is."""

from dataclasses import dataclass

import pytest

from leakcheck.auditing.examine import Examiner
from leakcheck.auditing.leaks import findings
from leakcheck.config import Configuration, Settings
from leakcheck.findings import Verdict
from tests import models, oracle
from tests.models import SEQ, VOCAB, subject_of

EAGER = Configuration("eager", "none", "eval")

Place = tuple[int, str, int]  # stage, path, layer


@dataclass(frozen=True)
class Copy:
    replaced: tuple[str, str]
    first: Place
    leaks: frozenset[Place]  # every stage that lets the future in by itself
    clean: frozenset[tuple[str, int | None]] = frozenset({("standard", 0)})  # paths and layers without any delta


PARENT_CALL = """        return super().forward(
            hidden_states,
            position_embeddings=position_embeddings,
            attention_mask=attention_mask,
            **attention_arguments(past_key_values),
            **kwargs,
        )[:2]
"""
SCORES = """        attn_output, _ = super().forward(
            hidden_states, position_embeddings=position_embeddings, attention_mask=attention_mask, **kwargs
        )
        batch, seq = hidden_states.shape[:2]
        query = self.q_proj(hidden_states).view(batch, seq, -1, self.head_dim).transpose(1, 2)
        key = repeat_kv(
            self.k_proj(hidden_states).view(batch, seq, -1, self.head_dim).transpose(1, 2), self.num_key_value_groups
        )
        return attn_output, (query @ key.transpose(2, 3) * self.scaling).softmax(-1)
"""
TWICE = """        attn_output, _ = super().forward(
            hidden_states, position_embeddings=position_embeddings, attention_mask=attention_mask, **kwargs
        )
        _, attn_weights = super().forward(
            hidden_states, position_embeddings=position_embeddings, attention_mask=None, **kwargs
        )
        return attn_output, attn_weights
"""

COPIES = {
    # The attention itself makes the weights: stage 6 is the call of the attention, each layer makes its own.
    "stores the softmax of the unmasked scores": Copy(
        (PARENT_CALL, SCORES),
        first=(6, "recompute", 0),
        leaks=frozenset((6, "recompute", layer) for layer in range(3)),
    ),
    # The parent class makes them in a second call without a mask: stage 8 is the call of its kernel.
    "runs the parent again without a mask and stores those weights": Copy(
        (PARENT_CALL, TWICE),
        first=(8, "recompute", 0),
        leaks=frozenset((8, "recompute", layer) for layer in range(3)),
    ),
    # The first replay is that of layer 0 in layer 1.
    "softmax of the re-mask over queries": Copy(
        ("nn.functional.softmax(masked_weights, dim=-1)", "nn.functional.softmax(masked_weights, dim=-2)"),
        first=(12, "recompute", 1),
        leaks=frozenset((12, "recompute", layer) for layer in (1, 2)),
        clean=frozenset({("standard", 0), ("recompute", 0)}),
    ),
    # The weights of a row depend on its past only, so the re-mask is clean; what they are applied to lies one ahead.
    "re-mask off by one": Copy(
        (
            "causal_mask = attention_mask[:, :, :seq, :current]",
            "causal_mask = attention_mask[:, :, :seq, :current].roll(-1, 2)",
        ),
        first=(11, "recompute", 1),
        leaks=frozenset((11, "recompute", layer) for layer in (1, 2)),
        clean=frozenset({("standard", 0), ("recompute", 0)}),
    ),
    # Output and weights come from one call of the kernel: the leak belongs to the standard path.
    "layer 1 without a mask": Copy(
        ("if not self.config.safety_parent_mask:", "if not self.config.safety_parent_mask or self.layer_idx == 1:"),
        first=(8, "standard", 1),
        leaks=frozenset({(8, "standard", 1)}),
        clean=frozenset({("standard", 0), ("recompute", 0)}),
    ),
    # The sum is inside the layer: stage 5 is the call of the layer.
    "the merge reads the replay one ahead": Copy(
        ("merged = sum(previous_mlp_outputs) + merged", "merged = sum(previous_mlp_outputs).roll(-1, 1) + merged"),
        first=(5, "standard", 1),
        leaks=frozenset((5, "standard", layer) for layer in (1, 2)),
        clean=frozenset({("standard", 0), ("recompute", 0)}),
    ),
    # What is taken is one ahead already for the first layer.
    "the merge takes the layer output one ahead": Copy(
        ("hidden_states = layer_outputs[0]", "hidden_states = layer_outputs[0].roll(-1, 1)"),
        first=(13, "standard", 0),
        leaks=frozenset({(13, "standard", 0), (13, "recompute", 1), (13, "recompute", 2)}),
        clean=frozenset({("recompute", 0)}),
    ),
}


@pytest.fixture(scope="module", params=COPIES)
def case(request, tmp_path_factory):
    copy = COPIES[request.param]
    model = models.method1_copy(tmp_path_factory.mktemp("copy"), copy.replaced)
    return copy, model, Examiner(model, seq=SEQ, vocab_size=VOCAB, seed=0).examine(EAGER)


def test_the_copy_leaks_by_brute_force_and_by_verdict(case):
    _, model, examined = case
    assert oracle.largest_leak(oracle.moves(model, seq=SEQ, vocab_size=VOCAB)) > 1e-6
    assert examined.result.verdict is Verdict.LEAK
    assert all(control.caught for control in examined.probed.controls)


def test_the_first_stage_that_lets_the_future_in(case):
    copy, _, examined = case
    first = examined.first_leak
    assert (first.stage, first.path, first.layer) == copy.first
    assert examined.result.paths[first.path] is Verdict.LEAK


def test_leak_is_for_those_stages_and_every_other_that_moves_is_contaminated(case):
    copy, _, examined = case
    by_verdict = {verdict: set() for verdict in Verdict}
    for checkpoint in examined.checkpoints:
        by_verdict[checkpoint.verdict].add((checkpoint.stage, checkpoint.path, checkpoint.layer))
    moving = {(c.stage, c.path, c.layer) for c in examined.checkpoints if c.output_delta}
    assert by_verdict[Verdict.LEAK] == copy.leaks
    assert by_verdict[Verdict.CONTAMINATED] == moving - copy.leaks
    assert not by_verdict[Verdict.SUSPECT]
    seeing = {(c.stage, c.path, c.layer) for c in examined.checkpoints if c.horizon}
    assert seeing == moving  # flow admits what the probes found, and no more


def test_what_comes_before_is_clean(case):
    copy, _, examined = case
    measured = [c for c in examined.checkpoints if c.output_delta is not None and c.stage != 13]
    for checkpoint in measured:
        if (checkpoint.path, checkpoint.layer) in copy.clean:
            assert checkpoint.output_delta == checkpoint.gradient_delta == checkpoint.local_delta == 0
            assert (checkpoint.verdict, checkpoint.horizon) == (Verdict.PROVEN, 0)


def test_the_other_path_is_at_most_contaminated(case):
    copy, _, examined = case
    paths_with_leaks = {path for _, path, _ in copy.leaks}
    for path, verdict in examined.result.paths.items():
        assert (verdict is Verdict.LEAK) == (path in paths_with_leaks)


def test_the_finding_names_the_stage_and_a_witness(case):
    copy, model, examined = case
    found = findings(subject_of(model), [examined], Settings())
    stage, path, _ = copy.first
    first = next(f for f in found if f.code == ("LC501" if path == "recompute" else "LC101"))
    assert first.verdict is Verdict.LEAK
    assert f"{path} path: stage {stage} " in first.message
    assert first.witness["position"] < first.witness["cut"]
    assert first.witness["delta"] > 0
    assert "--attn eager" in first.reproduce


def test_an_unchanged_copy_is_clean(tmp_path):
    examined = Examiner(models.method1_copy(tmp_path), seq=SEQ, vocab_size=VOCAB, seed=0).examine(EAGER)
    assert examined.result.verdict is Verdict.PROVEN
    assert {c.verdict for c in examined.checkpoints} == {Verdict.PROVEN, Verdict.NOT_APPLICABLE}
    assert examined.first_leak is None
