"""The statements around a hand-over, by syntax."""

import ast

import pytest

from leakcheck.checkpoints import source
from leakcheck.lineage import statements


def stack(layers, mask, x, keep):
    stored = []
    for layer in layers:
        if keep:
            x = x + 1
            outputs = layer(x, mask)
            first = outputs[0]
        else:
            outputs = x
        last = outputs[-1]
        stored.append(first)
        unrelated = len(stored)
        if last is None:
            stored.append(last)
        again = layer(last, mask)
        stored.append(again)
    return stored, unrelated


def asks(mask, x):
    if mask is not None:
        x = x + mask
    if x is None:
        return None
    for _ in range(2):
        if mask is None:
            x = x + 1
    return x


CODE = stack.__code__


def statement(text):
    (found,) = (s for s in ast.walk(source.syntax_of(CODE)) if isinstance(s, ast.stmt) and ast.unparse(s) == text)
    return found


def texts(found):
    return [ast.unparse(s).splitlines()[0] for s in found]


def test_what_decides_on_a_statement_are_the_loops_and_branches_around_it():
    assert texts(statements.deciding(CODE, statement("outputs = layer(x, mask)"))) == [
        "for layer in layers:",
        "if keep:",
    ]
    assert statements.deciding(CODE, statement("stored = []")) == ()
    assert statements.deciding(CODE, None) == ()


def test_what_takes_up_a_result_follows_in_the_same_turn_and_ran_if_it_did():
    again = "again = layer(last, mask)"
    found = statements.taking_up(CODE, statement("outputs = layer(x, mask)"), lambda s: ast.unparse(s) == again)
    assert texts(found) == ["first = outputs[0]", "last = outputs[-1]", "stored.append(first)"]


def test_outside_a_loop_nothing_is_taken_up():
    assert statements.taking_up(CODE, statement("stored = []"), lambda s: False) == ()


@pytest.mark.parametrize(("before", "expected"), [(1000, 1), (0, 0)])
def test_a_branch_asks_for_a_parameter_if_every_call_runs_it(before, expected):
    line = asks.__code__.co_firstlineno
    found = statements.asking(asks.__code__, "mask", before + line * bool(before))
    assert texts(found) == ["if mask is not None:"][:expected]


def test_a_name_is_traced_to_the_statements_that_assign_it():
    expression = ast.parse("last", mode="eval").body
    found = statements.sources_of(CODE, statement("stored.append(last)"), expression)
    assert texts(found) == ["last = outputs[-1]"]
