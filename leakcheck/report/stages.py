"""The checkpoints, folded: layers and configurations of one stage on one path become one measurement, the worst."""

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from leakcheck.findings import Checkpoint, Location, Verdict, worst
from leakcheck.report.layout import Row, Section, Table
from leakcheck.report.words import ahead, among, magnitude, number, place, shortened, span, verdict

GRAVE = (Verdict.LEAK, Verdict.CONTAMINATED, Verdict.SUSPECT)
_SILENT = (Verdict.NOT_APPLICABLE, Verdict.OPEN)


@dataclass(frozen=True)
class Measured:
    """`worst` has the gravest verdict, among those the largest delta, then horizon; `layers` share the first two.

    `remarks` are what the worst one does not tell: configurations under which the stage never ran, and notes.
    """

    worst: Checkpoint
    layers: str
    runs: str
    remarks: tuple[str, ...]

    @property
    def cells(self) -> tuple[str, str, str, str]:
        """Verdict, horizon, output delta, layers; where there is no tensor, that it ran is all there is to tell."""
        if self.worst.output_delta is None and self.worst.verdict in _SILENT:
            return f"ran {self.runs}", "", "", ""
        return verdict(self.worst.verdict), ahead(self.worst.horizon), number(self.worst.output_delta), self.layers


def measure(checkpoints: Sequence[Checkpoint], configurations: Sequence[str]) -> Measured:
    """`configurations` are all that were audited: a stage without a checkpoint under one of them did not run there."""
    gravest = worst(c.verdict for c in checkpoints)
    candidates = [c for c in checkpoints if c.verdict is gravest]
    chosen = max(candidates, key=lambda c: (magnitude(c.output_delta), math.inf if c.horizon is None else c.horizon))
    largest = magnitude(chosen.output_delta)
    layers = {c.layer for c in candidates if c.layer is not None and magnitude(c.output_delta) == largest}
    runs = dict.fromkeys(configurations, 0)
    for c in checkpoints:
        runs[c.configuration] += c.runs
    remarks = _variants([(c.note, c.configuration) for c in checkpoints if c.note], configurations)
    idle = [id for id, count in runs.items() if not count]
    if 0 < len(idle) < len(runs):
        ran = [id for id, count in runs.items() if count]
        few = len(ran) < len(idle)
        remarks.append(f"{'ran only' if few else 'did not run'} under {among(ran if few else idle, configurations)}")
    least, most = min(runs.values()), max(runs.values())
    return Measured(
        worst=chosen,
        layers=span(layers),
        runs=f"{least}x" if least == most else f"{least}-{most}x",
        remarks=tuple(remarks),
    )


def _variants(said: Iterable[tuple[str, str]], configurations: Sequence[str]) -> list[str]:
    """What is said under which configuration; the configurations are left out where they are all."""
    under: dict[str, set[str]] = defaultdict(set)
    for text, id in said:
        under[text].add(id)
    every = set(configurations)
    return [text if ids == every else f"{text} under {among(ids, configurations)}" for text, ids in under.items()]


def configurations_of(checkpoints: Sequence[Checkpoint]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(c.configuration for c in checkpoints))


def paths_of(checkpoints: Sequence[Checkpoint]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(c.path for c in checkpoints))


def checkpoint_section(checkpoints: Sequence[Checkpoint], *, copy: bool = False, promised: bool = False) -> Section:
    """`copy`: whether a shrunken copy was probed, of a model that was proven at its full size.

    `promised`: whether a contract says what may be seen, so that what is seen counts from there.
    """
    paths, configurations = paths_of(checkpoints), configurations_of(checkpoints)
    alone = len(paths) == 1  # one path leaves room for the module, which tells stages of a model without a trace apart
    stages: dict[int, dict[str, list[Checkpoint]]] = defaultdict(lambda: defaultdict(list))
    for c in checkpoints:
        stages[c.stage][c.path].append(c)
    rows = []
    for stage in sorted(stages):
        measured = {path: measure(found, configurations) for path, found in stages[stage].items()}
        entries = [c for found in stages[stage].values() for c in found]
        head = measure(entries, configurations).worst
        cells = [str(stage), head.function]
        if alone:
            cells.append(head.module)
        for path in paths:
            cells += measured[path].cells if path in measured else ("", "", "", "")
        rows.append(Row(tuple(cells), tuple(_details(head, entries, measured, alone=alone)), group=head.phase))
    columns = (
        "#",
        "stage",
        *(("module",) if alone else ()),
        *(column for path in paths for column in (path, "sees", "delta", "layer")),
    )
    of_full = "Sees, of the stage of the same name at full size" if copy else "Sees"
    where = "beyond what the contract allows" if promised else "ahead"
    lines = (
        *(("Layers, deltas and modules are those of the shrunken copy.",) if copy else ()),
        "At the worst layer and configuration. Delta: how far past outputs moved with future tokens.",
        f"{of_full}: how many positions {where} at most, whatever tokens and weights; ? where the proof has a hole.",
        "Local: how far with the future rows of the stage's own input. Gradient: towards future embeddings.",
        "LEAK: the stage lets the future in by itself. CONTAMINATED: it only passes on what came in.",
    )
    return Section("Checkpoints", lines, Table(columns, tuple(rows), details_in=1))


def _details(
    head: Checkpoint, entries: Sequence[Checkpoint], measured: dict[str, Measured], *, alone: bool
) -> list[str]:
    """Where the stage is, what it hands on and to whom; what differs between configurations is told apart."""
    here = configurations_of(entries)
    without_tensor = alone and head.output_delta is None and head.horizon is None
    named = head.module.startswith(head.title.partition("*")[0])  # the title is the module's name: it is there already
    what, where = (head.title, "to") if without_tensor and not named else ("passes", "library")
    passes = _variants([(", ".join(c.passes), c.configuration) for c in entries if c.passes], here)
    targets = _variants([(_said(c.library), c.configuration) for c in entries if c.library], here)
    details = [f"{place(head.file, head.lines)}  {shortened(head.operation)}"]
    if passes or what != "passes":
        details.append(": ".join(filter(None, (what, "; ".join(passes)))))
    details += [f"{where}: {target}" for target in targets]
    remarks: dict[str, list[str]] = defaultdict(list)
    for path, measurement in measured.items():
        if measurement.worst.verdict in GRAVE:
            remarks[_worst_case(measurement.worst)].append(path)
        for remark in measurement.remarks:
            remarks[remark].append(path)
    if alone:
        return [*details, *remarks]
    return details + [f"{', '.join(paths)}: {remark}" for remark, paths in remarks.items()]


def _said(location: Location) -> str:
    return f"{place(location.file, location.lines)}  {shortened(location.operation)}"


def _worst_case(c: Checkpoint) -> str:
    return ", ".join(filter(None, (c.configuration, moved(c))))


def moved(c: Checkpoint) -> str:
    """What moved where it moved most, and by what."""
    facts = []
    if c.worst_case:
        facts.append(f"position {c.worst_case.position} moved by tokens from {c.worst_case.cut} on")
    if c.local_delta is not None:
        facts.append(f"local {number(c.local_delta)}")
    if c.gradient_delta is not None:
        facts.append(f"gradient {number(c.gradient_delta)}")
    return ", ".join(facts)


@dataclass(frozen=True)
class Node:
    """A node of the data flow: the stages that it stands for, and what was measured there, as in the table's cells."""

    name: str
    stages: tuple[int, ...]  # or the first and the last of them
    cells: tuple[str, ...]
    beside: str = ""  # function or module, where the name does not tell

    @property
    def state(self) -> str:
        return " ".join(filter(None, self.cells))

    @property
    def numbers(self) -> str:
        return "-".join(str(stage) for stage in self.stages)


# The data flow as the trace draws it: what a node is called, and the stages that it stands for.
_NODES = {
    "generation": ("mask generation", (1, 2)),
    "branch": ("layer branch", (3, 4)),
    "layer": ("decoder layer", (5, 6)),
    "attention": ("self_attn", (7,)),
    "parent": ("parent forward", (8,)),
    "replay": ("_recompute_previous_mlp_outputs", (9, 10)),
    "precomputed": ("forward_with_precomputed_weights", (11,)),
    "remask": ("strict re-mask", (12,)),
    "merge": ("merge of layer outputs", (13,)),
    "store": ("stored_weights update", (14,)),
}
ON_STANDARD = ("layer", "attention", "parent")
ON_RECOMPUTE = ("replay", "precomputed", "remask")
_HALF = 42


def data_flow_nodes(checkpoints: Sequence[Checkpoint]) -> dict[str, Node]:
    """The nodes of the trace's drawing with what was measured there; none for a subject that lacks one of the paths."""
    if not {"standard", "recompute"} <= set(paths_of(checkpoints)):
        return {}
    configurations = configurations_of(checkpoints)
    nodes = {}
    for key, (name, stages) in _NODES.items():
        found = [c for c in checkpoints if c.stage in stages]
        if key in ON_STANDARD:
            found = [c for c in found if c.path == "standard"]
        nodes[key] = Node(name, stages, _measured(found, configurations) if found else ("not measured",))
    return nodes


def data_flow_section(checkpoints: Sequence[Checkpoint]) -> Section | None:
    """The trace's drawing with what was measured at its nodes; only for a subject that has both paths."""
    drawn = data_flow_nodes(checkpoints)
    if not drawn:
        return None
    nodes = {key: (f"{node.numbers:>4}  {node.name}", f"      {node.state}") for key, node in drawn.items()}

    trunk, turn = "      │", "─" * (_HALF - 1)
    lines = ["      input", trunk, *nodes["generation"], trunk, *nodes["branch"]]
    lines += [f"      ├{turn}┐", f"      {'standard':<{_HALF}}recompute"]
    for left, right in zip(ON_STANDARD, ON_RECOMPUTE, strict=True):
        lines.append(f"{trunk:<{_HALF}}{trunk}")
        lines += [f"{a:<{_HALF}}{b}" for a, b in zip(nodes[left], nodes[right], strict=True)]
    lines += [f"      ├{turn}┘", *nodes["merge"], trunk, *nodes["store"], trunk, "      next layer: from 3-4 on"]
    return Section("Data flow", ("At the worst layer and configuration.",), drawing="\n".join(lines))


def _measured(checkpoints: Sequence[Checkpoint], configurations: Sequence[str]) -> tuple[str, ...]:
    if any(c.output_delta is not None for c in checkpoints):
        return measure(checkpoints, configurations).cells
    # Control flow: how often its last stage, the branch itself, went either way.
    last = max(c.stage for c in checkpoints)
    ways = {path: [c for c in checkpoints if c.stage == last and c.path == path] for path in paths_of(checkpoints)}
    return (", ".join(f"{path} {measure(found, configurations).runs}" for path, found in ways.items() if found),)
