"""Examine one model under one configuration: three witnesses side by side, a verdict for every checkpoint."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from torch import nn

from leakcheck.auditing.policies import POLICIES, Judge, Policed
from leakcheck.auditing.proof import Proof, Prover, furthest
from leakcheck.auditing.verdicts import configuration_verdict, stage_verdicts
from leakcheck.checkpoints import plan_for
from leakcheck.checkpoints.reading import Plan, Spot
from leakcheck.config import Configuration
from leakcheck.findings import Checkpoint, ConfigurationResult, Verdict, WorstCase, worst
from leakcheck.flow.blame import Blame
from leakcheck.flow.reports import CONTROL_FLOW
from leakcheck.lineage.passing import Passed
from leakcheck.lineage.trace import Lineage, trace
from leakcheck.probes.probe import Decided, Probed, Prober
from leakcheck.probes.seek import seek, under_other_weights
from leakcheck.subjects.subject import Subject


@dataclass(frozen=True, eq=False)
class Examined:
    """One configuration: what was measured, what was proven, where, and what it amounts to.

    `blame` tells why there is the widest of flow's violations in the probed model, `sought` in words how the search for
    a witness ended; nothing where there was none.
    """

    configuration: Configuration
    probed: Probed
    proof: Proof
    blame: Blame | None
    sought: str
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
    """Examines one model under any number of configurations.

    Where the model is a shrunken copy of `full`, probes and lineage speak of the copy, and flow of the full size.
    """

    def __init__(self, model: nn.Module, *, seq: int, vocab_size: int, seed: int, full: Subject | None = None):
        self.prober = Prober(model, plan_for, seq=seq, vocab_size=vocab_size, seed=seed)
        self.model, self.plan = model, self.prober.plan
        self.prover = self.of_copy = Prover(self.prober)
        self.judge = Judge(self.prober)
        if full is not None:
            at_full_size = Prober(full.model, plan_for, seq=full.seq_len, vocab_size=full.vocab_size, seed=seed)
            self.prover = Prover(at_full_size, self.of_copy)
            self.judge = Judge(self.prober, at_full_size)

    def examine(self, configuration: Configuration) -> Examined:
        """Raises SubjectCrash and NothingChecked as `Prober.probe` does."""
        probed = self.prober.probe(configuration)
        tokens = self.prober.batches(configuration)[0].tokens
        proof = self.prover.prove(configuration)
        if probed.independent and not probed.logits.moved and any(h.kind == CONTROL_FLOW for h in proof.holes):
            # The rows of a batch went one way through the code, which each by itself need not go.
            alone = self.prober.probe(configuration, alone=True)
            probed = alone if alone.logits.moved else probed
        contract = configuration.contract
        if contract.bidirectional:  # to see what is later is no violation of it
            proof = replace(proof, violations=(), horizon=None)
        note, story = "", None
        admitted = self._in_probed(configuration, proof)
        if admitted.violations:
            story = self.of_copy.blame(configuration, admitted.widest)
        if proof.violations and probed.repeatable and not probed.logits.moved:
            pairs = [(violation.position, violation.source) for violation in admitted.violations]
            found = seek(self.prober, configuration, pairs, probed) if pairs else None
            note = "" if found else self._elsewhere(configuration) if pairs else "the shrunken copy has none such"
            probed = found or probed
        lineage = trace(self.model, self.plan, configuration, tokens)
        if self.prover is not self.of_copy:
            proof = replace(proof, horizons=_by_role(proof.horizons, self.prover.plan, lineage.stages))
        verdict = configuration_verdict(probed, proof, contract)
        checkpoints = _checkpoints(configuration, probed, proof, lineage, leaks=verdict is Verdict.LEAK)
        if contract.bidirectional:  # a stage may see what it likes
            checkpoints = tuple(replace(c, verdict=Verdict.NOT_APPLICABLE) for c in checkpoints)
        result = ConfigurationResult(
            id=configuration.id,
            attention=configuration.attention,
            mask=configuration.mask,
            mode=configuration.mode,
            cache=configuration.cache,
            verdict=verdict,
            policies={str(contract): verdict},
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
            horizon=proof.horizon,
        )
        # The readings hold the tensors of a whole forward, which nothing after this needs.
        return Examined(configuration, replace(probed, readings=()), proof, story, note, lineage, result, checkpoints)

    def police(self, configuration: Configuration, names: Sequence[str]) -> Policed:
        """What becomes of the policies of these names."""
        return Policed(configuration, tuple(self.judge.judge(POLICIES[name], configuration) for name in names))

    def _in_probed(self, configuration: Configuration, proof: Proof) -> Proof:
        """If the proof has violations, that of the model that is probed: its positions can be aimed at."""
        return self.of_copy.prove(configuration) if proof.violations and self.prover is not self.of_copy else proof

    def _elsewhere(self, configuration: Configuration) -> str:
        """What is known of a dependence that nothing showed under these weights."""
        moved = under_other_weights(self.prober, configuration)
        if not moved:
            return "nothing moved it, under these weights or others"
        return f"nothing moved it under these weights; under others, drawn at random, it moves by {moved:.2g}"


def _by_role(horizons: Mapping[Spot, int | None], of: Plan, stages: Mapping[Spot, Passed]) -> dict[Spot, int | None]:
    """The horizons of a model of another size at these spots: those of the stage and path, at the worst layer."""
    roles = {stage.number: (stage.phase, stage.title) for stage in of.stages}
    worst_of: dict[tuple, int | None] = {}
    for (number, path, _), horizon in horizons.items():
        key = (*roles[number], path)
        worst_of[key] = furthest([horizon, worst_of.get(key, 0)])
    found = {spot: (passed.stage.phase, passed.stage.title, spot[1]) for spot, passed in stages.items()}
    return {spot: worst_of[key] for spot, key in found.items() if key in worst_of}


def _checkpoints(
    configuration: Configuration, probed: Probed, proof: Proof, lineage: Lineage, *, leaks: bool
) -> tuple[Checkpoint, ...]:
    verdicts = stage_verdicts(probed, proof, leaks=leaks)
    measured: dict[Spot, list[Decided]] = {}
    for reading, decided in probed.readings:
        measured.setdefault(reading.spot, []).append(decided)
    order = sorted(lineage.stages, key=lambda key: (key[0], key[1] != "standard", -1 if key[2] is None else key[2]))
    return tuple(
        _checkpoint(
            configuration,
            key,
            lineage.stages[key],
            measured.get(key, ()),
            proof.horizons.get(key),
            verdicts.get(key, Verdict.NOT_APPLICABLE),
        )
        for key in order
    )


def _checkpoint(
    configuration: Configuration,
    key: Spot,
    passed: Passed,
    decided: Sequence[Decided],
    horizon: int | None,
    verdict: Verdict,
) -> Checkpoint:
    location = passed.location
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
        horizon=horizon,
        output_delta=max((d.output for d in decided), default=None),
        relative_delta=max((d.relative for d in decided), default=None),
        gradient_delta=max((d.gradient for d in decided), default=None),
        local_delta=max(local, default=None),
        rounding_delta=max((d.rounding for d in decided), default=None),
        worst_case=max(moved, key=lambda case: case.delta, default=None),
        verdict=verdict,
        library=passed.library,
        title=passed.stage.title,
        note="; ".join(passed.notes),
    )
