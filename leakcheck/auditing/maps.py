"""One configuration position by position: how far each layer can see, and how far each input moves each output."""

from collections.abc import Sequence
from contextlib import nullcontext

import torch
from torch import Tensor, nn

from leakcheck.auditing.examine import Examined
from leakcheck.config import Configuration
from leakcheck.errors import SubjectCrash
from leakcheck.findings import DeltaMatrix, HorizonMap
from leakcheck.findings import worst as worst_of
from leakcheck.probes import measure, precision
from leakcheck.probes.draws import BASE
from leakcheck.probes.measure import Within, distance
from leakcheck.probes.probe import Prober
from leakcheck.subjects import running

_ELEMENTS = 2**24  # of the logits of one forward


def worst(examined: Sequence[Examined], default: Configuration) -> Examined | None:
    """The configuration with the gravest verdict that moves most; else what a user gets who sets nothing."""
    gravest = worst_of(e.result.verdict for e in examined)
    candidates = [e for e in examined if e.result.verdict is gravest]
    return max(candidates, key=lambda e: (e.result.output_delta, e.configuration == default), default=None)


def horizon_map(examined: Examined) -> HorizonMap | None:
    """What flow says of each position; `None` where it did not get to the end."""
    rows = examined.proof.rows
    return HorizonMap(examined.configuration.id, rows, _padding(examined, len(rows[0].ahead))) if rows else None


def delta_matrix(prober: Prober, examined: Examined) -> DeltaMatrix | None:
    """Change one token at a time; `None` where that cannot run, or float64 cannot tell what is rounding.

    Cost: as many rows as there are positions, and one; the same in float64 if an output moved that may not.
    """
    configuration = examined.configuration
    batch = prober.batches(configuration)[0]
    whole = int(batch.whole[-1])
    base, other = batch.tokens[BASE], batch.tokens[whole]  # [seq]
    seq = len(base)
    at = torch.eye(seq, dtype=torch.bool)
    rows = torch.cat([base[None], torch.where(at, other, base)])  # [1 + seq, seq]
    one_by_one = not examined.probed.independent

    try:
        deltas, relative = _moved(prober.model, rows, configuration, nullcontext, one_by_one=one_by_one)
    except SubjectCrash:  # of a token that no cut stood before
        return None
    latest, earliest = configuration.contract.latest(seq), configuration.contract.earliest(seq)
    places = torch.arange(seq)
    blind = (places > torch.tensor(latest)[:, None]) | (places < torch.tensor(earliest)[:, None])
    if deltas[blind].any():
        try:
            model, _ = prober.double
            deltas, exact = _moved(model, rows, configuration, precision.float64, one_by_one=one_by_one)
        except Exception:  # whatever a float32-only kernel raises
            return None
        for reader, source in blind.nonzero().tolist():
            if precision.is_rounding(relative[reader, source].item(), exact[reader, source].item(), 1.0):
                deltas[reader, source] = 0.0
    shown = tuple(tuple(float(f"{delta:.3g}") for delta in row) for row in deltas.tolist())
    return DeltaMatrix(configuration.id, shown, _padding(examined, seq))


def _padding(examined: Examined, seq: int) -> tuple[int, ...]:
    return tuple((~running.valid_positions(examined.configuration, seq)).nonzero()[:, 0].tolist())


def _moved(
    model: nn.Module, rows: Tensor, configuration: Configuration, within: Within, *, one_by_one: bool
) -> tuple[Tensor, Tensor]:
    """How far each output moves with each input, and in units of its channel's largest value: both `[seq, seq]`."""
    deltas, relative = [], []
    with running.configured(model, configuration):

        def run(some: Tensor) -> Tensor:
            torch.manual_seed(0)
            with torch.set_grad_enabled(False), within():
                return running.forward(model, some, configuration).flatten(2)

        run(rows[:1])  # what is drawn at random once, and kept, is there from here on
        base = run(rows[:1])  # [1, seq, vocab]
        scale = measure.channel_scale(base)
        size = 1 if one_by_one else max(1, _ELEMENTS // base.numel())
        for some in rows[1:].split(size):
            apart = distance(run(some), base)  # [inputs, outputs, vocab]
            deltas.append(apart.amax(-1))
            relative.append((apart / scale).amax(-1))
    return torch.cat(deltas).T.contiguous(), torch.cat(relative).T.contiguous()
