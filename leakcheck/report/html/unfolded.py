"""What the checkpoint table folds into the worst: each stage layer by layer and configuration by configuration.

Configurations that measured the same share a row, and so do neighbouring layers whose rows are the same.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from itertools import groupby

from leakcheck.findings import Checkpoint
from leakcheck.report.stages import GRAVE, configurations_of, measure, moved, paths_of
from leakcheck.report.words import among, counted, span

Key = tuple[tuple[str, ...], ...]  # for each path verdict, horizon and delta, and what there is to say of them


@dataclass(frozen=True)
class Unfolded:
    """One row; `cells` are those of the table, for each path verdict, horizon, delta and layer."""

    layers: str
    configurations: str
    cells: tuple[str, ...]
    remarks: tuple[str, ...]


@dataclass(frozen=True)
class Stage:
    """The rows below one stage; `extent` says in words what was folded."""

    extent: str
    rows: tuple[Unfolded, ...]


def unfold(checkpoints: Sequence[Checkpoint]) -> dict[int, Stage]:
    paths, every = paths_of(checkpoints), configurations_of(checkpoints)
    found: dict[int, dict[int | None, dict[str, dict[str, list[Checkpoint]]]]] = defaultdict(
        lambda: defaultdict(lambda: defaultdict(lambda: defaultdict(list)))
    )
    for c in checkpoints:
        found[c.stage][c.layer][c.configuration][c.path].append(c)

    @cache
    def named(ids: tuple[str, ...]) -> str:
        return f"all {len(every)} configurations" if len(ids) == len(every) > 1 else among(ids, every)

    stages = {}
    for stage, by_layer in found.items():
        layers = sorted(by_layer, key=lambda layer: -1 if layer is None else layer)
        same = [(layer, _same(by_layer[layer], paths)) for layer in layers]
        rows = []
        for groups, alike in groupby(same, key=lambda entry: entry[1]):
            where = span(layer for layer, _ in alike if layer is not None)
            rows += [_row(where, named(tuple(ids)), key, paths) for key, ids in groups.items()]
        there = {id for by_configuration in by_layer.values() for id in by_configuration}
        count = len(set(layers) - {None})
        extent = f"{counted(count, 'layer')}, " if count else ""
        stages[stage] = Stage(extent + counted(len(there), "configuration"), tuple(rows))
    return stages


def _same(by_configuration: dict[str, dict[str, list[Checkpoint]]], paths: Sequence[str]) -> dict[Key, list[str]]:
    """The configurations that measured the same, by what they measured."""
    groups: dict[Key, list[str]] = defaultdict(list)
    for id, by_path in by_configuration.items():
        groups[tuple(_measured(by_path.get(path, []), id) for path in paths)].append(id)
    return dict(groups)


def _measured(found: list[Checkpoint], configuration: str) -> tuple[str, ...]:
    if not found:
        return ("", "", "", "")
    measurement = measure(found, (configuration,))
    remark = moved(measurement.worst) if measurement.worst.verdict in GRAVE else ""
    return (*measurement.cells[:3], remark)


def _row(layers: str, configurations: str, key: Key, paths: Sequence[str]) -> Unfolded:
    remarks: dict[str, list[str]] = defaultdict(list)
    for path, (*_, remark) in zip(paths, key, strict=True):
        if remark:
            remarks[remark].append(path)
    several = len(paths) > 1
    return Unfolded(
        layers=layers,
        configurations=configurations,
        cells=tuple(cell for *cells, _ in key for cell in (*cells, "")),
        remarks=tuple(f"{', '.join(named)}: {remark}" if several else remark for remark, named in remarks.items()),
    )
