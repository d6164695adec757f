"""`cell`: one entry of the table in docs/compatibility.md, told by a test that runs under every library version.

Files in this folder run in each environment of the Makefile (`make versions`), so they must be importable with the
oldest: import by name what only newer versions have inside the test.
"""

import json
import sysconfig
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import transformers

from leakcheck.errors import LeakcheckError
from leakcheck.findings import AuditResult, Verdict
from leakcheck.subjects.refusal import one_line

TABLE = Path(__file__).resolve().parents[2] / "reports" / "compatibility.json"

Result = AuditResult | Verdict
Told = dict[str, str]  # row -> what this version says of it
_TOLD = pytest.StashKey[Told]()


def pytest_addoption(parser):
    parser.addoption("--write-table", action="store_true", help="write this version's column of the table")


def pytest_configure(config):
    config.stash[_TOLD] = {}


def pytest_sessionfinish(session):
    """The column as a whole: what no test tells any more is gone from it."""
    if session.config.getoption("--write-table", default=False) and not session.testsfailed:
        _write(session.config.stash[_TOLD])


@pytest.fixture
def cell(request, tmp_path):
    """Tell one cell of the table: `cell(row, expected, run)`, where `run()` returns an AuditResult or a Verdict.

    The row is named by the form of SPEC or the kind of model, the column is the installed transformers. The cell says
    the verdict, which must be `expected`; or, where this version cannot run it, the one line of the `LeakcheckError`
    or `ImportError` that says why. Returns what `run` did, or `None` where it cannot run, for a test to assert more:

        def test_sharded_folder(cell, tmp_path):
            llama().save_pretrained(tmp_path, max_shard_size="20KB")
            cell("folder, sharded safetensors", Verdict.PROVEN, lambda: audit(str(tmp_path)))

    A plain run compares with the committed column of this version, if there is one; `make compatibility` writes the
    columns. The line is told without the path of the temporary folder and of the installed packages.
    """
    told, committed = request.config.stash[_TOLD], _committed()
    writing = request.config.getoption("--write-table", default=False)

    def tell(row: str, expected: Verdict, run: Callable[[], Result]) -> Result | None:
        assert row not in told, f"another test tells the row {row!r} already"
        try:
            result = run()
        except (LeakcheckError, ImportError) as error:
            reason = str(error) if isinstance(error, LeakcheckError) else one_line(error)
            for folder in (tmp_path, Path(sysconfig.get_path("purelib"))):
                reason = reason.replace(f"{folder}/", "")
            result, said = None, " ".join(reason.split())
        else:
            said = result.verdict if isinstance(result, AuditResult) else result
            assert said is expected
        told[row] = str(said)
        if committed is not None and not writing:
            wanted = committed.get(row)
            assert said == wanted, f"{row}: said {said!r}, the table has {wanted!r}; `make compatibility` writes it"
        return result

    return tell


def _committed() -> Told | None:
    """What the committed table says of this version; `None` if it has no such column."""
    table = json.loads(TABLE.read_text(encoding="utf-8")) if TABLE.exists() else {"columns": [], "rows": {}}
    if transformers.__version__ not in [column["transformers"] for column in table["columns"]]:
        return None
    return {
        row: said[transformers.__version__] for row, said in table["rows"].items() if transformers.__version__ in said
    }


def _write(told: Told) -> None:
    table = json.loads(TABLE.read_text(encoding="utf-8")) if TABLE.exists() else {"columns": [], "rows": {}}
    own = {"transformers": transformers.__version__, "torch": torch.__version__.partition("+")[0]}
    others = [column for column in table["columns"] if column["transformers"] != own["transformers"]]
    columns = sorted([*others, own], key=lambda column: [int(part) for part in column["transformers"].split(".")])
    rows = {}
    for row in [*told, *(row for row in table["rows"] if row not in told)]:
        said = {version: text for version, text in table["rows"].get(row, {}).items() if version != own["transformers"]}
        said |= {own["transformers"]: told[row]} if row in told else {}
        if said:
            rows[row] = {c["transformers"]: said[c["transformers"]] for c in columns if c["transformers"] in said}
    TABLE.write_text(json.dumps({"columns": columns, "rows": rows}, indent=1) + "\n", encoding="utf-8")
