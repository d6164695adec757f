"""One audit: the matrix, the controls, the witnesses, the verdict."""

import os
import platform
import time
from collections.abc import Callable
from datetime import UTC, datetime

import torch
import transformers

from leakcheck import __version__
from leakcheck.audit import ablation, conclusions, leaks, parity
from leakcheck.audit.examine import Examined, Examiner
from leakcheck.audit.matrix import default_configuration, matrix
from leakcheck.checkpoints.method1_v3 import Method1Plan
from leakcheck.config import Configuration, Settings
from leakcheck.findings import SCHEMA_VERSION, AuditResult, Control, Fidelity, SubjectInfo, Tool, worst
from leakcheck.lineage.fidelity import fidelity
from leakcheck.lineage.statistics import statistics
from leakcheck.subjects import running
from leakcheck.subjects.load import load
from leakcheck.subjects.subject import Subject

Progress = Callable[[int, int, str], None]  # steps done, steps in all, what is being done

_COMBINATIONS = 2 ** len(ablation.SWITCHES)


def audit(subject: str | Subject, settings: Settings | None = None, *, progress: Progress | None = None) -> AuditResult:
    """Audit a subject, given as a SPEC or loaded, under every configuration that it supports.

    Raises:
        UsageError: the SPEC cannot be loaded or an option does not fit it.
        SubjectCrash: the subject's forward raised or returned NaN.
        NothingChecked: there is no pair of positions to compare.
    """
    settings = settings or Settings()
    started = time.perf_counter()
    if isinstance(subject, str):
        subject = load(subject, seq_len=settings.seq_len)
    configurations = matrix(subject, settings)
    default = default_configuration(subject, configurations)
    examiner = Examiner(subject.model, seq=subject.seq_len, vocab_size=subject.vocab_size, seed=settings.seed)
    plan = examiner.plan
    traced = isinstance(plan, Method1Plan)
    ablated = traced and ablation.can_ablate(subject)
    controlled = traced and parity.has_control(subject)

    steps = len(configurations) * (2 if controlled else 1) + (_COMBINATIONS if ablated else 0)
    done = 0

    def step(what: str) -> None:
        nonlocal done
        if progress:
            progress(done, steps, what)
        done += 1

    examined = []
    for configuration in configurations:
        step(configuration.id)
        examined.append(examiner.examine(configuration))

    rows, checks, claims, stats, distance = (), (), (), {}, None
    if traced:
        common = {"seq": subject.seq_len, "seed": settings.seed, "step": step}
        whole = next(e for e in examined if e.configuration == default)
        if ablated:
            rows = ablation.ablate(subject, _ablation_configurations(whole, configurations), **common)
        control = parity.compare(subject, configurations, default, **common) if controlled else None
        checks = ablation.safety_checks(plan, examined, rows)
        claims = conclusions.conclusions(examined, checks, rows, control)
        stats = statistics(whole.lineage, ablation.acted(whole))
        distance = _fidelity(examined, plan, default, subject.seq_len)

    return AuditResult(
        schema_version=SCHEMA_VERSION,
        tool=Tool("leakcheck", __version__),
        subject=SubjectInfo(
            spec=subject.spec,
            class_name=type(subject.model).__name__,
            parameters=sum(p.numel() for p in subject.model.parameters()),
            seq_len=subject.seq_len,
            weights=subject.weights,
            plan=plan.name,
        ),
        verdict=worst(e.result.verdict for e in examined),
        configurations=tuple(e.result for e in examined),
        checkpoints=tuple(c for e in examined for c in e.checkpoints),
        statistics=stats,
        safety_checks=checks,
        ablation=rows,
        fidelity=distance,
        conclusions=claims,
        findings=leaks.findings(subject, examined, seq=subject.seq_len, seed=settings.seed),
        controls=_controls(examined),
        environment={
            "python": platform.python_version(),
            "torch": torch.__version__,
            "transformers": transformers.__version__,
            "platform": platform.platform(),
            "cpus": os.cpu_count(),
            "threads": torch.get_num_threads(),
            "finished": datetime.now(UTC).isoformat(timespec="seconds"),
            "seconds": round(time.perf_counter() - started, 2),
        },
    )


def _ablation_configurations(whole: Examined, configurations: list[Configuration]) -> list[Configuration]:
    """The default configuration; where no mask exists in it, also the first in which one is made by the eager backend."""
    chosen = [whole.configuration]
    if all(origin.is_none for origin in whole.lineage.origins):
        chosen += [c for c in configurations if c.attention == "eager" and c.mask == "none"][:1]
    return chosen


def _fidelity(examined: list[Examined], plan: Method1Plan, default: Configuration, seq: int) -> Fidelity | None:
    """Under the default configuration, or the first in which the re-mask acts."""
    for e in sorted(examined, key=lambda e: e.configuration != default):
        found = fidelity(e.lineage, plan, running.valid_positions(e.configuration, seq))
        if found is not None:
            return found
    return None


def _controls(examined: list[Examined]) -> tuple[Control, ...]:
    """Each control once: caught only if it was caught in every configuration."""
    caught: dict[tuple[str, str], bool] = {}
    for e in examined:
        for control in e.probed.controls:
            key = (control.name, control.expected)
            caught[key] = caught.get(key, True) and control.caught
    return tuple(Control(name, expected, ok) for (name, expected), ok in caught.items())
