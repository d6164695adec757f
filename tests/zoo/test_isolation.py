"""Every leak of another policy than causality is one, every twin is not; codes and line are those that it says."""

import pytest

from leakcheck.auditing.context import Context
from leakcheck.auditing.policies import POLICIES, Judge, Policed, PolicyOutcome
from leakcheck.auditing.policies.telling import told
from leakcheck.checkpoints import plan_for
from leakcheck.checkpoints.source import short_path
from leakcheck.config import Settings
from leakcheck.findings import Finding, Verdict
from leakcheck.probes.probe import Prober
from leakcheck.zoo import LEAKS, Leak

OTHERS = [name for name, leak in LEAKS.items() if leak.policy in POLICIES]


def judged(leak: Leak, *, leaky: bool) -> tuple[PolicyOutcome, list[Finding]]:
    subject = leak.subject(leaky=leaky)
    prober = Prober(subject.model, plan_for, seq=subject.seq_len, vocab_size=subject.vocab_size, seed=0)
    outcome = Judge(prober).judge(POLICIES[leak.policy], leak.configuration)
    policed = Policed(leak.configuration, (outcome,))
    return outcome, list(told(policed, Context(subject, Settings(policies=(leak.policy,)))))


def test_each_policy_has_leaks() -> None:
    assert {LEAKS[name].policy for name in OTHERS} == set(POLICIES)


@pytest.mark.parametrize("name", OTHERS)
def test_it_is_found(name: str) -> None:
    leak = LEAKS[name]
    outcome, findings = judged(leak, leaky=True)
    assert outcome.verdict is leak.verdict
    assert set(leak.codes) == {f.code for f in findings if f.verdict in (Verdict.LEAK, Verdict.SUSPECT)}
    seen = {"flow": outcome.violations, "perturbation": outcome.moved, "gradient": None}  # no gradient is asked for
    assert sorted(name for name, saw in seen.items() if not saw) == sorted(leak.blind)
    named = next(((f.file, f.line) for f in findings if f.line), None)
    assert (named in {(short_path(file), line) for file, line in leak.lines}) == leak.blamed, named


@pytest.mark.parametrize("name", OTHERS)
def test_its_twin_is_quiet(name: str) -> None:
    outcome, findings = judged(LEAKS[name], leaky=False)
    assert outcome.verdict is (Verdict.OPEN if outcome.policy == "cache" else Verdict.PROVEN), findings
    assert outcome.moved == 0.0
    assert not outcome.violations
    assert all(control.caught for control in outcome.controls)
