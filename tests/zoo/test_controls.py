"""No control is flagged: an audit of all of its configurations ends as the control says, PROVEN or OPEN."""

import re

import pytest

from leakcheck import audit
from leakcheck.config import Settings
from leakcheck.findings import Verdict
from leakcheck.zoo import CONTROLS


@pytest.mark.parametrize("name", CONTROLS)
def test_a_control_is_quiet(name: str) -> None:
    control = CONTROLS[name]
    result = audit(control.subject(), Settings(contract=control.contract, policies=control.policies))
    assert result.verdict is (Verdict.PROVEN if control.proven else Verdict.OPEN), result.findings
    assert all(planted.caught for planted in result.controls)


@pytest.mark.parametrize("name", CONTROLS)
def test_it_says_why_it_is_tricky_and_where_it_was_learned(name: str) -> None:
    control = CONTROLS[name]
    assert control.make.__doc__
    assert re.match(r"https://\S+$", control.learned_from)
