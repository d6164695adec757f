"""Laws of the built-in subjects, over random small configurations, lengths and seeds."""

from dataclasses import dataclass

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedModel

from leakcheck import audit
from leakcheck.auditing.examine import Examiner
from leakcheck.config import MASKS, Configuration, Settings
from leakcheck.findings import Verdict
from leakcheck.report import json
from leakcheck.subjects.method1_v3 import Method1Config_v3, Method1LlamaForCausalLM_v3
from leakcheck.subjects.subject import Subject, randomise

VOCABULARY = 61


@dataclass(frozen=True)
class Case:
    """One small architecture and how it is run."""

    layers: int
    heads: int
    kv_heads: int
    merge_attention_output: bool
    seq: int
    seed: int

    @property
    def sizes(self) -> dict[str, int]:
        return {
            "vocab_size": VOCABULARY,
            "hidden_size": 8 * self.heads,
            "intermediate_size": 24,
            "num_hidden_layers": self.layers,
            "num_attention_heads": self.heads,
            "num_key_value_heads": self.kv_heads,
            "max_position_embeddings": 64,
        }

    def method1(self, *, materialize: bool) -> PreTrainedModel:
        config = Method1Config_v3(
            **self.sizes,
            materialize_causal_mask=materialize,
            merge_attention_output=self.merge_attention_output,
        )
        return self._drawn(Method1LlamaForCausalLM_v3(config))

    def llama(self) -> PreTrainedModel:
        return self._drawn(LlamaForCausalLM(LlamaConfig(**self.sizes)))

    def _drawn(self, model: PreTrainedModel) -> PreTrainedModel:
        randomise(model, self.seed)
        return model.eval()

    def examine(self, model: PreTrainedModel, configuration: Configuration):
        return Examiner(model, seq=self.seq, vocab_size=VOCABULARY, seed=self.seed).examine(configuration)


@st.composite
def cases(draw: st.DrawFn) -> Case:
    heads = draw(st.sampled_from((1, 2, 3, 4)), label="heads")
    return Case(
        layers=draw(st.integers(1, 4), label="layers"),
        heads=heads,
        kv_heads=draw(st.sampled_from([n for n in (1, 2, 3, 4) if heads % n == 0]), label="kv heads"),
        merge_attention_output=draw(st.booleans(), label="later revision of the merge"),
        seq=draw(st.integers(5, 21), label="positions"),
        seed=draw(st.integers(0, 2**16), label="seed"),
    )


def configurations(attention: st.SearchStrategy[str], mask: st.SearchStrategy[str]) -> st.SearchStrategy[Configuration]:
    return st.builds(Configuration, attention, mask, st.sampled_from(("eval", "train", "train+checkpointing")))


any_backend = st.sampled_from(("eager", "sdpa"))
any_mask = st.sampled_from(MASKS)
no_padding = st.sampled_from(("none", "ones"))
half = settings(max_examples=max(5, settings().max_examples // 2))  # an example is an examination with all its controls


@half
@given(cases(), configurations(any_backend, any_mask))
@pytest.mark.parametrize("build", [lambda c: c.method1(materialize=True), Case.llama], ids=["method1_v3", "llama"])
def test_a_causal_subject_is_proven_and_never_shows_a_delta(build, case: Case, configuration: Configuration) -> None:
    examined = case.examine(build(case), configuration)
    assert examined.result.verdict is Verdict.PROVEN
    assert set(examined.result.paths.values()) == {Verdict.PROVEN}
    assert {c.horizon for c in examined.checkpoints} <= {0, None}
    assert examined.result.output_delta == examined.result.gradient_delta == 0
    moved = [c for c in examined.checkpoints if c.output_delta or c.gradient_delta or c.local_delta]
    assert not moved
    assert all(control.caught for control in (*examined.probed.controls, *examined.proof.controls))
    assert not examined.probed.vacuous


@half
@given(cases(), configurations(st.just("sdpa"), no_padding))
def test_the_published_subject_always_leaks_without_padding(case: Case, configuration: Configuration) -> None:
    examined = case.examine(case.method1(materialize=False), configuration)
    assert examined.result.verdict is Verdict.LEAK
    assert examined.result.horizon == case.seq - 1
    assert examined.result.paths["standard"] is Verdict.LEAK
    if case.layers > 1:  # a single layer has nothing to replay
        assert examined.result.paths["recompute"] is Verdict.LEAK
    assert examined.first_leak.stage == 8
    assert examined.first_leak.layer == 0


@half
@given(cases(), configurations(st.just("eager"), any_mask) | configurations(st.just("sdpa"), st.just("left-padded")))
def test_the_published_subject_is_proven_where_a_mask_exists(case: Case, configuration: Configuration) -> None:
    examined = case.examine(case.method1(materialize=False), configuration)
    assert examined.result.verdict is Verdict.PROVEN
    assert examined.result.output_delta == 0


@settings(max_examples=max(1, settings().max_examples // 20))  # an example is a whole audit
@given(cases(), st.booleans())
def test_a_report_survives_json(case: Case, materialize: bool) -> None:
    model = case.method1(materialize=materialize)
    subject = Subject("a random subject", model, VOCABULARY, case.seq, "random")
    result = audit(subject, Settings(attention=("sdpa",)))
    text = json.render(result)
    assert json.render(json.read(text)) == text
    assert json.read(text).verdict is (Verdict.PROVEN if materialize else Verdict.LEAK)
