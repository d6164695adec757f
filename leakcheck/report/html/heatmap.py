"""The horizon map and the delta matrix as pictures: colours, outlines, ticks, and the exact values beside them."""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass

from leakcheck.config import Contract, parse_contract
from leakcheck.errors import UsageError
from leakcheck.findings import DeltaMatrix, HorizonMap, HorizonRow
from leakcheck.report.html.png import Colour, data_uri
from leakcheck.report.words import ahead, number, visible

_LEVELS = 12
_DECADES = 9  # what is smaller than the largest value by more is drawn alike
_RED, _BLUE, _GREEN, _GREY = (206, 44, 49), (46, 112, 196), (48, 150, 92), (128, 134, 142)
# So light that ink stays readable on it, on a white page and on a dark one.
_OPACITIES = [round(255 * (0.28 + 0.4 * level / (_LEVELS - 1))) for level in range(_LEVELS)]
PALETTE: list[Colour] = [
    (0, 0, 0, 0),
    *((*_RED, opacity) for opacity in _OPACITIES),
    *((*_BLUE, opacity) for opacity in _OPACITIES),
    (*_GREEN, 40),
    (*_GREY, 60),
]
NOTHING, FORBIDDEN, ALLOWED, NONE_AHEAD, UNKNOWN = 0, 1, 1 + _LEVELS, 1 + 2 * _LEVELS, 2 + 2 * _LEVELS
_NAMES = ["nothing", *_LEVELS * ["forbidden"], *_LEVELS * ["allowed"], "none ahead", "unknown"]

_INKED = 16  # up to so many columns the cells are large enough for their numbers
_LONGEST = 7  # of the numbers in cells
_NAME = 18  # of the labels of rows


@dataclass(frozen=True)
class Heatmap:
    """A picture of one pixel for each cell, which the page scales up to cells of `cell` pixels; `left` is for labels.

    `outlined` and `hatched` are SVG paths in units of cells: what may not be seen, what is unknown. `borders` are rows
    with a line above. `inked` are numbers in cells: row, column, text. `colours` are those that occur, `ends` the
    smallest and the largest value that they tell. `values` is JSON for the script: the exact values, and what their
    rows are called. `padded` are the positions that are padding, in words.
    """

    kind: str
    configuration: str
    rows: int
    columns: int
    cell: tuple[int, int]
    left: int
    picture: str
    outlined: str
    hatched: str
    borders: tuple[int, ...]
    row_ticks: tuple[tuple[int, str], ...]
    column_ticks: tuple[int, ...]
    inked: tuple[tuple[int, int, str], ...]
    colours: frozenset[str]
    ends: tuple[str, str]
    values: str
    padded: str


def horizon_heatmap(map: HorizonMap) -> Heatmap:
    """Rows are grouped by path, within it in the order of the forward; the outputs come last. Padding says nothing."""
    order = {path: place for place, path in enumerate(dict.fromkeys(row.path for row in map.rows))}
    rows = sorted(map.rows, key=lambda row: (row.path == "" and row.layer is None, order[row.path]))
    columns = max(len(row.ahead) for row in rows)
    cells = [(*row.ahead, *(None,) * (columns - len(row.ahead))) for row in rows]
    shade = _Shade([value for row in cells for value in row if value])

    def colour(value: int | None, at: int) -> int:
        if at in map.padding:
            return NOTHING
        if value is None:
            return UNKNOWN
        return FORBIDDEN + shade.level(value) if value else NONE_AHEAD

    labels = [_label(row) for row in rows]
    return _heatmap(
        "horizon",
        map.configuration,
        labels,
        height=26 if len(rows) <= _INKED else 12 if len(rows) <= 4 * _INKED else 8,
        pixels=[bytes(colour(value, at) for at, value in enumerate(row)) for row in cells],
        words=[["pad" if at in map.padding else ahead(value) for at, value in enumerate(row)] for row in cells],
        hatched="".join(_runs(at, [value is None for value in row]) for at, row in enumerate(cells)),
        borders=tuple(at for at in range(1, len(rows)) if rows[at].path != rows[at - 1].path),
        ends=shade.ends,
        values={"rows": labels, "cells": cells},
        padded=map.padding,
    )


def _label(row: HorizonRow) -> str:
    if row.layer is None:
        return visible(row.path) or "outputs"
    return visible(f"{row.path} L{row.layer}".strip())


def delta_heatmap(matrix: DeltaMatrix, contract: str) -> Heatmap:
    """What the contract hides from each position is outlined: above the diagonal lies the future. Not from padding."""
    rows, columns = len(matrix.deltas), max(len(row) for row in matrix.deltas)
    seen = visible_inputs(contract, rows) if rows == columns else [(0, columns - 1)] * rows
    seen = [(0, columns - 1) if row in matrix.padding else span for row, span in enumerate(seen)]
    shade = _Shade([value for row in matrix.deltas for value in row if value])

    def colour(value: float, at: int, first: int, last: int) -> int:
        if value == 0:
            return NOTHING
        return (ALLOWED if first <= at <= last else FORBIDDEN) + shade.level(value)

    return _heatmap(
        "delta",
        matrix.configuration,
        [str(row) for row in range(rows)],
        height=28 if columns <= _INKED else _side(columns),
        pixels=[
            bytes(colour(value, at, *span) for at, value in enumerate(row))
            for row, span in zip(matrix.deltas, seen, strict=True)
        ],
        words=[[number(value) for value in row] for row in matrix.deltas],
        outlined=_stairs([last + 1 for _, last in seen], columns) + _stairs([first for first, _ in seen], 0),
        ends=shade.ends,
        values={"seen": seen, "cells": [[_exact(value) for value in row] for row in matrix.deltas]},
        padded=matrix.padding,
    )


def visible_inputs(contract: str, seq: int) -> list[tuple[int, int]]:
    """For each position the first and the last input that it may see; all, where the contract bounds nothing."""
    try:
        known = parse_contract(tuple(contract.split("+")))
    except UsageError:  # written by hand, or by a later version
        known = Contract(bidirectional=True)
    if known.bidirectional:
        return [(0, seq - 1)] * seq
    return list(zip(known.earliest(seq), known.latest(seq), strict=True))


class _Shade:
    """How strong a colour tells a value: by its logarithm; what is not finite as the largest."""

    def __init__(self, values: Sequence[float]):
        finite = [abs(value) for value in values if math.isfinite(value)]
        self.largest = max(finite, default=1.0)
        self.smallest = max(min(finite, default=1.0), self.largest * 10.0**-_DECADES)

    @property
    def ends(self) -> tuple[str, str]:
        return number(self.smallest), number(self.largest)

    def level(self, value: float) -> int:
        if not math.isfinite(value) or self.largest == self.smallest:
            return _LEVELS - 1
        above = math.log(max(abs(value), self.smallest) / self.smallest)
        return min(_LEVELS - 1, int(_LEVELS * above / math.log(self.largest / self.smallest)))


def _heatmap(
    kind: str,
    configuration: str,
    labels: Sequence[str],
    *,
    height: int,
    pixels: Sequence[bytes],
    words: Sequence[Sequence[str]],
    ends: tuple[str, str],
    values: dict,
    padded: Sequence[int],
    outlined: str = "",
    hatched: str = "",
    borders: tuple[int, ...] = (),
) -> Heatmap:
    rows, columns = len(pixels), len(pixels[0])
    shown = [(row, column, word) for row, line in enumerate(words) for column, word in enumerate(line) if word != "0"]
    inked = [entry for entry in shown if len(entry[2]) <= _LONGEST] if columns <= _INKED >= rows / 4 else []
    widest = max((len(word) for *_, word in inked), default=0)
    width = max(30, 6 * widest + 8) if columns <= _INKED else _side(columns)
    return Heatmap(
        kind=kind,
        configuration=configuration,
        rows=rows,
        columns=columns,
        cell=(width, height),
        left=34 + 7 * min(_NAME, max(map(len, labels))),
        picture=data_uri(pixels, PALETTE),
        outlined=outlined,
        hatched=hatched,
        borders=borders,
        row_ticks=tuple((at, _cropped(labels[at])) for at in range(0, rows, _apart(14 / height))),
        column_ticks=tuple(range(0, columns, _apart(26 / width))),
        inked=tuple(inked),
        colours=frozenset(_NAMES[index] for row in pixels for index in row),
        ends=ends,
        padded=", ".join(map(str, padded)),
        values=json.dumps(values, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c"),
    )


def _side(columns: int) -> int:
    """Pixels of a cell without a number in it."""
    return max(3, min(14, 640 // columns))


def _apart(least: float) -> int:
    """How many cells lie between two ticks: a power of two."""
    return 2 ** max(0, math.ceil(math.log2(least)))


def _cropped(label: str) -> str:
    return label if len(label) <= _NAME else f"{label[: _NAME - 1]}…"


def _exact(value: float) -> float | str:
    return float(f"{value:.6g}") if math.isfinite(value) else str(value)


def _stairs(edges: Sequence[int], side: int) -> str:
    """The area between a side of the picture and the edge of each row, with one line around it."""
    reached = [row for row, edge in enumerate(edges) if edge != side]
    if not reached:
        return ""
    return f"M{side} {reached[0]}" + "".join(f"H{edges[row]}V{row + 1}" for row in reached) + f"H{side}Z"


def _runs(row: int, marked: Sequence[bool]) -> str:
    """A rectangle for each run of marked cells."""
    edges = [at for at in range(len(marked) + 1) if (at < len(marked) and marked[at]) != (at > 0 and marked[at - 1])]
    return "".join(f"M{start} {row}H{end}V{row + 1}H{start}Z" for start, end in zip(*[iter(edges)] * 2, strict=True))
