"""Examine one model under one configuration: probes and lineage side by side, a verdict for every checkpoint."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from torch import nn

from leakcheck.checkpoints import plan_for
from leakcheck.checkpoints.reading import Reading
from leakcheck.config import Configuration
from leakcheck.findings import Checkpoint, ConfigurationResult, Verdict, WorstCase, worst
from leakcheck.lineage.trace import Key, Lineage, Passed, trace
from leakcheck.probes.probe import Decided, Probed, Prober


@dataclass(frozen=True, eq=False)
class Examined:
    """One configuration: what was measured, where, and what it amounts to."""

    configuration: Configuration
    probed: Probed
    lineage: Lineage
    result: ConfigurationResult
    checkpoints: tuple[Checkpoint, ...]

    @property
    def first_leak(self) -> Checkpoint | None:
        """The first stage, in the order of the forward, that lets the future in by itself."""
        return self.first_leak_on(None)

    def first_leak_on(self, path: str | None) -> Checkpoint | None:
        leaks = [c for c in self.checkpoints if c.verdict is Verdict.LEAK and path in (None, c.path)]
        return min(leaks, key=lambda c: (c.layer or 0, c.stage), default=None)


class Examiner:
    """Examines one model under any number of configurations."""

    def __init__(self, model: nn.Module, *, seq: int, vocab_size: int, seed: int):
        self.prober = Prober(model, plan_for, seq=seq, vocab_size=vocab_size, seed=seed)
        self.model, self.plan = model, self.prober.plan

    def examine(self, configuration: Configuration) -> Examined:
        """Raises SubjectCrash and NothingChecked as `Prober.probe` does."""
        probed = self.prober.probe(configuration)
        tokens = self.prober.batches(configuration)[0].tokens
        lineage = trace(self.model, self.plan, configuration, tokens)
        verdict = configuration_verdict(probed)
        checkpoints = _checkpoints(configuration, probed, lineage, leaks=verdict is Verdict.LEAK)
        result = ConfigurationResult(
            id=configuration.id,
            attention=configuration.attention,
            mask=configuration.mask,
            mode=configuration.mode,
            cache=configuration.cache,
            verdict=verdict,
            policies={"causal": verdict},
            paths={
                path: worst(c.verdict for c in checkpoints if c.path == path) if probed.independent else verdict
                for path in self.plan.paths
            },
            output_delta=probed.logits.output,
            relative_delta=probed.logits.relative,
            gradient_delta=probed.logits.gradient,
            rounding_delta=probed.logits.rounding,
            worst_case=probed.logits.worst,
            pairs_covered=probed.pairs_covered,
            pairs_total=probed.pairs_total,
            padded_queries=probed.padded_queries,
            padded_queries_moved=probed.logits.padded,
        )
        # The readings hold the tensors of a whole forward, which nothing after this needs.
        return Examined(configuration, replace(probed, readings=()), lineage, result, checkpoints)


def configuration_verdict(probed: Probed) -> Verdict:
    """A confirmed delta of the logits is a leak; an unconfirmed one, or a gradient alone, a suspicion.

    Clean probes prove nothing: the verdict is OPEN until flow closes it. Inner tensors do not decide: a model may
    compute something that sees the future and never use it. Where equal inputs give different outputs, nothing that
    moved means anything.
    """
    if not probed.repeatable:
        return Verdict.OPEN
    if probed.logits.moved:
        return Verdict.SUSPECT if probed.unconfirmed else Verdict.LEAK
    return Verdict.SUSPECT if probed.logits.gradient else Verdict.OPEN


def blame(readings: Sequence[tuple[Reading, Decided]], *, leaks: bool) -> list[Verdict]:
    """A verdict for each reading of one forward.

    LEAK is for the innermost stage whose past output moves with the future rows of its own input; a stage around it,
    or after it, is CONTAMINATED. Without a leak at the output, whatever moves is SUSPECT.
    """
    inner = [reading for reading, decided in readings if decided.local and decided.moved]
    verdicts = []
    for reading, decided in readings:
        if not decided.moved:
            verdict = Verdict.SUSPECT if decided.local or decided.gradient else Verdict.OPEN
        elif not leaks:
            verdict = Verdict.SUSPECT
        elif decided.local and not any(other is not reading and reading.encloses(other) for other in inner):
            verdict = Verdict.LEAK
        else:
            verdict = Verdict.CONTAMINATED
        verdicts.append(verdict)
    return verdicts


def _checkpoints(
    configuration: Configuration, probed: Probed, lineage: Lineage, *, leaks: bool
) -> tuple[Checkpoint, ...]:
    verdicts = blame(probed.readings, leaks=leaks)
    measured: dict[tuple, list[tuple[Decided, Verdict]]] = {}
    for (reading, decided), verdict in zip(probed.readings, verdicts, strict=True):
        key = (reading.stage.number, reading.path, reading.layer)
        measured.setdefault(key, []).append((decided, verdict))
    order = sorted(lineage.stages, key=lambda key: (key[0], key[1] != "standard", -1 if key[2] is None else key[2]))
    return tuple(_checkpoint(configuration, key, lineage.stages[key], measured.get(key, ())) for key in order)


def _checkpoint(
    configuration: Configuration, key: Key, passed: Passed, measured: Sequence[tuple[Decided, Verdict]]
) -> Checkpoint:
    location = passed.location
    decided = [d for d, _ in measured]
    local = [d.local for d in decided if d.local is not None]
    moved: list[WorstCase] = [d.worst for d in decided if d.worst is not None]
    return Checkpoint(
        stage=key[0],
        phase=passed.stage.phase,
        path=key[1],
        layer=key[2],
        configuration=configuration.id,
        module=passed.module,
        function=location.function,
        file=location.file,
        lines=location.lines,
        operation=location.operation,
        passes=passed.passes,
        runs=passed.runs,
        horizon=None,
        output_delta=max((d.output for d in decided), default=None),
        relative_delta=max((d.relative for d in decided), default=None),
        gradient_delta=max((d.gradient for d in decided), default=None),
        local_delta=max(local, default=None),
        rounding_delta=max((d.rounding for d in decided), default=None),
        worst_case=max(moved, key=lambda case: case.delta, default=None),
        verdict=worst(v for _, v in measured),
        library=passed.library,
        title=passed.stage.title,
        note="; ".join(passed.notes),
    )
