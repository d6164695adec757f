"""Probe one configuration: every cut, every draw, in float32; what moves is decided in float64."""

import copy
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import nn

from leakcheck.checkpoints.reading import Plan, Reading
from leakcheck.config import Configuration
from leakcheck.errors import NothingChecked, SubjectCrash
from leakcheck.findings import Control, WorstCase
from leakcheck.probes import measure, precision
from leakcheck.probes.draws import Batch, Plant, Setting, batches
from leakcheck.probes.measure import Deltas, Measurement
from leakcheck.probes.tap import tapped
from leakcheck.subjects import running
from leakcheck.subjects.adapter import Adapter
from leakcheck.subjects.subject import input_embedding

# Rows of one batch may differ by rounding when the batch has another size; more than this, relative, is coupling.
_COUPLING = 1e-3
_LARGE = 20_000_000  # parameters: beyond it each cut is made with one draw


@dataclass(frozen=True)
class Decided:
    """Deltas after float64 has spoken: what was rounding is zero here, and an output's is kept in `rounding`."""

    output: float
    relative: float
    gradient: float
    local: float | None
    rounding: float
    padded: int
    worst: WorstCase | None
    reached: tuple[int, ...] = ()  # the positions that moved though they may not

    @property
    def moved(self) -> bool:
        return self.output > 0


@dataclass(frozen=True, eq=False)
class Probed:
    """All that the probes found under one configuration.

    `unconfirmed` says why a suspicion could not be decided in float64. `independent` is false when a row depends on
    its batch (dropout, batch statistics): rows then ran one by one and the checkpoints were not measured.
    `repeatable` is false when equal inputs gave different outputs: then nothing that moved means anything.
    """

    logits: Decided
    readings: tuple[tuple[Reading, Decided], ...]
    pairs_covered: int
    pairs_total: int
    padded_queries: int
    vacuous: bool
    with_later: tuple[int, ...]  # the positions that have a later one beside padding
    unconfirmed: str
    independent: bool
    repeatable: bool
    controls: tuple[Control, ...]
    aimed: Batch | None = None  # what showed it where the draws of every cut did not


class Prober:
    """Probes one model under any number of configurations; keeps its float64 copy.

    With `each_gradient` a leak is followed by one backward pass for each tensor; without it they share one gradient.
    """

    def __init__(
        self,
        model: nn.Module,
        plan_for: Callable[[nn.Module], Plan],
        *,
        seq: int,
        vocab_size: int,
        seed: int,
        each_gradient: bool = True,
    ):
        self.model = model
        self.plan_for = plan_for
        self.plan = plan_for(model)
        self.seq, self.vocab_size, self.seed = seq, vocab_size, seed
        self.each_gradient = each_gradient
        self.parameters = sum(parameter.numel() for parameter in model.parameters())
        self.sizes = {size for parameter in model.parameters() for size in parameter.shape}

    def at(self, seq: int) -> "Prober":
        """The same prober for sequences of another length."""
        _ = self.double  # which both then have
        other = copy.copy(self)
        other.seq = seq
        return other

    @cached_property
    def double(self) -> tuple[nn.Module, Plan]:
        """A copy of the model in float64, and its plan."""
        model = copy.deepcopy(self.model).double()
        return model, self.plan_for(model)

    def batches(self, configuration: Configuration) -> list[Batch]:
        """The batches that cover every cut of every draw under `configuration`.

        Raises:
            NothingChecked: there is no pair of a position and a later one.
        """
        if self.seq < 2 or self.vocab_size < 2 or not configuration.contract.pairs(self.seq):
            raise NothingChecked(
                f"nothing to compare: {self.seq} position(s), {self.vocab_size} token(s); two of each are needed"
            )
        return list(batches(self.setting(configuration)))

    def setting(self, configuration: Configuration) -> Setting:
        """What the batches of this configuration have in common."""
        adapter = self.model if isinstance(self.model, Adapter) else None
        return Setting(
            vocab_size=self.vocab_size,
            valid=running.valid_positions(configuration, self.seq),
            seed=self.seed,
            sizes=self.sizes,
            contract=configuration.contract,
            base=adapter.base(self.seq) if adapter else None,
            step=adapter.step if adapter else 1,
            every=self.parameters <= _LARGE,
        )

    def probe(self, configuration: Configuration, only: Batch | None = None, *, alone: bool = False) -> Probed:
        """Measure, decide, and put the controls to the harness.

        With `only`, a batch in which float64 saw something move, in place of all cuts of all draws. With `alone`, row
        by row, as where the code that runs depends on the values in a batch.

        Raises:
            SubjectCrash: the forward raised or returned NaN.
            NothingChecked: there is no pair of positions.
        """
        work = self.batches(configuration) if only is None else [only]
        with running.configured(self.model, configuration):
            try:
                measured = [measure.measure(self.model, self.plan, batch, configuration) for batch in work]
                independent = not alone and self._independent(measured[0], work[0], configuration)
            except SubjectCrash:
                if configuration.mode != "eval":
                    raise
                measured, independent = [], False  # it may run as inference does: without gradients
        outcome = self._decide(measured, work, configuration, seen=only is not None) if independent else None
        if outcome is None or not self._stands_alone(outcome, work, configuration):
            independent = False
            with running.configured(self.model, configuration):
                measured = [measure.measure_rows(self.model, batch, configuration) for batch in work]
            outcome = self._decide(measured, work, configuration, seen=only is not None)

        covered = torch.stack([batch.covered_pairs for batch in work]).any(0)
        with running.configured(self.model, configuration):
            first = {batch.mirrored: (batch, single) for batch, single in reversed([*zip(work, measured, strict=True)])}
            planted = [c for pair in first.values() for c in self._planted(*pair, configuration, independent)]
        return Probed(
            logits=outcome.logits,
            readings=outcome.readings,
            pairs_covered=int(covered.sum()),
            pairs_total=configuration.contract.pairs(self.seq),
            padded_queries=int((~work[0].valid).sum()),
            with_later=tuple(work[0].valid.nonzero()[:-1, 0].tolist()),
            unconfirmed=outcome.unconfirmed,
            vacuous=not any(m.past_effect for m in outcome.single),
            independent=independent,
            repeatable=outcome.repeatable,
            controls=(Control("two equal inputs", "no delta", outcome.repeatable), *planted),
        )

    def _decide(
        self, single: list[Measurement], work: Sequence[Batch], configuration: Configuration, *, seen: bool
    ) -> "_Outcome":
        """What moved in float32, or was `seen` to move, is measured again in float64, in the same way."""
        if not seen and not any(_suspicious(measurement) for measurement in single):
            return _Outcome(single, single, "")
        each = self.each_gradient and any(_has_gradient(measurement) for measurement in single)
        try:
            model, plan = self.double
            with running.configured(model, configuration, recompute_context=precision.float64):
                if single[0].by_rows:
                    double = [
                        measure.measure_rows(model, batch, configuration, within=precision.float64) for batch in work
                    ]
                else:
                    double = [
                        measure.measure(model, plan, batch, configuration, each_gradient=each, within=precision.float64)
                        for batch in work
                    ]
        except Exception as error:  # of a float32-only kernel, or of copying; the suspicion then stays one
            reason = f"not decided in float64: {type(error).__name__}: {error}".splitlines()[0]
            return _Outcome(single, None, reason)
        return _Outcome(single, double, "")

    def _stands_alone(self, outcome: "_Outcome", work: Sequence[Batch], configuration: Configuration) -> bool:
        """Whether a leak is one of each row by itself: the worst case and the base, each run alone, still differ.

        If they do not, the row moved with the other rows of its batch.
        """
        worst = outcome.logits.worst
        if worst is None or outcome.double is None:
            return True
        batch = next(b for b in work if b.has(worst))
        model, _ = self.double
        pair = batch.only(worst.draw, worst.cut)
        with running.configured(model, configuration):
            alone = measure.measure_rows(model, pair, configuration, within=precision.float64)
        return not precision.is_rounding(0.0, alone.logits.relative, 1.0)

    def _independent(self, measured: Measurement, batch: Batch, configuration: Configuration) -> bool:
        """Whether the base row alone gives what it and its twin give in the batch."""
        with torch.no_grad(), tapped(input_embedding(self.model), batch.scale[:1]):
            alone = running.forward(self.model, batch.tokens[:1], configuration)[0]  # [seq, vocab]
        difference = (alone - measured.base_logits)[batch.valid].abs().max().item()
        tolerance = _COUPLING * measured.base_logits[batch.valid].abs().max().item()
        return max(difference, measured.twin_delta) <= tolerance

    def _planted(
        self, batch: Batch, measured: Measurement, configuration: Configuration, independent: bool
    ) -> list[Control]:
        """A leak planted behind the embedding must be seen in the output, in the gradient and locally."""
        plant = batch.plant
        if plant is None:
            return []
        whom = _whom(plant)
        name = f"one position reads a thousandth of {whom}'s embedding"
        if not independent:
            planted = measure.measure_rows(self.model, batch.showing(plant), configuration, plant=plant)
            return [Control(f"{name}: output", "delta", planted.logits.output > 0)]
        planted = measure.measure(self.model, None, batch.showing(plant), configuration, plant=plant)
        seen = [Control(f"{name}: output", "delta", planted.logits.output > 0)]
        if planted.embedded:
            seen.append(Control(f"{name}: gradient", "delta", planted.logits.gradient > 0))
        local = measure.planted_local([r for r, _ in measured.readings], batch, plant)
        if local is not None:
            seen.append(Control(f"one position of a stage's output reads {whom}: local", "delta", local > 0))
        return seen


def _whom(plant: Plant) -> str:
    """The planted source in words: the first position that may not be seen."""
    far = plant.source - plant.position
    if far == 1:
        return "its successor"
    return f"the position {abs(far)} " + ("ahead" if far > 0 else "back")


@dataclass(frozen=True, eq=False)
class _Outcome:
    """The measurements of one configuration in float32 and float64; `double` is `None` where float64 cannot run."""

    single: list[Measurement]
    double: list[Measurement] | None
    unconfirmed: str

    @cached_property
    def logits(self) -> Decided:
        return _decided(
            [m.logits for m in self.single], None if self.double is None else [m.logits for m in self.double]
        )

    @cached_property
    def readings(self) -> tuple[tuple[Reading, Decided], ...]:
        return _decided_readings(self.single, self.double)

    @property
    def repeatable(self) -> bool:
        """Whether two equal inputs gave the same output, up to rounding."""
        double = self.double or self.single
        pairs = zip(self.single, double, strict=True)
        return all(precision.is_rounding(one.twin_delta, two.twin_delta, two.size) for one, two in pairs)


def _has_gradient(measured: Measurement) -> bool:
    return any(d.gradient for d in (measured.logits, *(deltas for _, deltas in measured.readings)))


def _suspicious(measured: Measurement) -> bool:
    every = [measured.logits, *(deltas for _, deltas in measured.readings)]
    return bool(measured.twin_delta) or any(d.output or d.gradient or d.local for d in every)


def _decided(single: Sequence[Deltas], double: Sequence[Deltas] | None) -> Decided:
    one = _joined(single)
    two = one if double is None else _joined(double)

    output = 0.0 if precision.is_rounding(one.relative, two.relative, 1.0) else two.output
    local = two.local if one.local is not None else None
    if local is not None and precision.is_rounding(one.local_relative, two.local_relative, 1.0):
        local = 0.0
    # The float32 gradient is one of all tensors together, and tells nothing about the conditioning of this one.
    gradient = 0.0 if precision.is_rounding(0.0, two.gradient, two.gradient_scale) else two.gradient
    return Decided(
        output=output,
        relative=output / two.allowed if two.allowed else 0.0,
        gradient=gradient,
        local=local,
        rounding=0.0 if output else one.output,
        padded=one.padded,
        worst=two.worst if output else None,
        reached=_reached(two) if output else (),
    )


def _reached(deltas: Deltas) -> tuple[int, ...]:
    moves = [] if deltas.by_position is None else deltas.by_position.tolist()
    return tuple(p for p, move in enumerate(moves) if not precision.is_rounding(0.0, move, 1.0))


def _decided_readings(
    single: Sequence[Measurement], double: Sequence[Measurement] | None
) -> tuple[tuple[Reading, Decided], ...]:
    """Match the readings of all runs by their place; one that not every run reached is left out."""
    low = [_by_place(m) for m in single]
    high = [_by_place(m) for m in double] if double else []
    places = [place for place in low[0] if all(place in run for run in (*low, *high))]
    return tuple(
        (low[0][place][0], _decided([r[place][1] for r in low], [r[place][1] for r in high] or None))
        for place in places
    )


def _by_place(measured: Measurement) -> dict[tuple, tuple[Reading, Deltas]]:
    """Readings by key and by how often the key came before: a module may be called more than once."""
    seen: Counter = Counter()
    places = {}
    for reading, deltas in measured.readings:
        places[reading.key, seen[reading.key]] = (reading, deltas)
        seen[reading.key] += 1
    return places


def _joined(deltas: Sequence[Deltas]) -> Deltas:
    result = deltas[0]
    for other in deltas[1:]:
        result = result.join(other)
    return result
