"""The detectors that are compared: leakcheck's witnesses one by one and together, and what people use today.

A detector is given a subject, a configuration and a policy, and says whether it saw what that policy forbids. One that
is added here is a function with `@detector`; those that are not ours are asked about causality alone.
"""

import importlib.util
import math
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from leakcheck.auditing import leaks
from leakcheck.auditing.examine import Examiner
from leakcheck.auditing.policies import PolicyOutcome
from leakcheck.config import CAUSAL, Configuration, Settings
from leakcheck.findings import Verdict
from leakcheck.subjects import running
from leakcheck.subjects.subject import Subject, input_embedding

_SEED = 0
CAUSALITY = str(CAUSAL)  # the name of the first policy
TOGETHER = "leakcheck"  # what an audit says


@dataclass(frozen=True)
class Said:
    """What a detector said. `flagged` is `None` where it could not say; the first `file` and `line` that it named."""

    flagged: bool | None
    file: str = ""
    line: int | None = None
    codes: tuple[str, ...] = ()
    note: str = ""


Detector = Callable[[Subject, Configuration, str], Said]


@dataclass(frozen=True)
class Entry:
    """A detector of the scoreboard; `ours` are leakcheck's. What `needs` a package that is missing is left out."""

    name: str
    title: str
    run: Detector
    ours: bool
    needs: str = ""

    @property
    def available(self) -> bool:
        return not self.needs or importlib.util.find_spec(self.needs) is not None


DETECTORS: dict[str, Entry] = {}


def detector(name: str, title: str, *, ours: bool = False, needs: str = "") -> Callable[[Detector], Detector]:
    """Register the decorated function.

    Raises:
        ValueError: the name is taken.
    """

    def register(run: Detector) -> Detector:
        if name in DETECTORS:
            raise ValueError(f"detector {name} is registered twice")
        DETECTORS[name] = Entry(name, title, run, ours, needs)
        return run

    return register


def _examiner(subject: Subject) -> Examiner:
    return Examiner(subject.model, seq=subject.seq_len, vocab_size=subject.vocab_size, seed=_SEED)


@detector(TOGETHER, "all together", ours=True)
def together(subject: Subject, configuration: Configuration, policy: str) -> Said:
    examiner, settings = _examiner(subject), Settings(contract=configuration.contract, policies=(policy,))
    if policy == CAUSALITY:
        examined = examiner.examine(configuration)
        verdict, found = examined.result.verdict, leaks.findings(subject, [examined], settings)
    else:
        policed = examiner.police(configuration, [policy])
        verdict, found = policed.verdict, leaks.findings(subject, [], settings, (), [policed])
    named = next((f for f in found if f.verdict in (Verdict.LEAK, Verdict.SUSPECT) and f.line), None)
    return Said(
        flagged=verdict in (Verdict.LEAK, Verdict.SUSPECT),
        file=named.file if named else "",
        line=named.line if named else None,
        codes=tuple(dict.fromkeys(f.code for f in found)),
        note=str(verdict),
    )


@detector("flow alone", "one traced forward", ours=True)
def flow(subject: Subject, configuration: Configuration, policy: str) -> Said:
    if policy == CAUSALITY:
        prover = _examiner(subject).prover
        proof = prover.prove(configuration)
        violations, holes, proven = proof.violations, proof.holes, proof.holds
        blame = prover.blame(configuration, proof.widest) if violations else None
    else:
        outcome = _outcome(subject, configuration, policy)
        violations, holes, blame = outcome.violations or (), outcome.holes, outcome.blame
        proven = outcome.verdict is Verdict.PROVEN
    if not violations:
        return Said(False if proven else None, note="; ".join(map(str, holes)))
    place = blame.place if blame else None
    return Said(True, place.file if place else "", place.line if place else None)


@detector("perturbation alone", "tokens changed at every cut", ours=True)
def perturbation(subject: Subject, configuration: Configuration, policy: str) -> Said:
    if policy == CAUSALITY:
        return Said(_examiner(subject).prober.probe(configuration).logits.moved)
    moved = _outcome(subject, configuration, policy).moved
    return Said(None if moved is None else moved > 0)


@detector("gradient alone", "gradients at every cut", ours=True)
def gradient(subject: Subject, configuration: Configuration, policy: str) -> Said:
    if policy == CAUSALITY:
        return Said(_examiner(subject).prober.probe(configuration).logits.gradient > 0)
    return Said(None, note="gradients are asked about causality alone")


def _outcome(subject: Subject, configuration: Configuration, policy: str) -> PolicyOutcome:
    (outcome,) = _examiner(subject).police(configuration, [policy]).outcomes
    return outcome


@detector("ten-line test", "change the last token, `allclose` with atol 1e-5")
def ten_line_test(subject: Subject, configuration: Configuration, policy: str) -> Said:
    """What model code is commonly tested with; in the configuration that leaks, which such a test has to think of."""
    tokens = _tokens(subject)
    other = tokens.clone()
    other[:, -1] = (other[:, -1] + 1) % subject.vocab_size
    with running.configured(subject.model, configuration), torch.no_grad():
        before, after = _forward(subject, configuration, tokens), _forward(subject, configuration, other)
    return Said(not torch.allclose(before[:, :-1], after[:, :-1], atol=1e-5))


@detector("NaN poisoning", "NaN in the embedding of the last token")
def nan_poisoning(subject: Subject, configuration: Configuration, policy: str) -> Said:
    tokens = _tokens(subject)

    def poison(module: nn.Module, args: tuple, output: Tensor) -> Tensor:
        poisoned = output.clone()
        poisoned[:, -1] = math.nan
        return poisoned

    with ExitStack() as stack:
        stack.enter_context(running.configured(subject.model, configuration))
        stack.enter_context(torch.no_grad())
        stack.callback(input_embedding(subject.model).register_forward_hook(poison).remove)
        return Said(bool(_forward(subject, configuration, tokens)[:, :-1].isnan().any()))


@detector("VJP certificate", "`certify` of the package causal-certificate, all cuts", needs="causal_certificate")
def vjp_certificate(subject: Subject, configuration: Configuration, policy: str) -> Said:
    from causal_certificate import certify

    tokens, embedding = _tokens(subject), input_embedding(subject.model)
    with torch.no_grad():
        embedded = embedding(tokens)  # [1, seq, hidden]: it needs a differentiable input

    def logits(x: Tensor) -> Tensor:
        handle = embedding.register_forward_hook(lambda module, args, output: x)
        try:
            return _forward(subject, configuration, tokens)
        finally:
            handle.remove()

    with running.configured(subject.model, configuration):
        return Said(not certify(logits, embedded, cuts="all", batch_check=False).is_strictly_causal)


def _tokens(subject: Subject) -> Tensor:
    """`[1, seq]`, drawn."""
    generator = torch.Generator().manual_seed(_SEED)
    return torch.randint(subject.vocab_size, (1, subject.seq_len), generator=generator)


def _forward(subject: Subject, configuration: Configuration, tokens: Tensor) -> Any:
    torch.manual_seed(_SEED)  # dropout is the same each time
    return running.forward(subject.model, tokens, configuration)
