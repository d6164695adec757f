"""How numbers, places and lists are put into words, the same in every rendering."""

import math
from collections.abc import Iterable, Sequence
from pathlib import PurePath

from leakcheck.findings import ClaimVerdict, Verdict

OPERATION_WIDTH = 60


def number(value: float | None) -> str:
    """Two significant digits: `0`, `4.5`, `120`, `2.4e-07`; `-` where nothing was measured."""
    if value is None:
        return "-"
    if value == 0:
        return "0"
    return f"{value:.0f}" if 100 <= abs(value) < 1e6 else f"{value:.2g}"


def ahead(horizon: int | None) -> str:
    """How far a stage can see: `+0`, `+12`; `?` where nothing is proven."""
    return "?" if horizon is None else f"+{horizon}"


def magnitude(value: float | None) -> float:
    """To rank deltas by: no delta comes first, NaN last, since nobody knows how large it is."""
    if value is None:
        return -1.0
    return math.inf if math.isnan(value) else value


def verdict(value: Verdict | ClaimVerdict) -> str:
    return "n/a" if value in (Verdict.NOT_APPLICABLE, ClaimVerdict.NOT_APPLICABLE) else value.value


def visible(text: str) -> str:
    """`text` on one line, with what a terminal would obey (escapes, overrides) spelled out: `\\x1b`."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text.replace("\n", " "))


def shortened(source: str) -> str:
    """A source line for display: white space collapsed, cropped at the end."""
    line = " ".join(source.split())
    return line if len(line) <= OPERATION_WIDTH else line[: OPERATION_WIDTH - 1] + "…"


def place(file: str, lines: tuple[int, int]) -> str:
    """`modeling.py:12-14`; the folder is in the JSON."""
    first, last = lines
    return f"{PurePath(file).name}:{first}" + (f"-{last}" if last != first else "")


def span(layers: Iterable[int]) -> str:
    """Layer indices: `L1`, `L0-2` when consecutive, `L1 +2` for L1 and two others."""
    ordered = sorted(layers)
    if not ordered:
        return ""
    first, last = ordered[0], ordered[-1]
    if len(ordered) == 1:
        return f"L{first}"
    return f"L{first}-{last}" if last - first == len(ordered) - 1 else f"L{first} +{len(ordered) - 1}"


def among(configurations: Iterable[str], every: Sequence[str]) -> str:
    """Some of the configurations `attention/mask/mode`: `sdpa/ones` stands for all that begin so."""
    left, names = set(configurations), []
    for id in every:
        parts = id.rsplit("/", 2)
        for length in range(1, len(parts) + 1):
            prefix = "/".join(parts[:length])
            covered = {other for other in every if other == prefix or other.startswith(f"{prefix}/")}
            if id in left and covered <= left:
                names.append(prefix)
                left -= covered
    return ", ".join(names)


def counted(count: int, noun: str) -> str:
    return f"{count} {noun}" + ("" if count == 1 else "s")
