"""The data flow of a model without a trace: its stages in order, neighbours that measured the same as one node."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

from leakcheck.findings import Checkpoint
from leakcheck.report.stages import Measured, Node, configurations_of, measure

IN_ORDER = "All stages in order, at the worst layer and configuration; neighbours that measured the same are one."


@dataclass(frozen=True)
class Phase:
    name: str
    nodes: tuple[Node, ...]


def phases(checkpoints: Sequence[Checkpoint]) -> tuple[Phase, ...]:
    """What runs under the same name in the same phase becomes a node, as long as verdict and horizon are the same."""
    configurations = configurations_of(checkpoints)
    stages: dict[int, list[Checkpoint]] = defaultdict(list)
    for c in checkpoints:
        stages[c.stage].append(c)
    measured = [measure(stages[stage], configurations) for stage in sorted(stages)]
    return tuple(
        Phase(phase, tuple(_node(list(alike)) for _, alike in groupby(within, key=_kind)))
        for phase, within in groupby(measured, key=lambda measurement: measurement.worst.phase)
    )


def _kind(measurement: Measured) -> tuple[str, ...]:
    return measurement.worst.function, *measurement.cells[:2]


def _node(alike: Sequence[Measured]) -> Node:
    """Named by its module; by its function, which says more, where there is no tensor."""
    first, last = alike[0].worst, alike[-1].worst
    module = " … ".join(dict.fromkeys(filter(None, (first.module, last.module))))
    name, beside = (module, first.function) if module and first.output_delta is not None else (first.function, module)
    return Node(name, tuple(dict.fromkeys((first.stage, last.stage))), alike[0].cells[:2], beside)
