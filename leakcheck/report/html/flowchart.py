"""The data flow of a model without a trace: its stages in order, neighbours that measured the same as one node."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

from leakcheck.findings import Checkpoint
from leakcheck.report.stages import Node, configurations_of, measure

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
    entries = []
    for stage in sorted(stages):
        measurement = measure(stages[stage], configurations)
        worst = measurement.worst
        entries.append((worst.phase, (worst.function, *measurement.cells[:2]), stage, measurement))
    found = []
    for phase, within in groupby(entries, key=lambda entry: entry[0]):
        nodes = []
        for (function, *_), alike in groupby(within, key=lambda entry: entry[1]):
            members = list(alike)
            first, last = members[0][3].worst, members[-1][3].worst
            where = first.module if first.module == last.module else f"{first.module} … {last.module}"
            numbers = tuple(dict.fromkeys((members[0][2], members[-1][2])))
            nodes.append(Node(where or function, numbers, members[0][3].cells[:2], function if where else ""))
        found.append(Phase(phase, tuple(nodes)))
    return tuple(found)
