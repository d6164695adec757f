"""The recorder on plain functions: who called whom with what, and what a statement saw."""

import sys

import pytest
import torch

from leakcheck.checkpoints.recorder import position_in, record


def double(x):
    return 2 * x


def outer(x, *rest, scale=1, **options):
    first = double(x)
    return scale * double(first) + sum(rest) + options.get("extra", 0)


def code_of(*functions):
    return {function.__code__ for function in functions}


def test_nested_calls_have_their_parents_arguments_and_results():
    result, recording = record(lambda: outer(1, 10, 20, scale=3, extra=5), codes=code_of(outer, double))
    assert result == 3 * 4 + 30 + 5
    whole, first, second = recording.calls
    assert whole.arguments == {"x": 1, "scale": 3, "rest": (10, 20), "options": {"extra": 5}}
    assert (whole.parent, first.parent, second.parent) == (None, whole, whole)
    assert (first.arguments, first.result) == ({"x": 1}, 2)
    assert (second.arguments, second.result) == ({"x": 2}, 4)
    assert recording.of(double.__code__) == [first, second]


def test_spans_nest_like_the_calls():
    _, recording = record(lambda: outer(1), codes=code_of(outer, double))
    whole, first, second = recording.calls
    assert whole.span[0] < first.span[0] < first.span[1] < second.span[0] < second.span[1] < whole.span[1]


def test_the_position_is_the_call_expression_in_the_parent():
    _, recording = record(lambda: outer(1), codes=code_of(outer, double))
    line = outer.__code__.co_firstlineno
    assert [call.position[0] - line for call in recording.calls[1:]] == [1, 2]
    assert recording.calls[2].position[2:] == (19, 32)  # `double(first)`


@pytest.mark.parametrize(
    "call",
    [lambda: outer(2), lambda: outer(2, 3, scale=4), lambda: outer(scale=2, x=1, extra=7)],
)
def test_running_a_call_again_gives_its_result(call):
    _, recording = record(call, codes=code_of(outer, double))
    for recorded in recording.calls:
        assert recorded.run(recorded.arguments) == recorded.result


def test_a_call_runs_again_with_other_arguments():
    _, recording = record(lambda: outer(1, 10), codes=code_of(outer))
    (call,) = recording.calls
    assert call.run({**call.arguments, "x": 100}) == 410


class Base:
    def __init__(self, offset):
        self.offset = offset

    def forward(self, x):
        return x + self.offset


class Child(Base):
    def forward(self, x):
        return 10 * super().forward(x)


def test_super_needs_the_class_of_the_closure():
    _, recording = record(lambda: Child(3).forward(1), codes=code_of(Child.forward, Base.forward))
    child, base = recording.calls
    assert (child.result, base.result) == (40, 4)
    assert base.parent is child
    assert child.run({**child.arguments, "x": 2}) == 50


def test_closures_keep_what_they_closed_over():
    def make(step):
        def inner(x):
            return x + step

        return inner

    add = make(7)
    _, recording = record(lambda: add(1), codes={add.__code__})
    assert recording.calls[0].run({"x": 5}) == 12


def test_later_mutation_does_not_reach_the_arguments():
    def appending(items):
        items.append(9)
        return len(items)

    items = [1, 2]
    _, recording = record(lambda: appending(items), codes=code_of(appending))
    assert items == [1, 2, 9]
    assert recording.calls[0].arguments == {"items": [1, 2]}


def test_arguments_are_those_at_entry_though_the_function_rebinds_them():
    def rebinding(x):
        x = x + 1
        return x

    _, recording = record(lambda: rebinding(1), codes=code_of(rebinding))
    assert recording.calls[0].arguments == {"x": 1}


def test_a_function_that_was_not_asked_for_is_between_but_not_recorded():
    def middle(x):
        return double(x)

    def top(x):
        return middle(x)

    _, recording = record(lambda: top(1), codes=code_of(top, double))
    assert [call.code.co_name for call in recording.calls] == ["top", "double"]
    assert recording.calls[1].parent is recording.calls[0]


def test_callees_of_records_direct_callees_only():
    def middle(x):
        return double(x)

    def top(x):
        return middle(x)

    _, recording = record(lambda: top(1), codes=code_of(top), callees_of=code_of(top))
    assert [call.code.co_name for call in recording.calls] == ["top", "middle"]


def test_everything_below_records_all_callees_and_stops_after():
    def middle(x):
        return double(x)

    def top(x):
        return middle(x)

    def run():
        top(1)
        return double(5)

    _, recording = record(run, codes=code_of(top), everything_below=code_of(top))
    assert [(c.code.co_name, c.result) for c in recording.calls] == [("top", 2), ("middle", 2), ("double", 2)]


def test_a_generator_between_two_calls_confuses_nobody():
    def numbers(n):
        for i in range(n):
            yield double(i)

    def top(n):
        total = 0
        for value in numbers(n):
            total += double(value)
        return total

    result, recording = record(lambda: top(3), codes=code_of(top, double))
    assert result == 12
    assert [call.arguments["x"] for call in recording.of(double.__code__)] == [0, 0, 1, 2, 2, 4]
    assert {call.parent for call in recording.of(double.__code__)} == {recording.calls[0]}


def test_recursion():
    def factorial(n):
        return 1 if n < 2 else n * factorial(n - 1)

    _, recording = record(lambda: factorial(4), codes=code_of(factorial))
    assert [call.result for call in recording.calls] == [24, 6, 2, 1]
    assert [call.parent for call in recording.calls] == [None, *recording.calls[:3]]


@pytest.mark.parametrize("raises", [False, True])
def test_the_tracer_of_others_is_put_back(raises):
    seen = []

    def mine(frame, event, arg):
        seen.append(event)

    def body():
        assert sys.gettrace() is not mine
        if raises:
            raise KeyError("inside")

    previous = sys.gettrace()
    sys.settrace(mine)
    try:
        if raises:
            with pytest.raises(KeyError):
                record(body, codes=code_of(body))
        else:
            record(body, codes=code_of(body))
        assert sys.gettrace() is mine
    finally:
        sys.settrace(previous)


def test_an_exception_that_the_subject_handles_closes_its_calls():
    def failing(x):
        raise ValueError(x)

    def top():
        try:
            failing(1)
        except ValueError:
            return double(3)

    result, recording = record(top, codes=code_of(top, failing, double))
    assert result == 6
    assert [(c.code.co_name, c.result) for c in recording.calls] == [("top", 6), ("failing", None), ("double", 6)]
    assert recording.calls[2].parent is recording.calls[0]


def watched(x):
    y = x + 1
    if y > 1:
        y = 10 * y
    return y


FIRST = watched.__code__.co_firstlineno


@pytest.mark.parametrize(("x", "executed", "after"), [(5, {2, 3}, 60), (-5, {2}, -4)])
def test_a_visit_keeps_the_locals_before_and_after_and_the_lines_that_ran(x, executed, after):
    lines = (FIRST + 2, FIRST + 3)
    _, recording = record(lambda: watched(x), codes=code_of(watched), ranges={watched.__code__: [lines]})
    (visit,) = recording.visits[watched.__code__]
    assert visit.lines == lines
    assert visit.before == {"x": x, "y": x + 1}
    assert visit.after == {"x": x, "y": after}
    assert {line - FIRST for line in visit.executed} == executed
    assert visit.call is recording.calls[0]
    assert visit.call.span[0] < visit.span[0] < visit.span[1] < visit.call.span[1]


def test_each_turn_of_a_loop_is_a_visit():
    def looping(n):
        total = 0
        for i in range(n):
            total += i
        return total

    line = looping.__code__.co_firstlineno + 3
    _, recording = record(lambda: looping(3), codes=code_of(looping), ranges={looping.__code__: [(line, line)]})
    visits = recording.visits[looping.__code__]
    assert [(v.before["total"], v.after["total"]) for v in visits] == [(0, 0), (0, 1), (1, 3)]


def test_tensors_are_kept_as_the_same_objects():
    x = torch.ones(3)
    _, recording = record(lambda: double(x), codes=code_of(double))
    assert recording.calls[0].arguments["x"] is x


def test_position_in_a_frame():
    def here():
        return position_in(sys._getframe())

    line = here.__code__.co_firstlineno + 1
    assert here() == (line, line, 15, 43)  # `position_in(sys._getframe())`
