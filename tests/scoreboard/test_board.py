"""The scoreboard counts what detectors say, also of a detector that misses, that cries wolf, or that breaks."""

import json
from pathlib import Path

import pytest
import torch
from torch import nn

from leakcheck.config import Configuration
from leakcheck.errors import UsageError
from leakcheck.scoreboard import board, detectors, summary
from leakcheck.scoreboard.board import Row
from leakcheck.scoreboard.detectors import DETECTORS, Said
from leakcheck.scoreboard.passes import counted
from leakcheck.subjects.subject import Subject
from leakcheck.zoo import CONTROLS, LEAKS
from tests.cli.command import command

LEAK, CONTROL = "FusedInverted", "FirstRowFullyMasked"
COMMITTED = Path(__file__).parents[2] / "reports" / "scoreboard.json"


@pytest.fixture(scope="module")
def rows() -> list[Row]:
    return board.board([LEAK, CONTROL])


def of(rows: list[Row], detector: str, kind: str) -> Row:
    (row,) = (row for row in rows if (row.detector, row.kind) == (detector, kind))
    return row


@pytest.mark.parametrize("detector", [name for name, entry in DETECTORS.items() if entry.ours])
def test_leakcheck_tells_the_leak_from_what_is_correct(rows: list[Row], detector: str) -> None:
    assert [of(rows, detector, kind).flagged for kind in ("leak", "twin", "control")] == [True, False, False]


def test_what_people_use_sees_a_plain_leak(rows: list[Row]) -> None:
    rivals = [name for name, entry in DETECTORS.items() if not entry.ours and entry.available]
    assert len(rivals) >= 2
    assert all(of(rows, name, "leak").flagged for name in rivals)


def test_poisoning_takes_every_mask_for_a_leak(rows: list[Row]) -> None:
    assert of(rows, "NaN poisoning", "twin").flagged
    assert not of(rows, "ten-line test", "twin").flagged


def test_lines_and_codes(rows: list[Row]) -> None:
    assert (of(rows, "leakcheck", "leak").line, of(rows, "leakcheck", "leak").codes) == (True, True)
    assert (of(rows, "flow alone", "leak").line, of(rows, "flow alone", "leak").codes) == (True, None)
    assert of(rows, "ten-line test", "leak").line is None
    assert of(rows, "leakcheck", "twin").line is None


def test_costs(rows: list[Row]) -> None:
    assert of(rows, "ten-line test", "control").forwards == 2
    assert of(rows, "NaN poisoning", "control").forwards == 1
    assert of(rows, "flow alone", "control").backwards == 0
    assert of(rows, "perturbation alone", "control").forwards > LEAKS[LEAK].subject(leaky=False).seq_len


def test_forwards_and_backwards_are_counted() -> None:
    model = nn.Sequential(nn.Linear(2, 3), nn.ReLU())
    with counted() as once:
        model(torch.zeros(1, 2))
    with counted() as passes:
        model(torch.ones(4, 2)).sum().backward()
        torch.autograd.grad(model(torch.ones(1, 2)).sum(), model[0].weight)
    assert (once.elements, once.backwards) == (6, 0)
    assert (passes.elements, passes.backwards) == (5 * once.elements, 2)


def planted(monkeypatch: pytest.MonkeyPatch, said: Said | Exception) -> summary.Score:
    """The score of a detector that always says the same, in place of leakcheck."""

    def run(subject: Subject, configuration: Configuration, policy: str) -> Said:
        if isinstance(said, Exception):
            raise said
        return said

    monkeypatch.setattr(detectors, "DETECTORS", DETECTORS)
    monkeypatch.setitem(DETECTORS, "leakcheck", detectors.Entry("leakcheck", "planted", run, ours=True))
    (score,) = (s for s in summary.scores(board.board([LEAK, CONTROL])) if s.detector == "leakcheck")
    return score


def test_a_detector_that_misses(monkeypatch) -> None:
    score = planted(monkeypatch, Said(False, codes=LEAKS[LEAK].codes))
    assert (score.missed, score.false_alarms, score.unsaid) == ((LEAK,), (), ())
    assert not summary.passes([score])


def test_a_detector_that_cries_wolf(monkeypatch) -> None:
    score = planted(monkeypatch, Said(True, codes=LEAKS[LEAK].codes))
    assert (score.missed, score.false_alarms) == ((), (f"{LEAK}, clean twin", CONTROL))
    assert not summary.passes([score])


def test_a_detector_that_raises_has_missed(monkeypatch) -> None:
    score = planted(monkeypatch, RuntimeError("broken"))
    assert (score.found, score.missed) == (0, (LEAK,))
    assert len(score.unsaid) == 3


def test_a_detector_without_the_codes(monkeypatch, rows) -> None:
    passing = next(s for s in summary.scores(rows) if s.detector == "leakcheck")
    assert summary.passes([passing])
    assert not summary.passes([planted(monkeypatch, Said(True, codes=("LC999",)))])


def test_the_files_hold_the_same_figures(rows: list[Row]) -> None:
    document = json.loads(summary.to_json(rows))
    assert len(document["rows"]) == len(rows)
    for score, found in zip(document["scores"], summary.scores(rows), strict=True):
        assert score["found"] == found.found
        assert f"| {' | '.join(summary.cells(found))} |" in summary.to_markdown(rows)


def test_an_unknown_name() -> None:
    with pytest.raises(UsageError, match="NoSuchLeak: no leak and no control of the zoo"):
        board.board(["NoSuchLeak"])


def test_the_command(tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    code, out, err = command(monkeypatch, capsys, "bench", LEAK, "--report", "board.md")
    assert (code, err) == (0, "")
    assert "1 of 1" in out
    assert "0 of 1" in (tmp_path / "board.md").read_text()

    code, _, err = command(monkeypatch, capsys, "bench", "--report", "no/folder/board.md")
    assert code == 2
    assert len(err.splitlines()) == 1


def test_the_committed_scoreboard_is_that_of_this_zoo_and_holds() -> None:
    document = json.loads(COMMITTED.read_text())
    rows = [Row(**row) for row in document["rows"]]
    assert {row.subject for row in rows if row.kind == "leak"} == set(LEAKS)
    assert {row.subject for row in rows if row.kind == "control"} == set(CONTROLS)
    assert {row.detector for row in rows} == set(DETECTORS)
    assert summary.passes(summary.scores(rows))
    assert json.loads(summary.to_json(rows))["scores"] == document["scores"]
    assert "\n".join(summary.head_to_head(summary.scores(rows))) in COMMITTED.with_suffix(".md").read_text()
    together = next(score for score in summary.scores(rows) if score.detector == "leakcheck")
    assert together.lines_right >= 0.9 * together.leaks
