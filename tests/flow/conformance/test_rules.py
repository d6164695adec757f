"""Every entry of the registry against brute force. `python -m tests.flow.conformance.outcome` writes the record."""

from dataclasses import replace

import pytest
import torch

from leakcheck.flow.labels import KNOWN
from leakcheck.flow.registry import RULES, Tier
from tests.flow.conformance.outcome import KEYS, Outcome, counts, examine, recorded
from tests.flow.conformance.samples import EXEMPT, SAMPLES

pytestmark = pytest.mark.filterwarnings("ignore")

# Their outputs depend on no values, so that nothing can be claimed too low.
NOTHING_TO_SEE = {
    "aten::zeros_like", "aten::ones_like", "aten::full_like", "aten::new_zeros", "aten::new_ones", "aten::new_full",
    "aten::zero", "aten::fill.Scalar", "aten::empty", "aten::empty_strided", "aten::empty_like", "aten::empty_permuted",
    "aten::new_empty", "aten::new_empty_strided",
}  # fmt: skip


def test_every_rule_has_a_sample():
    assert set(RULES) - {sample.key for sample in SAMPLES} == set(EXEMPT)


@pytest.mark.parametrize("key", [key for key in KEYS if key not in EXEMPT])
def test_rule(key):
    expected = recorded().get(key, {})

    def failed(outcome: Outcome) -> bool:
        return len(outcome.unsound) == 5 or any(n > expected.get(name, 0) for name, n in counts(outcome).items())

    outcome = examine(key, failed)
    assert outcome.compared
    assert not outcome.unsound, "\n".join(outcome.unsound)
    assert counts(outcome) == expected, "as recorded in coarse.json"
    if key in RULES:
        assert outcome.coarse == 0 or RULES[key].tier is Tier.COARSE, "an exact rule that claims too much"


@pytest.mark.parametrize("key", [key for key in KEYS if key in RULES and key not in {*EXEMPT, *NOTHING_TO_SEE}])
def test_a_rule_that_sees_nothing_is_found(key, monkeypatch):
    if any(torch.Tag.dynamic_output_shape in sample.tags for sample in SAMPLES if sample.key == key):
        pytest.skip("the engine sees by itself that the values decide the size of the result")
    monkeypatch.setitem(RULES, key, replace(RULES[key], function=lambda *_, **__: KNOWN, context=False))
    assert examine(key, lambda outcome: bool(outcome.unsound)).unsound


def test_the_record_names_no_other_rules():
    assert set(recorded()) <= set(KEYS)
