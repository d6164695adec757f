"""One audit: the matrix, the controls, the witnesses, the verdict."""

import os
import platform
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime

import torch
import transformers
from torch import nn

from leakcheck import __version__
from leakcheck.auditing import leaks, method1_v3
from leakcheck.auditing.examine import Examined, Examiner
from leakcheck.auditing.matrix import default_configuration, matrix
from leakcheck.config import Settings
from leakcheck.findings import SCHEMA_VERSION, AuditResult, Control, FullSize, SubjectInfo, Tool, worst
from leakcheck.subjects.load import load
from leakcheck.subjects.subject import Subject

_SMALL = 2_000_000  # parameters
Progress = Callable[[int, int, str], None]  # steps done, steps in all, what is being done


def audit(subject: str | Subject, settings: Settings | None = None, *, progress: Progress | None = None) -> AuditResult:
    """Audit a subject, given as a SPEC or loaded, under every configuration that it supports.

    Raises:
        UsageError: the SPEC cannot be loaded or an option does not fit it.
        SubjectCrash: the subject's forward raised or returned NaN.
        NothingChecked: there is no pair of positions to compare.
    """
    settings = settings or Settings()
    if isinstance(subject, str):
        subject = load(subject, seq_len=settings.seq_len, no_weights=settings.no_weights)
    with _threads_for(subject.model):
        return _audit(subject, settings, progress)


def _audit(subject: Subject, settings: Settings, progress: Progress | None) -> AuditResult:
    started = time.perf_counter()
    configurations = matrix(subject, settings)
    default = default_configuration(subject, configurations)
    examiner = Examiner(
        subject.model, seq=subject.seq_len, vocab_size=subject.vocab_size, seed=settings.seed, full=subject.full
    )
    plan = examiner.plan

    done, steps = 0, len(configurations) + method1_v3.steps(subject, plan, configurations)

    def step(what: str) -> None:
        nonlocal done
        if progress:
            progress(done, steps, what)
        done += 1

    examined = []
    for configuration in configurations:
        step(configuration.id)
        examined.append(examiner.examine(configuration))
    judgement = method1_v3.judge(subject, plan, examined, default, seed=settings.seed, step=step)

    return AuditResult(
        schema_version=SCHEMA_VERSION,
        tool=Tool("leakcheck", __version__),
        subject=SubjectInfo(
            spec=subject.spec,
            class_name=type(subject.model).__name__,
            parameters=_parameters(subject.model),
            seq_len=subject.seq_len,
            weights=subject.weights,
            plan=plan.name,
            full_size=_full_size(subject.full),
        ),
        verdict=worst(e.result.verdict for e in examined),
        configurations=tuple(e.result for e in examined),
        checkpoints=tuple(c for e in examined for c in e.checkpoints),
        statistics=judgement.statistics,
        safety_checks=judgement.safety_checks,
        ablation=judgement.ablation,
        fidelity=judgement.fidelity,
        conclusions=judgement.conclusions,
        findings=leaks.findings(subject, examined, settings),
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


def _full_size(full: Subject | None) -> FullSize | None:
    return None if full is None else FullSize(_parameters(full.model), full.seq_len)


def _parameters(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


@contextmanager
def _threads_for(model: nn.Module) -> Iterator[None]:
    """One thread for a small model: handing its operations to several costs more than they do."""
    threads = torch.get_num_threads()
    if _parameters(model) < _SMALL:
        torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _controls(examined: Sequence[Examined]) -> tuple[Control, ...]:
    """Each control once: caught only if it was caught in every configuration."""
    caught: dict[tuple[str, str], bool] = {}
    for e in examined:
        for control in (*e.probed.controls, *e.proof.controls):
            key = (control.name, control.expected)
            caught[key] = caught.get(key, True) and control.caught
    return tuple(Control(name, expected, ok) for (name, expected), ok in caught.items())
