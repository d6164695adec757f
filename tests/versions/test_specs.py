"""Every form of SPEC, under the installed version of the library."""

import pytest

from leakcheck.auditing import audit
from leakcheck.config import Settings
from leakcheck.findings import Verdict


@pytest.mark.parametrize(
    ("name", "expected"),
    [("llama", Verdict.PROVEN), ("method1_v3", Verdict.PROVEN), ("method1_v3_as_published", Verdict.LEAK)],
)
def test_built_in(cell, name, expected):
    cell(f"built-in `{name}`", expected, lambda: audit(name, Settings(attention=("sdpa",))))
