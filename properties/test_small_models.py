"""The laws, and the audit, on small random models of the library's architectures."""

from hypothesis import given, reject, settings
from hypothesis import strategies as st

from leakcheck.auditing.examine import Examiner
from leakcheck.findings import Verdict
from leakcheck.laws import LAWS, NotApplicable, Twin
from leakcheck.strategies import Mutant, Small, arguments, configurations, mutants
from leakcheck.zoo import LEAKS

# Attention with rotary, learned, linear and no positions, windows, chunks, latent heads, routed experts, recurrences.
KEPT = (
    "llama",
    "gpt2",
    "bloom",
    "gemma3_text",
    "llama4_text",
    "deepseek_v3",
    "mixtral",
    "mistral",
    "mamba2",
    "olmo2",
)
VOCABULARY, LENGTH = 97, 11
MANY = settings(
    max_examples=4 * settings().max_examples
)  # of a few forwards each, over ten architectures and nine laws
FEW = settings(max_examples=max(2, settings().max_examples // 7))  # of two audits each


@MANY
@given(configurations(names=KEPT), st.sampled_from(sorted(LAWS)), st.data())
def test_a_small_model_keeps_the_laws(small: Small, law: str, data: st.DataObject) -> None:
    try:
        LAWS[law](Twin(small.build()), **data.draw(arguments(law)))
    except NotApplicable:
        reject()


@FEW
@given(mutants(hosts=configurations(names=("llama", "gpt2", "mistral"))))
def test_a_planted_leak_is_seen_and_its_causal_counterpart_is_not(mutant: Mutant) -> None:
    verdicts = {leaky: _verdict(mutant, leaky=leaky) for leaky in (True, False)}
    assert verdicts[True] in (Verdict.LEAK, Verdict.SUSPECT)
    assert verdicts[False] in (Verdict.PROVEN, Verdict.OPEN)


def _verdict(mutant: Mutant, *, leaky: bool) -> Verdict:
    """Of the combined detector, under the configuration that shows leaks of this kind."""
    shown = next(leak for name, leak in LEAKS.items() if name.startswith(f"{mutant.mutator}["))
    examiner = Examiner(mutant.build(leaky=leaky), seq=LENGTH, vocab_size=VOCABULARY, seed=mutant.host.seed)
    return examiner.examine(shown.configuration).result.verdict
