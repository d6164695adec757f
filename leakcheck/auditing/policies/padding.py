"""What stands in padded positions reaches no valid one."""

from collections.abc import Sequence

import torch

from leakcheck import codes
from leakcheck.auditing.policies.question import Order, Question
from leakcheck.auditing.policies.registry import policy
from leakcheck.auditing.policies.running import ROWS, drawn, forward, steps_alone, usable
from leakcheck.config import Configuration
from leakcheck.probes.probe import Prober


@policy("padding", needs="an attention_mask, which says what is padding")
def padding(prober: Prober, configuration: Configuration) -> Sequence[Question]:
    """Labels are 1 at padding and 0 elsewhere; no valid position may see a 1."""
    valid = usable(prober, configuration, ROWS)
    if valid.all() or not steps_alone(prober):
        return ()
    return [
        Question(
            code=codes.PADDING_DEPENDENCE,
            what="what stands in the padding",
            run=forward(configuration),
            tokens=drawn(prober, ROWS),
            valid=valid,
            orders=(Order((~valid).long(), torch.zeros_like(valid, dtype=torch.long)),),
            groups=(("the padding", ~valid),),
        )
    ]
