"""How far the re-mask moves the weights that it masks: a softmax of probabilities flattens them."""

from collections.abc import Sequence

import torch

from leakcheck.checkpoints.method1_v3 import Method1Plan
from leakcheck.checkpoints.reading import Reading
from leakcheck.findings import Fidelity


def fidelity(readings: Sequence[Reading], plan: Method1Plan, valid: torch.Tensor) -> Fidelity | None:
    """Total variation distance between stored and re-masked weights, `0.5 * sum |after - before|` per query row.

    Rows of padded queries (`valid` `[seq]` is false) are left out. `None` where the re-mask did not act.
    """
    if plan.nodes.remasked is None:
        return None
    worst, distances = -1.0, []
    where: tuple[int | None, int | None, int | None] = (None, None, None)
    for reading in readings:
        if reading.stage.number != 12 or not reading.runs or not reading.tensors:
            continue
        before = reading.inputs[plan.nodes.remasked.id].float()  # [batch, heads, query, key]
        after = reading.tensors[0].float()
        distance = 0.5 * (after - before[..., : after.shape[-2], : after.shape[-1]]).abs().sum(-1)[0][:, valid]
        distances.append(distance)
        if distance.max() > worst:
            worst = distance.max().item()
            head, row = divmod(int(distance.argmax()), distance.shape[1])
            where = (reading.replayed_layer, head, int(valid.nonzero()[row]))
    if not distances:
        return None
    return Fidelity(worst, torch.stack(distances).mean().item(), *where)
