"""Every leak is one, every twin is not, by brute force; an audit says so, names the codes and the line.

A leak is added as one function in `leakcheck/zoo/leaks/` or `leakcheck/zoo/mutators/`; these tests ask for the rest.
"""

import re
from pathlib import Path

import pytest
import torch
from transformers import MixtralForCausalLM

from leakcheck.auditing import leaks
from leakcheck.auditing.examine import Examined, Examiner
from leakcheck.checkpoints.source import short_path
from leakcheck.config import Settings
from leakcheck.findings import Finding, Verdict
from leakcheck.subjects.adapter import Adapter
from leakcheck.zoo import LEAKS, MUTATORS, Leak
from tests import oracle

CAUSAL = [name for name, leak in LEAKS.items() if leak.policy == "causal"]
# Brute force changes tokens and reads logits: of other models, and of weights that do not show it, it cannot speak.
TOKENS = [n for n in CAUSAL if LEAKS[n].inputs is None and LEAKS[n].verdict is Verdict.LEAK]


def examined(leak: Leak, *, leaky: bool) -> tuple[Examined, tuple[Finding, ...]]:
    subject = leak.subject(leaky=leaky)
    examiner = Examiner(subject.model, seq=subject.seq_len, vocab_size=subject.vocab_size, seed=0)
    result = examiner.examine(leak.configuration)
    return result, leaks.findings(subject, [result], Settings(contract=leak.configuration.contract))


def largest_leak(leak: Leak, seq: int, *, leaky: bool) -> float:
    """The largest move of a position by a later token that it may not see, by brute force."""
    subject = leak.subject_of(leak.build(leaky=leaky), seq)
    assert not isinstance(subject.model, Adapter)
    if leak.configuration.attention != "default":
        subject.model.set_attn_implementation(leak.configuration.attention)
    if isinstance(subject.model, MixtralForCausalLM):
        subject.model.set_experts_implementation("eager")  # the fused kernel has no float64
    if leak.configuration.mode == "train+checkpointing":
        subject.model.gradient_checkpointing_enable()
    train = leak.configuration.mode != "eval"
    moved = oracle.moves(subject.model, seq=seq, vocab_size=subject.vocab_size, train=train)  # [cut, position]
    latest = torch.tensor(leak.configuration.contract.latest(seq))
    return moved[torch.arange(seq)[:, None] > latest].max().item()


@pytest.mark.parametrize("name", CAUSAL)
def test_an_audit_finds_it(name: str) -> None:
    """Its verdict, its codes, by the detectors that can see it and by no other, and the line."""
    leak = LEAKS[name]
    result, findings = examined(leak, leaky=True)
    assert result.result.verdict is leak.verdict
    assert set(leak.codes) <= {finding.code for finding in findings}

    logits = result.probed.logits
    seen = {"flow": result.proof.violations, "perturbation": logits.moved, "gradient": logits.gradient}
    assert sorted(name for name, saw in seen.items() if not saw) == sorted(leak.blind)

    named = next((f.file, f.line) for f in findings if f.verdict in (Verdict.LEAK, Verdict.SUSPECT) and f.line)
    assert (named in {(short_path(file), line) for file, line in leak.lines}) == leak.blamed, named


def test_most_lines_are_named() -> None:
    assert sum(leak.blamed for leak in LEAKS.values()) >= 0.9 * len(LEAKS)


@pytest.mark.parametrize("name", CAUSAL)
def test_its_clean_twin_is_not(name: str) -> None:
    result, findings = examined(LEAKS[name], leaky=False)
    assert result.result.verdict in (Verdict.PROVEN, Verdict.OPEN), findings
    assert not result.proof.violations


@pytest.mark.parametrize("name", TOKENS)
def test_brute_force_agrees(name: str) -> None:
    """The twin is quiet; the leak shows from its shortest length on, and not before."""
    leak = LEAKS[name]
    assert largest_leak(leak, max(leak.shortest, 5), leaky=False) < 1e-13
    assert largest_leak(leak, leak.shortest, leaky=True) > 1e-12
    if leak.shortest > 2:
        assert largest_leak(leak, leak.shortest - 1, leaky=True) < 1e-13


@pytest.mark.parametrize("name", LEAKS)
def test_it_says_where_it_was_learned_and_what_it_is(name: str) -> None:
    leak = LEAKS[name]
    assert re.match(r"https://\S+$", leak.learned_from)
    assert leak.make.__doc__ or name.partition("[")[0] in MUTATORS
    assert all(Path(file).is_file() for file, _ in leak.lines)
