"""One audit: the matrix, the controls, the witnesses, the verdict."""

import os
import platform
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import torch
import transformers
from torch import nn

from leakcheck import __version__
from leakcheck.auditing import leaks, maps, method1_v3, witnesses
from leakcheck.auditing.context import Crashed
from leakcheck.auditing.examine import Examined, Examiner
from leakcheck.auditing.matrix import default_configuration, matrix
from leakcheck.auditing.numbering import numbered
from leakcheck.auditing.policies import POLICIES, Policed, asked_for
from leakcheck.config import CAUSAL, Settings
from leakcheck.errors import NothingChecked, SubjectCrash, UsageError
from leakcheck.findings import (
    SCHEMA_VERSION,
    AuditResult,
    ConfigurationResult,
    Control,
    FullSize,
    SubjectInfo,
    Tool,
    Verdict,
    worst,
)
from leakcheck.subjects import running, state
from leakcheck.subjects.function import Function, class_name
from leakcheck.subjects.inputs import Inputs, declared
from leakcheck.subjects.load import load, prepared
from leakcheck.subjects.subject import Subject, unwrapped

Progress = Callable[[int, int, str], None]  # steps done, steps in all, what is being done


def audit(
    subject: str | Subject | nn.Module | Callable[..., Any],
    settings: Settings | None = None,
    *,
    inputs: Inputs | None = None,
    progress: Progress | None = None,
) -> AuditResult:
    """Audit a SPEC, a module or a function under every configuration that it supports.

    `inputs` says what it reads, where that cannot be told or should be something else. Model and process are as before
    afterwards, also after an error; see `subjects.state`.

    Raises:
        UsageError: the SPEC cannot be loaded, it is not known what the model reads, or an option does not fit it.
        SubjectCrash: the subject's forward raised or returned NaN.
        NothingChecked: there is no pair of positions to compare, or no policy that was asked for applies.
    """
    settings = settings or Settings()
    settings = replace(settings, policies=asked_for(settings.policies))
    inputs = inputs or declared(settings.inputs, settings.outputs)
    length: dict[str, Any] = {"seq_len": settings.seq_len, "at_least": settings.contract.shortest}
    if isinstance(subject, str):
        with state.process():  # nobody else has the model
            options = {"no_weights": settings.no_weights, "trust_remote_code": settings.trust_remote_code}
            return _audit(load(subject, inputs=inputs, **length, **options), settings, progress)
    if isinstance(subject, Subject):
        with state.preserved(subject.model):
            return _audit(subject, settings, progress)
    if not callable(subject):
        raise UsageError(f"{type(subject).__name__} cannot be audited; a SPEC, a Module or a function is needed")
    module = subject if isinstance(subject, nn.Module) else Function(subject)
    with state.preserved(module):
        made = prepared(class_name(module), module, "as built", inputs=inputs, **length)
        return _audit(replace(made, live=True), settings, progress)


def _audit(subject: Subject, settings: Settings, progress: Progress | None) -> AuditResult:
    started = time.perf_counter()
    running.spare_threads(subject.model)
    configurations = matrix(subject, settings)
    default = default_configuration(subject, configurations)
    examiner = Examiner(
        subject.model, seq=subject.seq_len, vocab_size=subject.vocab_size, seed=settings.seed, full=subject.full
    )
    plan = examiner.plan

    of_time = str(CAUSAL) in settings.policies
    done, steps = 0, len(configurations) + (method1_v3.steps(subject, plan, configurations) if of_time else 0)

    def step(what: str) -> None:
        nonlocal done
        if progress:
            progress(done, steps, what)
        done += 1

    examined: list[Examined] = []
    policed: list[Policed] = []
    crashed: list[Crashed] = []
    siblings = [name for name in settings.policies if name in POLICIES]
    for configuration in configurations:
        step(configuration.id)
        try:
            if of_time:
                examined.append(examiner.examine(configuration))
            policed.append(examiner.police(configuration, siblings))
        except SubjectCrash as error:
            crashed.append(Crashed(configuration, error))
    results = _results(examined, policed)
    verdict = worst(result.verdict for result in results)
    if crashed and verdict is not Verdict.LEAK:  # a crash must not hide a leak, nor look like a pass
        raise crashed[0].error
    told = [outcome for p in policed for outcome in p.outcomes if outcome.verdict is not Verdict.NOT_APPLICABLE]
    if told and not examined and all(outcome.crash for outcome in told):
        raise SubjectCrash(told[0].crash)
    if not examined and not told:
        needed = "; ".join(f"{name} needs {POLICIES[name].needs}" for name in siblings)
        raise NothingChecked(f"nothing to check in {subject.spec}: {needed}")
    examined = numbered(examined)
    judgement = method1_v3.Judgement()
    if examined and settings.contract == CAUSAL:  # what the trace's claims are about
        judgement = method1_v3.judge(subject, plan, examined, default, seed=settings.seed, step=step)

    found = leaks.findings(subject, examined, settings, crashed, policed)
    leaking = list(witnesses.leaks(examiner.prober, examined, policed))
    shown = witnesses.witnesses(subject, examiner.prober, settings, leaking, found)
    mapped = maps.worst(examined, default)
    return AuditResult(
        schema_version=SCHEMA_VERSION,
        tool=Tool("leakcheck", __version__),
        subject=SubjectInfo(
            spec=subject.spec,
            class_name=class_name(unwrapped(subject.model)),
            parameters=_parameters(unwrapped(subject.model)),
            seq_len=subject.seq_len,
            weights=subject.weights,
            plan=plan.name,
            inputs=subject.inputs,
            outputs=subject.outputs,
            accepted=configurations[0].accepted,
            contract=str(settings.contract),
            full_size=_full_size(subject.full),
        ),
        verdict=verdict,
        configurations=results,
        checkpoints=tuple(c for e in examined for c in e.checkpoints),
        statistics=judgement.statistics,
        safety_checks=judgement.safety_checks,
        ablation=judgement.ablation,
        fidelity=judgement.fidelity,
        conclusions=judgement.conclusions,
        findings=tuple(witnesses.linked(finding, shown) for finding in found),
        controls=_controls(examined, policed),
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
        horizon_map=maps.horizon_map(mapped) if mapped else None,
        delta_matrix=maps.delta_matrix(examiner.prober, mapped) if mapped else None,
        witnesses=shown,
    )


def _full_size(full: Subject | None) -> FullSize | None:
    return None if full is None else FullSize(_parameters(full.model), full.seq_len)


def _parameters(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def _results(examined: Sequence[Examined], policed: Sequence[Policed]) -> tuple[ConfigurationResult, ...]:
    """One for each configuration that was not cut short, with the verdicts of all policies."""
    own = {e.configuration: e.result for e in examined}
    return tuple(p.beside(own.get(p.configuration)) for p in policed)


def _controls(examined: Sequence[Examined], policed: Sequence[Policed]) -> tuple[Control, ...]:
    """Each control once: caught only if it was caught in every configuration."""
    caught: dict[tuple[str, str], bool] = {}
    put = [control for e in examined for control in (*e.probed.controls, *e.proof.controls)]
    put += [control for p in policed for outcome in p.outcomes for control in outcome.controls]
    for control in put:
        key = (control.name, control.expected)
        caught[key] = caught.get(key, True) and control.caught
    return tuple(Control(name, expected, ok) for (name, expected), ok in caught.items())
