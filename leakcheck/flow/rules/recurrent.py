"""Recurrent kernels. Other layers and cells come as matrix products and need no rule.

out[t] = max over the steps s <= t of x[s], max the state before the first step and the weights (s >= t if reversed)
"""

from collections.abc import Callable
from typing import Any

from torch import Tensor

from leakcheck.flow import labels as L
from leakcheck.flow.context import Context, tensors_of
from leakcheck.flow.labels import Labels
from leakcheck.flow.operand import Operand
from leakcheck.flow.registry import Tier, rule
from leakcheck.flow.rules.sorting import running


@rule("aten::mkldnn_rnn_layer", tier=Tier.COARSE)
def layer(
    x: Operand, w0: Operand, w1: Operand, w2: Operand, w3: Operand, hidden: Operand, cell: Operand, reverse: bool,
    *_: Any, context: Context,
) -> list[Labels]:  # fmt: skip
    """One direction of one layer, `[time, batch, in]` to `[time, batch, hidden]`; the last states, and a workspace.

    Coarse in one thing: a unit of the first output has its own cell to start from, not all of them.
    """
    states = [s.labels.over(-1).view(lambda t: t.reshape(1, -1, 1)) for s in (hidden, cell)]
    before = L.join(*states, *(w.labels.over() for w in (w0, w1, w2, w3)))  # [1, batch, 1]
    flip = (lambda t: t.flip(0)) if reverse else (lambda t: t)
    steps = L.floor(x.labels.over(-1, keepdim=True))  # [time, batch, 1]
    so_far = running(steps.view(flip), 0).view(flip)
    last = L.join(L.floor(steps.over(0, keepdim=True)), before)  # [1, batch, 1]
    output, *others = list(tensors_of(context.result))
    result = [L.join(so_far, before).expand(output.shape)]
    result += [last.view(_shaped(state.dim())).expand(state.shape) for state in others[:2]]
    return result + [last.everywhere(workspace.shape) for workspace in others[2:]]


def _shaped(dims: int) -> Callable[[Tensor], Tensor]:
    """`[1, batch, 1]` as `[..., batch, 1]`."""
    return lambda t: t.reshape(*(1,) * (dims - 2), -1, 1)
