"""Run every detector on every leak, on its clean twin and on every control."""

import itertools
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import torch

from leakcheck.auditing.matrix import matrix
from leakcheck.auditing.policies import asked_for
from leakcheck.checkpoints.source import short_path
from leakcheck.config import CAUSAL, Configuration, Contract, Settings
from leakcheck.errors import UsageError
from leakcheck.scoreboard.detectors import CAUSALITY, DETECTORS, TOGETHER, Entry, Said
from leakcheck.scoreboard.passes import counted
from leakcheck.subjects import running
from leakcheck.subjects.subject import Subject
from leakcheck.zoo import CONTROLS, LEAKS

Progress = Callable[[int, int, str], None]  # steps done, steps in all, what is being done


@dataclass(frozen=True)
class Row:
    """What one detector said of one subject.

    `kind` is "leak", "twin" or "control". `flagged` is `None` where the detector could not say, or raised (`note`). For
    a leak `line` is whether the first line it named is the planted one, `None` if it named none; `codes` whether all
    expected codes were raised, `None` for a detector that raises none. `forwards` are plain forwards of one sequence.
    """

    subject: str
    kind: str
    mechanism: str
    causal: bool  # the question: else it is another policy, or causality under a contract
    detector: str
    flagged: bool | None
    line: bool | None
    codes: bool | None
    forwards: float
    backwards: int
    note: str


@dataclass(frozen=True)
class _Case:
    subject: Callable[[], Subject]
    name: str
    kind: str
    mechanism: str
    configuration: Configuration | None  # of a control: all that an audit covers
    lines: frozenset[tuple[str, int]] = frozenset()
    codes: tuple[str, ...] = ()
    policies: tuple[str, ...] = (CAUSALITY,)
    contract: Contract = CAUSAL

    @property
    def is_causal(self) -> bool:
        """Whether the question is the one that every detector answers."""
        return self.policies == (CAUSALITY,) and self.contract == CAUSAL

    def is_for(self, entry: Entry) -> bool:
        """Those that are not ours know causality alone; a single witness does not tell that nothing later is seen."""
        if self.contract.bidirectional:
            return entry.name == TOGETHER
        return entry.ours or self.is_causal


def board(names: Iterable[str] = (), *, progress: Progress | None = None) -> list[Row]:
    """All rows of these leaks and controls, or of all.

    Raises:
        UsageError: a name is none of a leak or a control.
    """
    torch.set_num_threads(1)  # handing the operations of small models to several costs more than they do
    wanted = list(names)
    unknown = [name for name in wanted if name not in LEAKS and name not in CONTROLS]
    if unknown:
        raise UsageError(f"{unknown[0]}: no leak and no control of the zoo; `leakcheck bench --list` names them")
    cases = [case for case in _cases() if not wanted or case.name in wanted]
    detectors = [entry for entry in DETECTORS.values() if entry.available]
    pairs = [(case, entry) for case, entry in itertools.product(cases, detectors) if case.is_for(entry)]
    rows = []
    for done, (case, entry) in enumerate(pairs):
        if progress:
            progress(done, len(pairs), f"{case.name} ({case.kind}), {entry.name}")
        rows.append(_row(case, entry))
    return rows


def _cases() -> Iterator[_Case]:
    for leak in LEAKS.values():
        for leaky in (True, False):
            yield _Case(
                subject=lambda leak=leak, leaky=leaky: leak.subject(leaky=leaky),  # type: ignore[misc]
                name=leak.name,
                kind="leak" if leaky else "twin",
                mechanism=leak.mechanism,
                configuration=leak.configuration,
                lines=frozenset((short_path(file), line) for file, line in leak.lines) if leaky else frozenset(),
                codes=leak.codes if leaky else (),
                policies=(leak.policy,),
                contract=leak.configuration.contract,
            )
    for control in CONTROLS.values():
        yield _Case(
            control.subject,
            control.name,
            "control",
            control.family,
            None,
            policies=asked_for(control.policies),
            contract=control.contract,
        )


def _row(case: _Case, entry: Entry) -> Row:
    forwards, backwards, said = 0.0, 0, []
    try:
        subject = case.subject()
        for configuration in _configurations(case, subject):
            with counted() as plain, torch.no_grad(), running.configured(subject.model, configuration):
                running.forward(subject.model, torch.zeros(1, subject.seq_len, dtype=torch.long), configuration)
            with counted() as passes:
                said += [entry.run(subject, configuration, policy) for policy in case.policies]
            forwards += passes.elements / plain.elements
            backwards += passes.backwards
    except Exception as error:
        said.append(Said(None, note=f"{type(error).__name__}: {error}".splitlines()[0]))
    flags = [one.flagged for one in said]
    first = said[0]
    line = None if first.line is None else (short_path(first.file), first.line) in case.lines
    return Row(
        subject=case.name,
        kind=case.kind,
        mechanism=case.mechanism,
        causal=case.is_causal,
        detector=entry.name,
        flagged=True if True in flags else None if None in flags else False,
        line=line if case.kind == "leak" else None,
        codes=set(case.codes) <= set(first.codes) if case.kind == "leak" and first.codes else None,
        forwards=round(forwards / max(1, len(said)), 1),
        backwards=round(backwards / max(1, len(said))),
        note="; ".join(dict.fromkeys(one.note for one in said if one.note)),
    )


def _configurations(case: _Case, subject: Subject) -> list[Configuration]:
    if case.configuration is not None:
        return [case.configuration]
    return matrix(subject, Settings(contract=case.contract))
