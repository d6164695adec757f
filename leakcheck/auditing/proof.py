"""The proof: one forward with flow's labels, read at the output and at every checkpoint."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn

from leakcheck.checkpoints.axes import Axes
from leakcheck.checkpoints.reading import Reading, Spot
from leakcheck.checkpoints.recorder import record
from leakcheck.config import Configuration
from leakcheck.findings import Control, HorizonRow
from leakcheck.flow.blame import Blame, blame
from leakcheck.flow.labels import LARGEST
from leakcheck.flow.reports import Hole, Reports, SoftMask
from leakcheck.flow.trace import Trace, Violation, conclude, traced
from leakcheck.flow.widening import explained
from leakcheck.probes.probe import Prober
from leakcheck.subjects import running
from leakcheck.subjects.subject import input_embedding

Lane = tuple[str, int | None]  # path and layer
Ahead = list[int | None]  # how far each position sees beyond what it may; `None` where that is not known

_ROWS = 2  # of a traced batch: with one alone, what mixes up rows and positions would go unseen
_CARRIED = ("op without a rule", "rule failed")  # kinds of holes that labels show behind them
UNTRACEABLE = "untraceable forward"  # a hole of the audit's own: the subject runs, but not with labels


@dataclass(frozen=True, eq=False)
class Proof:
    """What flow established under one configuration, for every token sequence and all weights of these shapes.

    A horizon is how many positions beyond those that it may see the furthest-seeing valid position can see: 0 for none,
    `None` where a hole was in the way or positions cannot be told. `horizon` is that of the logits, `horizons` those of
    the checkpoints, and `rows` tell them position by position. `seeing` are the positions that can see a later one at
    all, whether or not they may.
    """

    horizon: int | None = None
    seeing: frozenset[int] = frozenset()
    horizons: dict[Spot, int | None] = field(default_factory=dict)
    rows: tuple[HorizonRow, ...] = ()
    violations: tuple[Violation, ...] = ()
    holes: tuple[Hole, ...] = ()
    soft_masks: tuple[SoftMask, ...] = ()
    controls: tuple[Control, ...] = ()
    traced: bool = False  # whether the forward ran with labels to its end

    @property
    def widest(self) -> Violation:
        return max(self.violations, key=lambda violation: abs(violation.source - violation.position))

    @property
    def trusted(self) -> bool:
        """Whether flow saw what was planted for it."""
        return all(control.caught for control in self.controls)

    @property
    def holds(self) -> bool:
        return self.trusted and self.horizon == 0 and not self.holes and not self.violations

    @property
    def hard(self) -> bool:
        """Whether no finite mask value bears it: then nothing that the probes could try would cross."""
        return self.holds and not self.soft_masks


class Prover:
    """Traces the model of a prober; the control is put once for each attention backend.

    If the model has no weights, loops whose length tokens decide are checked on its `copy` that has.
    """

    def __init__(self, prober: Prober, copy: "Prover | None" = None):
        self.prober, self.model, self.plan = prober, prober.model, prober.plan
        self.copy = copy
        self._controls: dict[str, tuple[Control, ...]] = {}

    def prove(self, configuration: Configuration) -> Proof:
        """Trace one forward. If it cannot run with labels that is a hole: it ran without them.

        Cost: one forward of two rows; another one for the control, the first time that a backend is met.
        """
        tokens = self._tokens(configuration)
        sight = Sight.of(configuration, tokens)
        try:
            trace, horizon, horizons, rows = self._trace(configuration, tokens, sight)
            back = self._back(configuration, tokens)
        except Exception as error:
            reason = f"{type(error).__name__}: {error}".splitlines()[0]
            carries = f"every output may depend on every input; with labels the forward stops with {reason}"
            return Proof(holes=(Hole(f"{type(self.model).__name__}.forward", UNTRACEABLE, carries, None),))
        if not self._controls.get(configuration.attention):
            self._controls[configuration.attention] = self._planted(configuration, tokens, sight, trace)
        if any(hole.kind not in _CARRIED for hole in trace.holes):
            # The program may know more of its tokens than labels say: what they say may be too early, or too late.
            horizon, horizons = None, dict.fromkeys(horizons)
            rows = tuple(replace(row, ahead=(None,) * len(row.ahead)) for row in rows)
        violations, controls = trace.violations, self._controls[configuration.attention]
        if back is not None:
            violations += back.violations
            controls += back.controls
            horizon = horizon if back.covered else None
        ahead = trace.horizon > torch.arange(tokens.shape[1])  # [batch, seq]
        return Proof(
            horizon=horizon,
            seeing=frozenset((ahead | ~trace.covered).any(0).nonzero().flatten().tolist()),
            horizons=horizons,
            rows=rows,
            violations=violations,
            holes=trace.holes,
            soft_masks=trace.soft_masks,
            controls=controls,
            traced=True,
        )

    def _back(self, configuration: Configuration, tokens: Tensor) -> "_Back | None":
        """What a second forward says of how far back positions look; `None` where they may look back to the first.

        Its labels are those of the positions counted from the end: the largest that is seen is the earliest position.
        """
        if configuration.contract.window is None:
            return None
        sight = Sight.of(configuration, tokens, mirrored=True)
        trace, *_ = self._trace(configuration, tokens, sight)
        last = tokens.shape[1] - 1
        violations = tuple(Violation(v.batch, v.position, last - v.source) for v in trace.violations)
        controls = self._planted(configuration, tokens, sight, trace)
        return _Back(violations, controls, bool(trace.covered.all()) and not trace.holes)

    def blame(self, configuration: Configuration, violation: Violation) -> Blame | None:
        """Why there is this violation, from one more forward; `None` where flow cannot tell."""
        try:
            tokens, mirrored = self._tokens(configuration), violation.source < violation.position
            labels = Sight.of(configuration, tokens, mirrored=mirrored).labels
            told = Violation(violation.batch, violation.position, int(labels[violation.batch, violation.source]))
            with self._running(configuration) as run:
                return blame(self.model, tokens, told, labels, run=run)
        except Exception:  # the violation stands without its story
            return None

    def _tokens(self, configuration: Configuration) -> Tensor:
        return self.prober.batches(configuration)[0].tokens[:_ROWS]

    @contextmanager
    def _running(self, configuration: Configuration) -> Iterator[Callable[[Tensor], Tensor]]:
        """Token ids to logits. Gradients are on where users have them on: some modules run other kernels then."""
        with running.configured(self.model, configuration), torch.set_grad_enabled(configuration.mode != "eval"):
            yield lambda token_ids: running.forward(self.model, token_ids, configuration)

    def _trace(
        self, configuration: Configuration, tokens: Tensor, sight: "Sight"
    ) -> tuple[Trace, int | None, dict[Spot, int | None], tuple[HorizonRow, ...]]:
        """The trace, the horizon of the logits, those of the checkpoints, and both for each position."""
        axes = Axes(*tokens.shape)
        with self._running(configuration) as run:

            def watched() -> tuple[Tensor, list[Reading]]:
                logits, recording = record(lambda: run(tokens), **self.plan.watch())
                # Readings run pieces of the subject again, whose results need labels too.
                return logits, self.plan.readings(recording, axes)

            tracer, (logits, readings) = traced(watched, self.model, tokens, sight.labels)
            horizons: dict[Spot, int | None] = {}
            lanes: dict[Lane, list[Ahead]] = {}
            for reading in readings:
                _, path, layer = reading.spot
                for tensor in reading.tensors:
                    ahead = _ahead(axes.rows(tracer.read(tensor)), sight)
                    lanes.setdefault((path, layer), []).append(ahead)
                    horizons[reading.spot] = furthest([_horizon(ahead, sight), horizons.get(reading.spot, 0)])
            output = tracer.read(logits)
            if tracer.reports.widened:
                self._explain(configuration, tracer.reports)
        ahead = _ahead(output.flatten(2), sight)
        rows = [HorizonRow(*lane, tuple(map(furthest, zip(*found, strict=True)))) for lane, found in lanes.items()]
        rows.append(HorizonRow("", None, tuple(ahead)))
        return conclude(tracer, output, sight.valid, sight.limit), _horizon(ahead, sight), horizons, tuple(rows)

    def _explain(self, configuration: Configuration, reports: Reports) -> None:
        runner = self.copy or self
        with runner._running(configuration) as run, torch.no_grad():
            explained(run, runner._tokens(configuration), reports)

    def _planted(
        self, configuration: Configuration, tokens: Tensor, sight: "Sight", clean: Trace
    ) -> tuple[Control, ...]:
        """Behind the embedding two positions read each other, which only one of them may."""
        batch = next(b for b in self.prober.batches(configuration) if b.mirrored == sight.mirrored)
        if batch.plant is None:
            return ()
        plant, at, source = batch.plant, batch.plant.position, batch.plant.source
        if clean.holes or not clean.covered.all():
            return ()  # a hole may be in the way of what would be planted, and forbids a proof by itself

        def mix(module: nn.Module, args: tuple, output: Any) -> Any:
            if not isinstance(output, Tensor) or output.shape[:2] != tokens.shape:
                return None
            mixed = output.clone()
            mixed[:, plant.inputs] += output[:, source, None]
            mixed[:, source] += output[:, at]
            return mixed if output.is_floating_point() else mixed // 2  # ids have to stay in the vocabulary

        handle = input_embedding(self.model).register_forward_hook(mix)
        try:
            planted, *_ = self._trace(configuration, tokens, sight)
            violating = {(v.batch, v.position) for v in planted.violations}
        except Exception:  # it ran without the plant
            violating = set()
        finally:
            handle.remove()
        before = {(v.batch, v.position) for v in clean.violations}
        labels, limit = sight.labels[0], sight.limit
        inheriting = ((limit >= labels[at]) & (limit < labels[source])).nonzero()[:, 0].tolist()  # may see who leaks
        leak = {(row, at) for row in range(len(tokens))}
        passed_on = {(row, position) for row in range(len(tokens)) for position in inheriting}
        far = abs(source - at)
        after, before_it = ("its successor", "its predecessor") if far == 1 else (f"{far} ahead", f"{far} back")
        if sight.mirrored:
            after, before_it = before_it, after
        return (
            Control(f"flow: one position reads {after}'s embedding", "violation", leak <= violating),
            Control(
                f"flow: one position reads {before_it}'s embedding", "no violation", violating <= before | passed_on
            ),
        )


@dataclass(frozen=True, eq=False)
class _Back:
    violations: tuple[Violation, ...]
    controls: tuple[Control, ...]
    covered: bool


@dataclass(frozen=True, eq=False)
class Sight:
    """The labels `[batch, seq]` of a trace, the largest that each position `[seq]` may have, and which are no padding.

    With `mirrored` they count from the end, and tell how far back a position looks.
    """

    labels: Tensor
    limit: Tensor
    valid: Tensor
    mirrored: bool

    @classmethod
    def of(cls, configuration: Configuration, tokens: Tensor, *, mirrored: bool = False) -> "Sight":
        seq, contract = tokens.shape[1], configuration.contract
        labels, limit = torch.arange(seq), torch.tensor(contract.latest(seq))
        if mirrored:
            labels, limit = seq - 1 - labels, seq - 1 - torch.tensor(contract.earliest(seq))
        valid = running.valid_positions(configuration, seq)
        return cls(labels.expand(len(tokens), -1), limit, valid, mirrored)


def _ahead(labels: Tensor | None, sight: Sight) -> Ahead:
    """The horizon of each position of a tensor's labels `[batch, seq, features]`."""
    if labels is None or not labels.numel():
        return [None] * len(sight.limit)
    if labels.stride(-1) == 0:  # all features have one label
        labels = labels[..., :1]
    latest = labels.amax(-1).amax(0).long()  # [seq]
    ahead = (latest - sight.limit).clamp(min=0)
    return [None if hole else far for far, hole in zip(ahead.tolist(), (latest > LARGEST).tolist(), strict=True)]


def _horizon(ahead: Ahead, sight: Sight) -> int | None:
    """The horizon of the positions that are no padding."""
    valid = [far for far, is_valid in zip(ahead, sight.valid.tolist(), strict=True) if is_valid]
    return furthest(valid) if valid else None


def furthest(horizons: Iterable[int | None]) -> int | None:
    """The largest; unknown if one is."""
    every = list(horizons)
    return None if None in every else max(h for h in every if h is not None)
