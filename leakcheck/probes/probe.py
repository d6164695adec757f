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
from leakcheck.errors import NothingChecked
from leakcheck.findings import Control, WorstCase
from leakcheck.probes import measure, precision
from leakcheck.probes.draws import Batch, batches
from leakcheck.probes.measure import Deltas, Measurement
from leakcheck.probes.tap import tapped
from leakcheck.subjects import running
from leakcheck.subjects.subject import input_embedding

# Rows of one batch may differ by rounding when the batch has another size; more than this, relative, is coupling.
_COUPLING = 1e-3


@dataclass(frozen=True)
class Decided:
    """Deltas after float64 has spoken: what was rounding is zero here and kept in `rounding`.

    `confirmed` is false where float64 could not be run: a delta that nothing confirms is a suspicion.
    """

    output: float
    relative: float
    gradient: float
    local: float | None
    rounding: float
    padded: int
    worst: WorstCase | None
    confirmed: bool = True

    @property
    def moved(self) -> bool:
        return self.output > 0


@dataclass(frozen=True, eq=False)
class Probed:
    """All that the probes found under one configuration.

    `unconfirmed` says why a suspicion could not be decided in float64. `independent` is false when a row depends on
    its batch (dropout, batch statistics): rows then ran one by one and the checkpoints were not measured.
    """

    logits: Decided
    readings: tuple[tuple[Reading, Decided], ...]
    pairs_covered: int
    pairs_total: int
    padded_queries: int
    vacuous: bool
    unconfirmed: str
    independent: bool
    controls: tuple[Control, ...]


class Prober:
    """Probes one model under any number of configurations; keeps its float64 copy."""

    def __init__(
        self, model: nn.Module, plan_for: Callable[[nn.Module], Plan], *, seq: int, vocab_size: int, seed: int
    ):
        self.model = model
        self.plan_for = plan_for
        self.plan = plan_for(model)
        self.seq, self.vocab_size, self.seed = seq, vocab_size, seed
        self.sizes = {size for parameter in model.parameters() for size in parameter.shape}

    @cached_property
    def _double(self) -> tuple[nn.Module, Plan]:
        model = copy.deepcopy(self.model).double()
        return model, self.plan_for(model)

    def batches(self, configuration: Configuration) -> list[Batch]:
        """The batches that cover every cut of every draw under `configuration`.

        Raises:
            NothingChecked: there is no pair of a position and a later one.
        """
        if self.seq < 2 or self.vocab_size < 2:
            raise NothingChecked(
                f"nothing to compare: {self.seq} position(s), {self.vocab_size} token(s); two of each are needed"
            )
        valid = running.valid_positions(configuration, self.seq)
        return list(batches(seq=self.seq, vocab_size=self.vocab_size, valid=valid, seed=self.seed, sizes=self.sizes))

    def probe(self, configuration: Configuration) -> Probed:
        """Measure, decide, and put the controls to the harness.

        Raises:
            SubjectCrash: the forward raised or returned NaN.
            NothingChecked: there is no pair of positions.
        """
        work = self.batches(configuration)
        with running.configured(self.model, configuration):
            single = [measure.measure(self.model, self.plan, batch, configuration) for batch in work]
            independent = self._independent(single[0], work[0], configuration)
            if not independent:
                single = [measure.measure_rows(self.model, batch, configuration) for batch in work]
            controls = self._controls(single[0], work[0], configuration, independent)
        double: list[Measurement] | None = single
        unconfirmed = ""
        if any(_suspicious(measurement) for measurement in single):
            try:
                double = self._in_float64(work, configuration, independent)
            except Exception as error:  # whatever a float32-only kernel raises; the suspicion then stays one
                double, unconfirmed = None, f"not decided in float64: {type(error).__name__}: {error}".splitlines()[0]

        covered = torch.stack([batch.covered_pairs for batch in work]).any(0)
        return Probed(
            logits=_decide([m.logits for m in single], None if double is None else [m.logits for m in double]),
            readings=_decide_readings(single, double),
            pairs_covered=int(covered.sum()),
            pairs_total=self.seq * (self.seq - 1) // 2,
            padded_queries=int((~work[0].valid).sum()),
            unconfirmed=unconfirmed,
            vacuous=not any(m.past_effect for m in single),
            independent=independent,
            controls=controls,
        )

    def _in_float64(self, work: Sequence[Batch], configuration: Configuration, independent: bool) -> list[Measurement]:
        model, plan = self._double
        configured = running.configured(model, configuration, recompute_context=precision.float64)
        with configured, precision.float64():
            if independent:
                return [measure.measure(model, plan, batch, configuration, each_gradient=True) for batch in work]
            return [measure.measure_rows(model, batch, configuration) for batch in work]

    def _independent(self, measured: Measurement, batch: Batch, configuration: Configuration) -> bool:
        """Whether no random number is drawn, and the base row alone gives what it and its twin give in the batch."""
        if measured.random:
            return False
        with torch.no_grad(), tapped(input_embedding(self.model), batch.scale[:1]):
            alone = running.forward(self.model, batch.tokens[:1], configuration)[0]  # [seq, vocab]
        difference = (alone - measured.base_logits)[batch.valid].abs().max().item()
        tolerance = _COUPLING * measured.base_logits[batch.valid].abs().max().item()
        return max(difference, measured.twin_delta) <= tolerance

    def _controls(
        self, measured: Measurement, batch: Batch, configuration: Configuration, independent: bool
    ) -> tuple[Control, ...]:
        """A leak planted behind the embedding must be seen; two equal rows must not differ."""
        quiet = Control("two equal inputs", "no delta", measured.twin_delta == 0 or independent)
        usable = (batch.valid[:-1] & batch.valid[1:]).nonzero()
        if not len(usable):
            return (quiet,)
        plant_at = int(usable[len(usable) // 2])
        if independent:
            planted = measure.measure(self.model, None, batch, configuration, plant_at=plant_at)
        else:
            planted = measure.measure_rows(self.model, batch, configuration, plant_at=plant_at)
        name = "one position reads a thousandth of its successor's embedding"
        seen = [Control(f"{name}: output", "delta", planted.logits.output > 0)]
        if independent:
            seen.append(Control(f"{name}: gradient", "delta", planted.logits.gradient > 0))
            local = measure.planted_local([r for r, _ in measured.readings], batch, plant_at)
            if local is not None:
                seen.append(Control("one position of a stage's output reads its successor: local", "delta", local > 0))
        return (quiet, *seen)


def _suspicious(measured: Measurement) -> bool:
    every = [measured.logits, *(deltas for _, deltas in measured.readings)]
    return any(d.output or d.gradient or d.local for d in every)


def _decide(single: Sequence[Deltas], double: Sequence[Deltas] | None) -> Decided:
    one = _joined(single)
    two = one if double is None else _joined(double)

    def real(single: float, double: float, scale: float) -> float:
        return 0.0 if precision.is_rounding(single, double, scale) else double

    output = real(one.output, two.output, two.scale)
    return Decided(
        output=output,
        relative=output / two.allowed if two.allowed else 0.0,
        # The float32 gradient is one of all tensors together, and tells nothing about the conditioning of this one.
        gradient=real(0.0, two.gradient, two.gradient_scale),
        local=None if one.local is None or two.local is None else real(one.local, two.local, two.scale),
        rounding=0.0 if output else one.output,
        padded=one.padded,
        worst=two.worst if output else None,
        confirmed=double is not None,
    )


def _decide_readings(
    single: Sequence[Measurement], double: Sequence[Measurement] | None
) -> tuple[tuple[Reading, Decided], ...]:
    """Match the readings of all runs by their place; one that not every run reached is left out."""
    low = [_by_place(m) for m in single]
    high = [_by_place(m) for m in double] if double else []
    places = [place for place in low[0] if all(place in run for run in (*low, *high))]
    return tuple(
        (low[0][place][0], _decide([r[place][1] for r in low], [r[place][1] for r in high] or None)) for place in places
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
