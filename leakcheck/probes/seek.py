"""Seek a witness where a dependence is admitted that the ordinary draws did not show.

Aimed at pairs of positions: many tokens, longer embeddings, in float64. Then under other weights, in a copy: what moves
there is no witness against this model, but it tells why nothing moves here (a gate that is zero, a unit that is dead).
"""

import copy
from collections.abc import Sequence
from dataclasses import replace

from torch import nn

from leakcheck.config import Configuration
from leakcheck.errors import SubjectCrash
from leakcheck.probes import measure, precision
from leakcheck.probes.draws import Batch, aimed
from leakcheck.probes.probe import Probed, Prober
from leakcheck.subjects import running
from leakcheck.subjects.subject import randomise

_DRAWS, _WEIGHTS = 32, 3
_CANDIDATES = 2  # moves that are put to the probes; if they are rounding, so are the others

Pair = tuple[int, int]  # the position that may read, the later position that it may read


def seek(prober: Prober, configuration: Configuration, pairs: Sequence[Pair], known: Probed) -> Probed | None:
    """The probes again, on a change that moves an earlier position; `None` where none was found.

    `known` is what they found before. Cost: at most a hundred forwards of some eight rows, in float64.
    """
    model, _ = prober.double
    setting = prober.setting(configuration)
    candidates = 0
    for number in range(_DRAWS):
        for reader, source in _representative(pairs):
            batch = aimed(setting, reader, source, number)
            if not _moves(model, batch, configuration, independent=known.independent):
                continue
            probed = prober.probe(configuration, batch)
            if probed.repeatable and probed.logits.moved and not probed.unconfirmed:
                # Whether the harness sees at all was found with every cut; these few rows need not show it.
                return replace(
                    probed,
                    pairs_covered=known.pairs_covered,
                    vacuous=known.vacuous,
                    controls=known.controls,
                    aimed=batch,
                )
            candidates += 1
            if candidates == _CANDIDATES:
                return None
    return None


def under_other_weights(prober: Prober, configuration: Configuration) -> float:
    """How far past logits move in a copy whose weights are drawn anew; 0.0 where they never do.

    Cost: one probe of the configuration for each of a few draws.
    """
    for seed in range(1, _WEIGHTS + 1):
        model = copy.deepcopy(prober.model)
        randomise(model, seed)
        other = Prober(
            model, prober.plan_for, seq=prober.seq, vocab_size=prober.vocab_size, seed=prober.seed, each_gradient=False
        )
        try:
            probed = other.probe(configuration)
        except SubjectCrash:  # not every model is finite under every weight
            continue
        if probed.repeatable and probed.logits.moved and not probed.unconfirmed:
            return probed.logits.output
    return 0.0


def _representative(pairs: Sequence[Pair]) -> list[Pair]:
    """The closest pair, the farthest, and the first reader's."""
    ordered = sorted(pairs, key=lambda pair: (pair[1] - pair[0], pair))
    return list(dict.fromkeys([ordered[0], ordered[-1], min(pairs)]))


def _moves(model: nn.Module, batch: Batch, configuration: Configuration, *, independent: bool) -> bool:
    """Whether past logits move in float64 beyond rounding; where float64 cannot run, nothing is seen."""
    try:
        with running.configured(model, configuration, recompute_context=precision.float64):
            if independent:
                deltas = measure.measure_logits(model, batch, configuration, within=precision.float64)
            else:
                deltas = measure.measure_rows(model, batch, configuration, within=precision.float64).logits
    except Exception:  # whatever a float32-only kernel raises
        return False
    return not precision.is_rounding(0.0, deltas.relative, 1.0)
