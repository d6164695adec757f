"""What only Method1_v3 is asked: its trace's statistics, safety checks, fidelity and conclusions."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from leakcheck.auditing import ablation, parity
from leakcheck.auditing.conclusions import conclusions
from leakcheck.auditing.examine import Examined
from leakcheck.checkpoints.method1_v3 import Method1Plan
from leakcheck.checkpoints.reading import Plan
from leakcheck.config import Configuration
from leakcheck.findings import AblationRow, Conclusion, Fidelity, PathStatistics, SafetyCheck
from leakcheck.lineage.statistics import statistics
from leakcheck.subjects.subject import Subject


@dataclass(frozen=True)
class Judgement:
    """The trace's claims against what was measured; empty for a model that has no such trace."""

    statistics: dict[str, PathStatistics] = field(default_factory=dict)
    safety_checks: tuple[SafetyCheck, ...] = ()
    ablation: tuple[AblationRow, ...] = ()
    fidelity: Fidelity | None = None
    conclusions: tuple[Conclusion, ...] = ()


def steps(subject: Subject, plan: Plan, configurations: Sequence[Configuration]) -> int:
    """How many steps `judge` announces at most."""
    if not isinstance(plan, Method1Plan):
        return 0
    control = len(configurations) if parity.has_control(subject) else 0
    return control + (2 * ablation.COMBINATIONS if ablation.can_ablate(subject) else 0)


def judge(
    subject: Subject,
    plan: Plan,
    examined: Sequence[Examined],
    default: Configuration,
    *,
    seed: int,
    step: Callable[[str], None],
) -> Judgement:
    """Statistics are those of the default configuration: what a user gets who sets nothing."""
    if not isinstance(plan, Method1Plan):
        return Judgement()
    seq, configurations = subject.seq_len, [e.configuration for e in examined]
    whole = next(e for e in examined if e.configuration == default)
    rows: tuple[AblationRow, ...] = ()
    if ablation.can_ablate(subject):
        chosen = _ablation_configurations(whole, configurations)
        rows = ablation.ablate(subject, chosen, seq=seq, seed=seed, step=step)
    control = None
    if parity.has_control(subject):
        control = parity.compare(subject, configurations, default, seq=seq, seed=seed, step=step)
    checks = ablation.safety_checks(plan, examined, rows)
    return Judgement(
        statistics=statistics(whole.lineage, ablation.acted(whole)),
        safety_checks=checks,
        ablation=rows,
        fidelity=_fidelity(examined, default),
        conclusions=conclusions(examined, checks, rows, control),
    )


def _ablation_configurations(whole: Examined, configurations: Sequence[Configuration]) -> list[Configuration]:
    """The default configuration; where no mask exists in it, also the first in which the eager backend makes one."""
    chosen = [whole.configuration]
    if all(origin.is_none for origin in whole.lineage.origins):
        chosen += [c for c in configurations if c.attention == "eager" and c.mask == "none"][:1]
    return chosen


def _fidelity(examined: Sequence[Examined], default: Configuration) -> Fidelity | None:
    """Under the default configuration, or the first in which the re-mask acts."""
    ordered = sorted(examined, key=lambda e: e.configuration != default)
    return next((e.lineage.fidelity for e in ordered if e.lineage.fidelity is not None), None)
