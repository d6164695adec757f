"""No row of a batch influences another one."""

from collections.abc import Sequence

import torch

from leakcheck import codes
from leakcheck.auditing.policies.question import Order, Question
from leakcheck.auditing.policies.registry import policy
from leakcheck.auditing.policies.running import drawn, forward, usable
from leakcheck.config import Configuration
from leakcheck.probes.probe import Prober
from leakcheck.subjects.adapter import Adapter


@policy("batch", needs="a forward that takes several rows at once")
def batch(prober: Prober, configuration: Configuration) -> Sequence[Question]:
    """Labels are rows: a change of one row moves no other."""
    if isinstance(prober.model, Adapter) and prober.model.by_rows:
        return ()
    rows = next(n for n in range(3, 99) if n not in prober.sizes and n != prober.seq)  # told from every other axis
    index = torch.arange(rows)[:, None].expand(rows, prober.seq)
    return [
        Question(
            code=codes.ROW_DEPENDENCE,
            what="another row of the batch",
            run=forward(configuration),
            tokens=drawn(prober, rows),
            valid=usable(prober, configuration, rows),
            orders=Order.both_ways(index),
            groups=tuple((f"row {row}", index == row) for row in range(rows)),
        )
    ]
