import base64
import json
import math
import struct
import zlib

import pytest

from leakcheck.findings import DeltaMatrix, HorizonMap, HorizonRow
from leakcheck.report.html.heatmap import (
    ALLOWED,
    FORBIDDEN,
    NONE_AHEAD,
    NOTHING,
    PALETTE,
    UNKNOWN,
    delta_heatmap,
    horizon_heatmap,
    visible_inputs,
)
from leakcheck.report.html.png import data_uri

from ..documents import DOCUMENTS, deltas, horizons


def pixels(uri: str) -> list[list[int]]:
    """The indices of a picture, read back; a chunk with a wrong checksum is an error."""
    data = base64.b64decode(uri.removeprefix("data:image/png;base64,"))
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    chunks, at = {}, 8
    while at < len(data):
        (length,) = struct.unpack_from(">I", data, at)
        kind, content = data[at + 4 : at + 8], data[at + 8 : at + 8 + length]
        assert struct.unpack_from(">I", data, at + 8 + length) == (zlib.crc32(kind + content),)
        chunks[kind] = content
        at += 12 + length
    width, height, depth, colours, *_ = struct.unpack(">IIBBBBB", chunks[b"IHDR"])
    assert (depth, colours) == (8, 3)
    assert len(chunks[b"PLTE"]) == 3 * len(chunks[b"tRNS"])
    raw = zlib.decompress(chunks[b"IDAT"])
    assert len(raw) == height * (width + 1)
    assert not any(raw[:: width + 1])  # no filter
    return [list(raw[row * (width + 1) + 1 : (row + 1) * (width + 1)]) for row in range(height)]


def test_a_picture_has_its_pixels_and_colours():
    palette = [(0, 0, 0, 0), (255, 128, 1, 200)]
    uri = data_uri([bytes([0, 1, 1]), bytes([1, 0, 0])], palette)
    assert pixels(uri) == [[0, 1, 1], [1, 0, 0]]
    assert bytes([0, 0, 0, 255, 128, 1]) in base64.b64decode(uri.partition(",")[2])


def kinds(matrix: list[list[int]]) -> list[str]:
    names = {NOTHING: ".", NONE_AHEAD: "0", UNKNOWN: "?"}
    return ["".join(names.get(p, "f" if p < ALLOWED else "p") for p in row) for row in matrix]


def test_a_leak_is_red_and_what_may_be_seen_is_not():
    leak = delta_heatmap(DeltaMatrix("a", ((1.0, 0.0, 1e-9), (0.5, 1.0, 0.0), (0.5, 0.5, 1.0))), "causal")
    assert kinds(pixels(leak.picture)) == ["p.f", "pp.", "ppp"]


def test_padding_may_see_anything():
    leak = delta_heatmap(DeltaMatrix("a", ((1.0, 0.5, 0.5), (0.5, 1.0, 0.5), (0.5, 0.5, 1.0)), (0,)), "causal")
    assert kinds(pixels(leak.picture)) == ["ppp", "ppf", "ppp"]
    assert leak.padded == "0"
    ahead = horizon_heatmap(HorizonMap("a", (HorizonRow("", None, (2, 1, 0)),), (0,)))
    assert kinds(pixels(ahead.picture)) == [".f0"]
    assert [word for *_, word in ahead.inked] == ["pad", "+1", "+0"]


def test_the_legend_has_the_colours_that_occur():
    assert delta_heatmap(deltas(3, leaks=False), "causal").colours == {"allowed", "nothing"}
    assert delta_heatmap(deltas(3, leaks=True), "causal").colours == {"allowed", "forbidden"}
    assert horizon_heatmap(horizons(3, 1, 0)).colours == {"none ahead"}
    assert horizon_heatmap(HorizonMap("a", (HorizonRow("", None, (None, 3)),))).colours == {"unknown", "forbidden"}


def test_above_the_diagonal_is_outlined():
    assert delta_heatmap(deltas(3, leaks=False), "causal").outlined == "M3 0H1V1H2V2H3Z"


@pytest.mark.parametrize(
    ("contract", "seen"),
    [
        ("causal", [(0, 0), (0, 1), (0, 2), (0, 3)]),
        ("lookahead:1", [(0, 1), (0, 2), (0, 3), (0, 3)]),
        ("prefix:3", [(0, 2), (0, 2), (0, 2), (0, 3)]),
        ("window:2", [(0, 0), (0, 1), (1, 2), (2, 3)]),
        ("lookahead:1+window:2", [(0, 1), (0, 2), (1, 3), (2, 3)]),
        ("bidirectional", [(0, 3)] * 4),
        ("of a later version", [(0, 3)] * 4),
    ],
)
def test_what_may_be_seen_is_what_the_contract_says(contract, seen):
    assert visible_inputs(contract, 4) == seen


def test_a_window_is_outlined_on_both_sides():
    assert delta_heatmap(deltas(3, leaks=False), "window:1").outlined == "M3 0H1V1H2V2H3Z" + "M0 1H1V2H2V3H0Z"


def test_where_outputs_are_no_inputs_nothing_is_outlined():
    heatmap = delta_heatmap(DeltaMatrix("a", ((0.0, 1.0),)), "causal")
    assert heatmap.outlined == ""
    assert kinds(pixels(heatmap.picture)) == [".p"]


def test_what_moves_more_is_stronger_and_nothing_that_moves_is_lost():
    values = [10.0**-decade for decade in range(13)]
    row = pixels(delta_heatmap(DeltaMatrix("a", (tuple(values),)), "causal").picture)[0]
    assert row == sorted(row, reverse=True)
    assert len(set(row)) > 6
    assert NOTHING not in row


def test_what_is_not_finite_is_as_strong_as_can_be():
    heatmap = delta_heatmap(DeltaMatrix("a", ((math.nan, math.inf), (1e-300, 1.0))), "causal")
    (nan, infinite), (small, one) = pixels(heatmap.picture)
    assert nan == one > small
    assert infinite - FORBIDDEN == nan - ALLOWED
    assert heatmap.ends == ("1e-09", "1")
    assert json.loads(heatmap.values)["cells"] == [["nan", "inf"], [1e-300, 1.0]]


def test_values_are_exact_to_six_digits():
    values = json.loads(delta_heatmap(DeltaMatrix("a", ((1.23456789,),)), "causal").values)
    assert values == {"seen": [[0, 0]], "cells": [[1.23457]]}


def test_horizons_are_grouped_by_path_and_the_outputs_come_last():
    heatmap = horizon_heatmap(horizons(3, 2, 1))
    labels = ["standard L0", "standard L1", "recompute L0", "recompute L1", "outputs"]
    assert [label for _, label in heatmap.row_ticks] == labels
    assert heatmap.borders == (2, 4)
    assert json.loads(heatmap.values) == {"rows": labels, "cells": [[1, 1, 0]] * 5}
    assert kinds(pixels(heatmap.picture)) == ["ff0"] * 5


def test_what_is_unknown_is_hatched():
    rows = (HorizonRow("a", 0, (None, 0, None, None)), HorizonRow("", None, (0, 0, 0, None)))
    heatmap = horizon_heatmap(HorizonMap("a", rows))
    assert heatmap.hatched == "M0 0H1V1H0Z" + "M2 0H4V1H2Z" + "M3 1H4V2H3Z"
    assert kinds(pixels(heatmap.picture)) == ["?0??", "000?"]
    assert [word for *_, word in heatmap.inked] == ["?", "+0", "?", "?", "+0", "+0", "+0", "?"]


def test_rows_of_different_lengths_are_filled_with_what_is_unknown():
    heatmap = horizon_heatmap(HorizonMap("a", (HorizonRow("a", 0, (0, 0)), HorizonRow("", None, (0,)))))
    assert kinds(pixels(heatmap.picture)) == ["00", "0?"]


def test_numbers_stand_in_cells_that_have_room_for_them():
    assert len(delta_heatmap(deltas(16, leaks=True), "causal").inked) == 256
    assert delta_heatmap(deltas(17, leaks=True), "causal").inked == ()
    large = horizon_heatmap(HorizonMap("a", (HorizonRow("a", 0, (10**9, 1)),)))
    assert large.inked == ((0, 1, "+1"),)


def test_names_end_no_script_and_turn_no_text_round():
    values = horizon_heatmap(DOCUMENTS["hostile"].horizon_map).values
    assert "<" not in values
    assert all(c.isprintable() for name in json.loads(values)["rows"] for c in name)


def luminance(colour) -> float:
    linear = [
        c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in (channel / 255 for channel in colour)
    ]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize(
    ("ink", "page"), [((0x1B, 0x1F, 0x24), (255, 255, 255)), ((0xE4, 0xE7, 0xEA), (0x1B, 0x1F, 0x23))]
)
def test_numbers_in_cells_are_legible(ink, page):
    """In the light and in the dark colours of report.css."""
    for *colour, opacity in PALETTE:
        mixed = [(c * opacity + p * (255 - opacity)) / 255 for c, p in zip(colour, page, strict=True)]
        lighter, darker = sorted((luminance(ink), luminance(mixed)), reverse=True)
        assert (lighter + 0.05) / (darker + 0.05) >= 4.5
