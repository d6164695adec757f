import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from leakcheck.errors import LeakcheckError, UsageError
from leakcheck.report import RENDERERS, check_writable, write
from leakcheck.report.json import read
from leakcheck.report.registry import renders

from .documents import DOCUMENTS


def test_a_suffix_is_registered_once():
    with pytest.raises(ValueError, match="twice"):
        renders(".json")(str)


@pytest.mark.parametrize("suffix", sorted(RENDERERS))
def test_every_format_is_written_whole(suffix, document, tmp_path):
    path = tmp_path / f"report{suffix.upper()}"
    path.write_text("of an earlier run")
    check_writable(path)
    write(document, path)
    assert path.read_bytes().decode() == RENDERERS[suffix](document).encode("utf-8", "backslashreplace").decode()
    assert os.listdir(tmp_path) == [path.name]


@pytest.mark.parametrize("name", ["x.sarif.json", "X.SARIF.JSON", "x.json.sarif", ".sarif.json"])
def test_the_longest_ending_picks_the_format(name, tmp_path):
    write(DOCUMENTS["empty"], tmp_path / name)
    assert (tmp_path / name).read_text() == RENDERERS[".sarif"](DOCUMENTS["empty"])


def test_a_name_that_is_not_utf8_survives_the_file(tmp_path):
    path = tmp_path / "report.json"
    write(DOCUMENTS["hostile"], path)
    assert read(path.read_text()).findings[0].file == DOCUMENTS["hostile"].findings[0].file


def test_a_report_is_as_readable_as_any_new_file(tmp_path):
    plain, report = tmp_path / "plain", tmp_path / "report.md"
    plain.touch()
    write(DOCUMENTS["empty"], report)
    assert report.stat().st_mode == plain.stat().st_mode


def test_nothing_is_left_when_rendering_fails(tmp_path):
    path = tmp_path / "report.json"
    path.write_text("of an earlier run")
    with pytest.raises(TypeError):
        write(replace(DOCUMENTS["empty"], environment={"device": object()}), path)
    assert path.read_text() == "of an earlier run"
    assert os.listdir(tmp_path) == ["report.json"]


def test_nothing_is_left_when_the_last_step_fails(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(LeakcheckError, match="No space left on device"):
        write(DOCUMENTS["empty"], tmp_path / "report.json")
    assert os.listdir(tmp_path) == []


def test_checking_leaves_nothing_behind(tmp_path, monkeypatch):
    check_writable(tmp_path / "report.json")
    monkeypatch.chdir(tmp_path)
    check_writable("report.md")
    assert os.listdir(tmp_path) == []


def refusal(path: Path) -> str:
    with pytest.raises(UsageError) as refused:
        check_writable(path)
    assert "\n" not in str(refused.value)
    return str(refused.value)


@pytest.mark.parametrize("name", ["report", "report.txt", "report.json.gz", "odd\nname.pdf"])
def test_an_unknown_suffix_is_refused(name, tmp_path):
    assert ".json, .md" in refusal(tmp_path / name)


def test_a_folder_that_takes_no_file_is_refused(tmp_path):
    (tmp_path / "file").touch()
    (tmp_path / "folder.json").mkdir()
    assert "No such file or directory" in refusal(tmp_path / "nowhere" / "report.json")
    assert "Not a directory" in refusal(tmp_path / "file" / "report.json")
    assert "it is a folder" in refusal(tmp_path / "folder.json")


@pytest.mark.skipif(not Path("/proc/self").is_dir(), reason="needs a file system that is read-only for root, too")
def test_a_read_only_file_system_is_refused():
    refusal(Path("/proc/self/report.json"))


@pytest.mark.skipif(os.geteuid() == 0, reason="permissions do not stop root")
def test_a_read_only_folder_is_refused(tmp_path):
    tmp_path.chmod(0o555)
    assert "Permission denied" in refusal(tmp_path / "report.json")


def test_reports_work_without_torch():
    code = "import sys, leakcheck.report; sys.exit('torch' in sys.modules or 'transformers' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
