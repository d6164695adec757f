"""Flow in the audit: what it proves, what it admits, where it ends, and whether it can see at all."""

import linecache
from dataclasses import replace

import pytest
import torch
from torch import nn

from leakcheck.auditing import audit, leaks
from leakcheck.auditing.examine import Examiner
from leakcheck.auditing.proof import UNTRACEABLE, Proof, Prover
from leakcheck.checkpoints import plan_for
from leakcheck.config import Configuration, Settings
from leakcheck.findings import Verdict
from leakcheck.flow.engine import Flow
from leakcheck.flow.labels import DTYPE, GENERIC
from leakcheck.flow.trace import Tracer, Violation, conclude
from leakcheck.probes.probe import Prober
from tests import models
from tests.models import SEQ, VOCAB, predecessor, subject_of, successor

PLAIN = Configuration("default", "none", "eval")
TRAIN = Configuration("default", "none", "train")


def examined(model, configuration=PLAIN):
    return Examiner(model, seq=SEQ, vocab_size=VOCAB, seed=0).examine(configuration)


def found(model, result):
    return {f.code: f for f in leaks.findings(subject_of(model), [result], Settings())}


def proof_of(model, configuration=PLAIN):
    return Prover(Prober(model, plan_for, seq=SEQ, vocab_size=VOCAB, seed=0)).prove(configuration)


# --- whole audits -----------------------------------------------------------------------------------------------------


def test_as_published_the_stages_before_the_leak_are_proven_and_those_after_it_see_the_end():
    model = models.method1(materialize_causal_mask=False)
    result = examined(model, Configuration("sdpa", "none", "eval"))
    assert result.result.verdict is Verdict.LEAK
    assert result.result.horizon == SEQ - 1
    for checkpoint in result.checkpoints:
        if checkpoint.stage == 1:
            assert (checkpoint.verdict, checkpoint.horizon) == (Verdict.PROVEN, 0)
        elif checkpoint.output_delta is not None:
            assert checkpoint.verdict in (Verdict.LEAK, Verdict.CONTAMINATED)
            assert checkpoint.horizon == SEQ - 1
    codes = found(model, result)
    assert list(codes) == ["LC201", "LC101", "LC501"]
    # Lineage and flow agree on the cause: the kernel that runs without a mask, and the line of its call.
    assert "None" in codes["LC101"].message
    for code in ("LC201", "LC101"):
        assert any("modeling_method1_v3.py:" in step for step in codes[code].chain)
    assert "LC903" not in codes


@pytest.mark.parametrize("name", models.LIBRARY)
@pytest.mark.parametrize("mode", ["eval", "train"])
def test_models_of_the_library_are_proven(name, mode):
    result = examined(models.LIBRARY[name](), Configuration("default", "none", mode))
    assert result.proof.holes == ()
    assert result.result.verdict is Verdict.PROVEN
    measured = [c for c in result.checkpoints if c.output_delta is not None]
    unplaced = {c.module.rpartition(".")[2] for c in measured if c.horizon is None}
    assert unplaced <= {"experts", "act_fn"}  # the rows of an expert are no positions
    assert all(c.verdict is Verdict.PROVEN for c in result.checkpoints if c.horizon is not None)


# --- violations -------------------------------------------------------------------------------------------------------


def test_a_leak_behind_a_closed_gate_is_a_suspicion_that_says_what_opens_it():
    model = models.toy(models.Gated(successor))
    model.mixer.gate.data.zero_()
    result = examined(model)
    assert result.result.verdict is Verdict.SUSPECT
    assert result.result.output_delta == 0
    assert not model.mixer.gate.any()  # other weights are tried in a copy
    finding = found(model, result)["LC104"]
    assert "10 positions may read a later one" in finding.message
    assert "nothing moved it under these weights; under others, drawn at random, it moves by" in finding.message
    assert finding.file == "tests/models.py"
    assert finding.chain
    assert found(model, result).keys() == {"LC104"}
    assert {c.module: c.verdict.value for c in result.checkpoints} == {
        "": "SUSPECT", "embed": "PROVEN", "mixer": "SUSPECT", "head": "SUSPECT",
    }  # fmt: skip


def test_its_twin_that_reads_the_past_through_the_gate_is_proven():
    model = models.toy(models.Gated(predecessor))
    model.mixer.gate.data.zero_()
    assert examined(model).result.verdict is Verdict.PROVEN


class OneToken(models.Toy):
    """Position 3 reads whether position 8 holds one certain token."""

    def forward(self, input_ids):
        x = models.so_far(self.embed(input_ids))
        reader = torch.arange(input_ids.shape[1]) == 3
        told = input_ids[:, 8:9] == 9
        return self.head(x + (reader * told)[..., None])


def test_flow_shows_the_probes_where_to_look():
    model = models.seeded(OneToken(models.Mixer(models.so_far)))
    prober = Prober(model, plan_for, seq=SEQ, vocab_size=VOCAB, seed=0)
    assert not prober.probe(PLAIN).logits.moved  # no ordinary draw has that token there
    result = examined(model)
    assert result.result.verdict is Verdict.LEAK
    assert (result.result.worst_case.position, result.result.worst_case.cut) in {(3, cut) for cut in range(4, 9)}
    assert result.result.worst_case.draw.startswith("aimed-")
    assert result.result.pairs_covered == result.result.pairs_total
    finding = found(model, result)["LC101"]
    assert finding.witness["position"] == 3
    assert finding.witness["delta"] > 0
    again = examined(model)
    assert again.result.worst_case == result.result.worst_case  # the same command finds the same witness


def test_what_flow_cannot_know_to_cancel_is_a_suspicion():
    result = examined(models.toy(lambda x: models.so_far(x) + successor(x) - successor(x)))
    assert result.result.verdict is Verdict.SUSPECT
    assert result.sought == "nothing moved it, under these weights or others"


def test_padded_positions_may_see_anything():
    result = examined(models.llama(), Configuration("eager", "left-padded", "eval"))
    assert result.result.padded_queries_moved > 0
    assert result.result.verdict is Verdict.PROVEN


def test_train_mode_is_proven_where_rows_depend_on_their_batch():
    result = examined(models.toy(models.Dropped(1.0)), TRAIN)
    assert not result.probed.independent
    assert result.result.verdict is Verdict.PROVEN
    assert all(c.output_delta is None and c.verdict is Verdict.PROVEN for c in result.checkpoints)


def test_a_leak_without_measured_stages_is_explained_by_flow():
    model = models.toy(models.TimeNorm())
    result = examined(model, TRAIN)
    assert result.result.verdict is Verdict.LEAK
    finding = found(model, result)["LC101"]
    assert "past logits move with future tokens. " in finding.message
    assert finding.file == "tests/models.py"
    assert finding.chain


# --- a gradient alone -------------------------------------------------------------------------------------------------


class Straight(torch.autograd.Function):
    """Causal forward, and a backward that hands gradients to the wrong positions."""

    @staticmethod
    def forward(ctx, x):
        return models.so_far(x)

    @staticmethod
    def backward(ctx, gradient):
        return gradient.flip(1)


def test_a_gradient_that_no_value_stands_behind_is_told_and_is_no_suspicion():
    model = models.toy(Straight.apply)
    result = examined(model)
    assert result.probed.logits.gradient > 0
    assert result.result.verdict is Verdict.PROVEN
    finding = found(model, result)["LC103"]
    assert finding.verdict is Verdict.PROVEN
    assert "belongs to the backward pass alone" in finding.message


# --- where the proof ends ---------------------------------------------------------------------------------------------


def test_a_fourier_transform_is_open_with_its_line():
    model = models.toy(models.FourierConvolution(padded=True))
    result = examined(model)
    assert result.result.verdict is Verdict.OPEN
    assert result.result.horizon is None
    finding = found(model, result)["LC802"]
    assert (finding.verdict, finding.file) == (Verdict.OPEN, "tests/models.py")
    assert "fft" in linecache.getline(models.__file__, finding.line)


def test_values_that_decide_in_python_are_a_hole_that_no_stage_sees_past():
    def deciding(x):
        y = models.so_far(x)
        return y + 1 if x.sum().item() > 1e9 else y

    model = models.toy(deciding)
    result = examined(model)
    assert result.result.verdict is Verdict.OPEN
    assert result.result.horizon is None  # the labels show nothing, for it is Python that reads them all
    assert {c.horizon for c in result.checkpoints} == {None}
    assert found(model, result)["LC803"].file == "tests/auditing/test_proof.py"


def test_a_forward_that_cannot_run_with_labels_is_open(monkeypatch):
    monkeypatch.setattr(Flow, "_run", lambda *_: 1 / 0)
    model = models.llama()
    result = examined(model)
    assert result.result.verdict is Verdict.OPEN
    (hole,) = result.proof.holes
    assert hole.kind == UNTRACEABLE
    assert "ZeroDivisionError" in found(model, result)["LC802"].message


def test_a_failing_rule_is_open(monkeypatch):
    from leakcheck.flow import registry

    def failing(*_, **__):
        raise ValueError("not today")

    rule = registry.rule_for("aten::cumsum", "")
    monkeypatch.setattr("leakcheck.flow.engine.rule_for", lambda *key: replace(rule, function=failing))
    result = examined(models.toy(models.so_far))
    assert result.result.verdict is Verdict.OPEN
    assert "LC801" in found(models.toy(models.so_far), result)


def soft(value: float):
    def attention(x):
        scores = x @ x.transpose(1, 2)
        return (scores + torch.full(scores.shape[-2:], value).triu(1)).softmax(-1) @ x

    return models.toy(attention)


def test_a_soft_mask_is_a_finding_and_does_not_change_the_verdict():
    model = soft(-1e9)
    result = examined(model)
    assert result.result.verdict is Verdict.PROVEN
    finding = found(model, result)["LC202"]
    assert finding.message.startswith("soft mask, value -1e+09, margin 1e+09")
    assert finding.file == "tests/auditing/test_proof.py"
    assert found(soft(-float("inf")), examined(soft(-float("inf")))) == {}


def test_a_soft_mask_that_is_crossed_is_a_leak_and_no_contradiction():
    model = soft(-1e3)  # embeddings a hundred times as long make scores above it
    result = examined(model)
    assert result.result.verdict is Verdict.LEAK
    assert result.proof.holds
    assert found(model, result).keys() == {"LC101", "LC202"}


# --- whether flow can see at all --------------------------------------------------------------------------------------


def test_what_is_planted_for_flow_is_caught_even_where_the_subject_leaks():
    for model in (models.llama(), models.toy(lambda x: x.mean(1, keepdim=True).expand_as(x))):
        controls = proof_of(model).controls
        assert [c.caught for c in controls] == [True, True]


def test_a_flow_that_sees_nothing_misses_its_control_and_proves_nothing(monkeypatch):
    monkeypatch.setattr(Tracer, "read", lambda tracer, tensor: torch.full(tensor.shape, GENERIC, dtype=DTYPE))
    model = models.toy(models.so_far)
    result = examined(model)
    assert result.proof.horizon == 0
    assert [c.caught for c in result.proof.controls] == [False, True]
    assert result.result.verdict is Verdict.OPEN
    assert all(c.verdict is Verdict.OPEN for c in result.checkpoints)
    assert found(model, result).keys() == {"LC901"}


def test_a_flow_that_sees_too_much_misses_its_quiet_control(monkeypatch):
    def alarmed(tracer, seen, *rest):
        trace = conclude(tracer, seen, *rest)
        planted = tracer.model.embed._forward_hooks
        return replace(trace, violations=(Violation(0, 0, 1),)) if planted else trace

    monkeypatch.setattr("leakcheck.auditing.proof.conclude", alarmed)
    controls = proof_of(models.toy(models.so_far)).controls
    assert [c.caught for c in controls] == [False, False]


def test_a_missed_control_of_flow_keeps_the_run_open(monkeypatch):
    monkeypatch.setattr(Tracer, "read", lambda tracer, tensor: torch.full(tensor.shape, GENERIC, dtype=DTYPE))
    result = audit(subject_of(models.llama(), seq=7), Settings(attention=("eager",)))
    assert result.verdict is Verdict.OPEN
    assert [c.name for c in result.controls if not c.caught] == ["flow: one position reads its successor's embedding"]


def test_a_witness_against_the_proof_is_a_finding_of_its_own(monkeypatch):
    monkeypatch.setattr(Prover, "prove", lambda *_: Proof(horizon=0))
    model = models.toy(lambda x: x.mean(1, keepdim=True).expand_as(x))
    result = examined(model)
    assert result.result.verdict is Verdict.LEAK
    assert found(model, result)["LC903"].verdict is Verdict.LEAK
    assert found(model, result)["LC903"].witness["delta"] == result.result.output_delta


def test_rows_that_are_mixed_up_with_positions_are_seen():
    """A reshape where a transpose was meant: with one row it would do nothing."""
    model = models.toy(lambda x: x.reshape(x.shape[1], x.shape[0], -1).transpose(0, 1))
    assert proof_of(model).horizon > 0


def test_tracing_leaves_the_model_as_it_was():
    model = models.toy(models.TimeNorm())
    before = {name: value.clone() for name, value in model.state_dict().items()}
    state = torch.get_rng_state()
    proof_of(model, TRAIN)
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert torch.equal(state, torch.get_rng_state())
    assert not model.training
    assert not any(isinstance(m, nn.Module) and m._forward_hooks for m in model.modules())
