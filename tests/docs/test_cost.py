"""The forwards that ARCHITECTURE.md counts for one configuration."""

import pytest

from leakcheck.auditing.examine import Examiner
from leakcheck.config import Configuration
from leakcheck.probes.draws import DRAWS
from leakcheck.subjects import running
from leakcheck.subjects.load import load


@pytest.mark.parametrize(("spec", "leaks"), [("llama", 0), ("method1_v3_as_published", 1)])
def test_forwards_of_one_configuration(spec, leaks, monkeypatch):
    subject = load(spec)
    rows = []
    forward = running.forward

    def counting(model, token_ids, configuration):
        rows.append(len(token_ids))
        return forward(model, token_ids, configuration)

    monkeypatch.setattr(running, "forward", counting)
    examiner = Examiner(subject.model, seq=subject.seq_len, vocab_size=subject.vocab_size, seed=0)
    examiner.examine(Configuration("sdpa", "none", "eval"))
    batch = 3 + len(DRAWS) * subject.seq_len
    alone = 1 + 5 * leaks  # a leak's witness: the base to begin with, base, twin, another past and the worst row
    planted = 4  # rows of the control: base, twin, another past and one that shows what is planted
    traced = 2 + leaks  # the proof, its control, and blame
    assert sorted(rows) == [*[1] * alone, *[2] * traced, planted, *[batch] * (2 + leaks)]
