"""Witnesses as files: what is written is read again, and what is no witness is told in one line."""

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy
import pytest
from safetensors.numpy import load_file

from leakcheck.errors import LeakcheckError, UsageError
from leakcheck.report.inputs import shown_by
from leakcheck.report.witness import read, replayable, store

from .documents import DOCUMENTS, array, future_witness

WITNESS = future_witness("sdpa/none/eval")
HOSTILE = replace(
    WITNESS,
    spec="深度\u202e<script>\x1b[31m\udcff.py",
    delta=math.inf,
    arguments=(
        {"features": array("float32", [0.5, -0.0, math.inf])},
        {"features": array("float32", [1e-45, 2.0, 3.0])},
    ),
    recipe={"fields": {"nan": "NaN", "nested": {"a": [1, None, True]}}},
)


def stored(folder: Path, *witnesses) -> Path:
    store(replace(DOCUMENTS["leak"], witnesses=witnesses), folder)
    return folder / f"{witnesses[0].id}.json"


@pytest.mark.parametrize("witness", [WITNESS, HOSTILE, replace(WITNESS, arguments=(), delta=5e-324)])
def test_what_is_written_is_read_again_to_the_last_bit(tmp_path: Path, witness) -> None:
    assert read(stored(tmp_path, witness)) == witness


def test_people_can_read_it(tmp_path: Path) -> None:
    path = stored(tmp_path, WITNESS)
    told = json.loads(path.read_text())
    assert told["tokens"] == [[5, 7]]
    assert told["changed"] == [[5, 9]]
    assert told["delta"] == 4.5123456
    assert told["configuration"]["attention"] == "sdpa"
    tensors = load_file(path.with_suffix(".safetensors"))
    assert tensors["changed"].tolist() == [[5, 9]]
    assert tensors["changed"].dtype == numpy.int64
    assert set(tensors) == {"tokens", "changed", "scale", "arguments.0.input_ids", "arguments.1.input_ids"}


def test_findings_end_with_the_command(tmp_path: Path) -> None:
    result = store(DOCUMENTS["leak"], tmp_path / "a b")
    for finding, witness in zip(result.findings, result.witnesses, strict=True):
        assert finding.reproduce == f"leakcheck replay '{tmp_path}/a b/{witness.id}.json'"
        assert (tmp_path / "a b" / f"{witness.id}.safetensors").exists()


def test_a_finding_without_a_witness_keeps_its_command() -> None:
    document = DOCUMENTS["crash"]
    assert replayable(document, "there").findings[1].reproduce == document.findings[1].reproduce


def test_nothing_is_written_without_a_leak(tmp_path: Path) -> None:
    assert store(DOCUMENTS["clean"], tmp_path / "new") == DOCUMENTS["clean"]
    assert not (tmp_path / "new").exists()


def test_its_own_folder_is_kept_out_of_git(tmp_path: Path) -> None:
    stored(tmp_path / ".leakcheck" / "witnesses", WITNESS)
    assert (tmp_path / ".leakcheck" / ".gitignore").read_text() == "*\n"


def test_a_folder_that_cannot_be_made_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("")
    with pytest.raises(LeakcheckError, match=r"cannot make folder .*taken"):
        stored(tmp_path / "taken", WITNESS)


def edited(**changes):
    def edit(path: Path) -> None:
        path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))

    return edit


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda path: path.unlink(), "no such witness can be read"),
        (lambda path: path.write_bytes(b"\xff\x00{"), "not JSON"),
        (lambda path: path.write_text("[]"), "not a witness; give a file"),
        (lambda path: path.write_text('{"schema_version": "1.1"}'), "not a witness; give a file"),
        (edited(schema_version="2.0"), "a witness of another leakcheck"),
        (edited(surprise=1), "not a witness: .*surprise"),
        (edited(row="first"), "not a witness: .*row"),
        (edited(delta="much"), "not a witness"),
        (lambda path: path.with_suffix(".safetensors").unlink(), "its tensors cannot be read"),
        (lambda path: path.with_suffix(".safetensors").write_bytes(b""), "not the tensors of"),
        (edited(tensors_sha256="0"), "not the tensors of"),
    ],
)
def test_what_is_no_witness_is_one_line(tmp_path: Path, edit, message: str) -> None:
    path = stored(tmp_path, WITNESS)
    edit(path)
    with pytest.raises(UsageError, match=message) as raised:
        read(path)
    assert "\n" not in str(raised.value)
    assert str(tmp_path) in str(raised.value)


def test_a_folder_is_no_witness(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="Is a directory"):
        read(tmp_path)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({}, "tokens 5 7, and 9 at position 1: position 0 moves by 4.5"),
        ({"delta": math.inf}, "tokens 5 7, and 9 at position 1: position 0 moves by inf"),
        (
            {"scale": array("float32", [1, 100])},
            "tokens 5 7, and 9 at position 1, with embeddings 100 times as long: position 0 moves by 4.5",
        ),
        ({"changed": WITNESS.tokens}, "tokens 5 7: position 0 moves by 4.5 when they are decoded in pieces"),
        (
            {name: array("int64", [1, 2], [3, 4 + n]) for n, name in enumerate(("tokens", "changed"))}
            | {"scale": array("float32", [1, 1], [1, 1])},
            "2 x 2 tokens, and 5 at position 1, 1: position 0 of row 0 moves by 4.5",
        ),
        (
            {name: array("int64", [n] * 40) for n, name in enumerate(("tokens", "changed"))}
            | {"scale": array("float32", [1] * 40)},
            "1 x 40 tokens, and others at 40 positions: position 0 moves by 4.5",
        ),
    ],
)
def test_in_words(changes: dict, said: str) -> None:
    assert shown_by(replace(WITNESS, **changes)) == said
