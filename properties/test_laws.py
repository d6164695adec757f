"""The laws of `leakcheck.laws`, on the model of `--model` or on the built-in ones."""

import pytest
from audited import Audited
from conftest import replayed
from hypothesis import given, reject, settings
from hypothesis import strategies as st
from hypothesis.stateful import run_state_machine_as_test

from leakcheck.laws import LAWS, NotApplicable, Vacuous
from leakcheck.strategies import arguments, decoding

_FEWER = settings(max_examples=max(2, settings().max_examples // 2), stateful_step_count=10)  # a step is two forwards


@pytest.mark.parametrize("law", LAWS)
@given(data=st.data())
def test_law(law: str, audited: Audited, data: st.DataObject) -> None:
    reason = audited.without(law)
    if reason:
        pytest.skip(reason)
    try:
        LAWS[law](audited.twin, **data.draw(arguments(law, **audited.drawn), label=law))
    except Vacuous:
        reject()
    except NotApplicable as error:
        pytest.skip(str(error))


def test_decoding(audited: Audited, pytestconfig: pytest.Config) -> None:
    reason = audited.without("cache_consistent")
    if reason:
        pytest.skip(reason)
    try:
        machine = decoding(audited.twin, vocab_size=audited.subject.vocab_size, max_length=max(audited.lengths))
    except NotApplicable as error:
        pytest.skip(str(error))
    run_state_machine_as_test(replayed(machine, pytestconfig), settings=_FEWER)
