"""Each safety check taken away, alone and together, by measurement."""

from itertools import product

import pytest

from leakcheck.auditing import audit
from leakcheck.auditing.ablation import ablate, acted, load_bearing, safety_checks
from leakcheck.auditing.examine import Examiner
from leakcheck.config import Configuration, Settings
from leakcheck.findings import AblationRow, ClaimVerdict, Verdict
from tests import models
from tests.models import SEQ, VOCAB, subject_of

EAGER = Configuration("eager", "none", "eval")
SDPA = Configuration("sdpa", "none", "eval")


def rows_of(subject, *configurations):
    steps = []
    rows = ablate(subject, configurations, seq=SEQ, seed=0, step=steps.append)
    assert len(steps) == len(rows) == 8 * len(configurations)
    return rows


@pytest.fixture(scope="module")
def rows():
    subject = subject_of(models.method1())
    before = {name: weight.clone() for name, weight in subject.model.state_dict().items()}
    found = {tuple(row.checks.values()): row for row in rows_of(subject, EAGER)}
    assert all((before[name] == weight).all() for name, weight in subject.model.state_dict().items())
    assert subject.model.config.safety_parent_mask  # the ablation is of copies
    return found


def test_all_eight_combinations_are_measured(rows):
    assert set(rows) == set(product((True, False), repeat=3))


@pytest.mark.parametrize("s2", [True, False])
def test_without_the_remask_alone_it_stays_causal(rows, s2):
    row = rows[True, s2, False]
    assert row.output_delta == 0
    assert set(row.paths.values()) == {Verdict.PROVEN}
    assert row.first_leak is None


@pytest.mark.parametrize("s2", [True, False])
def test_without_the_standard_mask_alone_the_standard_path_leaks(rows, s2):
    row = rows[False, s2, True]
    assert row.paths["standard"] is Verdict.LEAK
    assert row.paths["recompute"] is Verdict.CONTAMINATED
    assert row.output_delta > 1e-3
    assert row.first_leak.startswith("stage 8, standard path, layer 0")


@pytest.mark.parametrize("s2", [True, False])
def test_without_both_both_paths_leak(rows, s2):
    row = rows[False, s2, False]
    assert row.paths == {"standard": Verdict.LEAK, "recompute": Verdict.LEAK}


def test_with_all_or_without_the_length_check_it_is_proven(rows):
    for s2 in (True, False):
        assert set(rows[True, s2, True].paths.values()) == {Verdict.PROVEN}
        assert rows[True, s2, True].output_delta == 0


def test_the_standard_mask_bears_the_load(rows):
    assert [load_bearing(list(rows.values()), check) for check in ("S1", "S2", "S3")] == [True, False, False]


def test_a_check_that_nothing_needs_bears_no_load():
    def row(s1, s2, s3, verdict):
        return AblationRow("c", {"S1": s1, "S2": s2, "S3": s3}, {"standard": verdict}, 0.0, None)

    always = [row(*on, Verdict.LEAK) for on in product((True, False), repeat=3)]
    never = [row(*on, Verdict.OPEN) for on in product((True, False), repeat=3)]
    only_s3 = [row(*on, Verdict.OPEN if on[2] else Verdict.LEAK) for on in product((True, False), repeat=3)]
    assert not any(load_bearing(always, check) for check in ("S1", "S2", "S3"))
    assert not any(load_bearing(never, check) for check in ("S1", "S2", "S3"))
    assert [load_bearing(only_s3, check) for check in ("S1", "S2", "S3")] == [False, False, True]


def test_published_nothing_acts_under_sdpa_and_all_do_under_eager():
    model = models.method1(materialize_causal_mask=False)
    examiner = Examiner(model, seq=SEQ, vocab_size=VOCAB, seed=0)
    sdpa, eager = examiner.examine(SDPA), examiner.examine(EAGER)
    assert acted(sdpa) == {"S1": 0, "S2": 0, "S3": 0}
    assert acted(eager) == {"S1": 3, "S2": 3, "S3": 3}

    s1, s2, s3 = safety_checks(examiner.plan, [sdpa, eager], ())
    assert s1.acted == {SDPA.id: 0, EAGER.id: 3}
    assert (s1.verdict, s2.verdict, s3.verdict) == (ClaimVerdict.REFUTED, ClaimVerdict.HOLDS, ClaimVerdict.REFUTED)
    assert "attn_weights + attention_mask" in s1.where.operation
    assert "current <= stored" in s2.where.operation
    assert "trimmed_attn_weights + causal_mask" in s3.where.operation
    assert s1.load_bearing is None


# --- a whole audit ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("leaking", [False, True])
def test_audit_of_another_model(leaking, in_eval_mode):
    model = models.reading(models.llama, "model.layers.1.mlp", models.successor) if leaking else models.llama()
    result = audit(subject_of(model, seq=7), Settings(attention=("eager",)))
    assert result.verdict is (Verdict.LEAK if leaking else Verdict.PROVEN)
    assert result.statistics == {}
    assert result.ablation == ()
    if leaking:
        blamed = {(c.module, c.verdict) for c in result.checkpoints if c.verdict is Verdict.LEAK}
        assert blamed == {("model.layers.1.mlp", Verdict.LEAK)}
        assert result.findings[0].module == "model.layers.1.mlp"
