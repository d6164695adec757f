"""The horizon map and the delta matrix as pictures: colours, outlines, ticks, and the exact values beside them."""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass

from leakcheck.config import Contract, parse_contract
from leakcheck.errors import UsageError
from leakcheck.findings import DeltaMatrix, HorizonMap, HorizonRow
from leakcheck.report.html.png import Colour, data_uri
from leakcheck.report.words import ahead, number

_LEVELS = 12
_DECADES = 9  # what is smaller than the largest value by more is drawn alike
_RED, _BLUE, _GREEN, _GREY = (206, 44, 49), (46, 112, 196), (48, 150, 92), (128, 134, 142)
# Light enough that a page's own ink stays readable on it, on a white page and on a dark one.
_OPACITY = [round(255 * (0.28 + 0.4 * level / (_LEVELS - 1))) for level in range(_LEVELS)]
_PALETTE: list[Colour] = [
    (0, 0, 0, 0),
    *((*_RED, opacity) for opacity in _OPACITY),
    *((*_BLUE, opacity) for opacity in _OPACITY),
    (*_GREEN, 40),
    (*_GREY, 60),
]
_NOTHING, _FORBIDDEN, _ALLOWED, _NONE_AHEAD, _UNKNOWN = 0, 1, 1 + _LEVELS, 1 + 2 * _LEVELS, 2 + 2 * _LEVELS
_GUTTER = (0, 40)  # left and top of the cells; the left one depends on the labels
_INKED = 16  # up to as many columns the cells are large enough for their numbers
_LONGEST = 7
_LEAST = (160, 150)  # so that the names of the axes fit


@dataclass(frozen=True)
class Heatmap:
    """Lengths in pixels of the picture: `width`, `height` whole, `left`, `top` where the cells begin, `cell` one cell.

    `outlined` and `hatched` are SVG paths: what may not be seen, what is unknown. `values` is JSON for the script, the
    cells' exact values with what they are called; `scale` the smallest and the largest value that is told by colour.
    """

    kind: str
    configuration: str
    size: tuple[int, int]
    width: int
    height: int
    left: int
    top: int
    cell: tuple[int, int]
    picture: str
    outlined: str
    hatched: str
    separators: tuple[int, ...]
    row_ticks: tuple[tuple[int, str], ...]
    column_ticks: tuple[tuple[int, str], ...]
    inked: tuple[tuple[int, int, str], ...]
    scale: tuple[str, str]
    values: str


def horizon_heatmap(map: HorizonMap) -> Heatmap:
    """Rows are grouped by path, within it in the order of the forward; the outputs come last."""
    order = {path: place for place, path in enumerate(dict.fromkeys(row.path for row in map.rows))}
    rows = sorted(map.rows, key=lambda row: (row.path == "" and row.layer is None, order[row.path]))
    labels = [_label(row) for row in rows]
    columns = max(len(row.ahead) for row in rows)
    cells = [[*row.ahead, *[None] * (columns - len(row.ahead))] for row in rows]
    shade = _Shade([float(value) for row in cells for value in row if value])

    def colour(value: int | None) -> int:
        if value is None:
            return _UNKNOWN
        return _FORBIDDEN + shade.level(value) if value else _NONE_AHEAD

    height = 26 if len(rows) <= _INKED else 12
    return _heatmap(
        kind="horizon",
        configuration=map.configuration,
        pixels=[bytes(colour(value) for value in row) for row in cells],
        words=[[ahead(value) for value in row] for row in cells],
        labels=labels,
        height=height,
        unknown=[[value is None for value in row] for row in cells],
        borders=[at for at in range(1, len(rows)) if rows[at].path != rows[at - 1].path],
        scale=shade.ends,
        values={"rows": labels, "cells": cells},
    )


def _label(row: HorizonRow) -> str:
    if row.layer is None:
        return row.path or "outputs"
    return f"{row.path} L{row.layer}".strip()


def delta_heatmap(matrix: DeltaMatrix, contract: str) -> Heatmap:
    """What the contract hides is outlined: above the diagonal lies the future."""
    rows, columns = len(matrix.deltas), max(len(row) for row in matrix.deltas)
    seen = visible_inputs(contract, rows) if rows == columns else [(0, columns - 1)] * rows
    shade = _Shade([value for row in matrix.deltas for value in row if value])

    def colour(value: float, at: int, first: int, last: int) -> int:
        if value == 0:
            return _NOTHING
        return (_ALLOWED if first <= at <= last else _FORBIDDEN) + shade.level(value)

    side = 28 if columns <= _INKED else max(3, min(14, 640 // columns))
    return _heatmap(
        kind="delta",
        configuration=matrix.configuration,
        pixels=[
            bytes(colour(value, at, *span) for at, value in enumerate(row))
            for row, span in zip(matrix.deltas, seen, strict=True)
        ],
        words=[[number(value) for value in row] for row in matrix.deltas],
        labels=[str(row) for row in range(rows)],
        height=side,
        seen=seen,
        scale=shade.ends,
        values={"seen": seen, "cells": [[_exact(value) for value in row] for row in matrix.deltas]},
    )


def visible_inputs(contract: str, seq: int) -> list[tuple[int, int]]:
    """For each position the first and the last input that it may see; all, where the contract says nothing of it."""
    try:
        known = parse_contract(tuple(contract.split("+")))
    except UsageError:
        known = Contract(bidirectional=True)
    if known.bidirectional:
        return [(0, seq - 1)] * seq
    return list(zip(known.earliest(seq), known.latest(seq), strict=True))


def _exact(value: float) -> float | str:
    return float(f"{value:.6g}") if math.isfinite(value) else str(value)


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
        reach = math.log(self.largest / self.smallest)
        share = math.log(max(abs(value), self.smallest) / self.smallest) / reach
        return min(_LEVELS - 1, int(share * _LEVELS))


def _heatmap(
    *,
    kind: str,
    configuration: str,
    pixels: Sequence[bytes],
    words: Sequence[Sequence[str]],
    labels: Sequence[str],
    height: int,
    scale: tuple[str, str],
    values: dict,
    seen: Sequence[tuple[int, int]] = (),
    unknown: Sequence[Sequence[bool]] = (),
    borders: Sequence[int] = (),
) -> Heatmap:
    rows, columns = len(pixels), len(pixels[0])
    inked = columns <= _INKED and rows <= 4 * _INKED
    longest = max((len(word) for line in words for word in line if len(word) <= _LONGEST), default=0)
    width = max(30, 6 * longest + 8) if inked else max(3, min(14, 640 // columns))
    left = 34 + 7 * min(18, max(map(len, labels)))
    top = _GUTTER[1]
    apart = max(1, math.ceil(14 / height))  # ticks need the height of a line
    return Heatmap(
        kind=kind,
        configuration=configuration,
        size=(rows, columns),
        width=max(_LEAST[0], left + columns * width + 12),
        height=max(_LEAST[1], top + rows * height + 4) if kind == "delta" else top + rows * height + 4,
        left=left,
        top=top,
        cell=(width, height),
        picture=data_uri(pixels, _PALETTE),
        outlined=_outlined(seen, columns, left, top, width, height),
        hatched=_hatched(unknown, left, top, width, height),
        separators=tuple(top + at * height for at in borders),
        row_ticks=tuple(
            (top + at * height + height // 2, _cropped(label)) for at, label in enumerate(labels) if at % apart == 0
        ),
        column_ticks=tuple(
            (left + at * width + width // 2, str(at))
            for at in range(0, columns, next(s for s in (1, 2, 4, 8, 16, 32, 64, 2**20) if s * width >= 26))
        ),
        inked=tuple(
            (left + column * width + width // 2, top + row * height + height // 2, word)
            for row, line in enumerate(words)
            for column, word in enumerate(line)
            if inked and word != "0" and len(word) <= _LONGEST
        ),
        scale=scale,
        values=json.dumps(values, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c"),
    )


def _cropped(label: str) -> str:
    return label if len(label) <= 18 else f"{label[:17]}…"


def _outlined(seen: Sequence[tuple[int, int]], columns: int, left: int, top: int, width: int, height: int) -> str:
    """What lies after the last input that may be seen, and what lies before the first."""
    paths = []
    if any(last < columns - 1 for _, last in seen):
        paths.append(_stairs([last + 1 for _, last in seen], columns, left, top, width, height))
    if any(first > 0 for first, _ in seen):
        paths.append(_stairs([first for first, _ in seen], 0, left, top, width, height))
    return " ".join(paths)


def _stairs(edges: Sequence[int], side: int, left: int, top: int, width: int, height: int) -> str:
    """The area between `side` and the edge of each row, around which there is one line."""
    reached = [row for row, edge in enumerate(edges) if edge != side]
    steps = "".join(f"H{left + edges[row] * width}V{top + (row + 1) * height}" for row in reached)
    return f"M{left + side * width} {top + reached[0] * height}{steps}H{left + side * width}Z"


def _hatched(unknown: Sequence[Sequence[bool]], left: int, top: int, width: int, height: int) -> str:
    paths = []
    for row, line in enumerate(unknown):
        start = None
        for column, hidden in enumerate((*line, False)):
            if hidden and start is None:
                start = column
            elif not hidden and start is not None:
                across = (column - start) * width
                paths.append(f"M{left + start * width} {top + row * height}h{across}v{height}h-{across}z")
                start = None
    return "".join(paths)
