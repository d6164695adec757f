"""Descriptions of inputs and outputs: what they mean, and what is none."""

from fractions import Fraction

import pytest

from leakcheck import Inputs
from leakcheck.errors import UsageError
from leakcheck.subjects.inputs import Argument, Result, declared, result


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("int[batch, time] < 1000", Argument("int", ("batch", "time"), 1000)),
        ("int[batch,time]<7", Argument("int", ("batch", "time"), 7)),
        ("float[batch, 80, time]", Argument("float", ("batch", 80, "time"))),
        ("float[time, batch, 3, 4]", Argument("float", ("time", "batch", 3, 4))),
        ("float[batch, 7, 512]", Argument("float", ("batch", 7, 512))),
        ("int[2, time=16] < 5", Argument("int", (2, "time"), 5, fixed=16)),
        ("bool[batch, time]", Argument("bool", ("batch", "time"))),
        ("length[batch]", Argument("length", ("batch",))),
    ],
)
def test_an_argument(text, meant):
    inputs = Inputs({"x": text, "y": "float[batch, time]"})
    assert inputs.arguments["x"] == meant
    assert Inputs({"x": str(meant), "y": "float[batch, time]"}).arguments["x"] == meant


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("[batch, time, 80]", Result(0, 1)),
        ("[batch, 40, time/2]", Result(0, 2, Fraction(1, 2))),
        ("[time*3, batch]", Result(1, 0, Fraction(3))),
        ("[time - 2, 5]", Result(None, 0, offset=-2)),
        ("[batch, time/4+1]", Result(0, 1, Fraction(1, 4), 1)),
    ],
)
def test_an_output(text, meant):
    assert result("y", text) == meant


def test_what_is_audited_and_what_is_handed_over():
    inputs = Inputs({"x": "float[batch, time, 4]", "memory": "float[batch, 7, 4]", "scale": 2.0})
    assert list(inputs.audited) == ["x"]
    assert str(inputs) == "x: float[batch, time, 4], memory: float[batch, 7, 4], scale: as given"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("float batch time", "not a description of a tensor"),
        ("complex[batch, time]", "not a description of a tensor"),
        ("float[batch, hours]", "the axis 'hours' is none of"),
        ("float[batch, time, time]", "may each be there once"),
        ("float[batch, time/2]", "the axis 'time/2' is none of"),
        ("int[batch, time]", "how many values there are is missing"),
        ("float[batch, 7]", "no argument has a `time` axis"),
        ("length[batch]", "no argument has a `time` axis"),
    ],
)
def test_what_is_no_argument(text, reason):
    with pytest.raises(UsageError, match=reason):
        Inputs({"x": text})


@pytest.mark.parametrize(
    "text", ["[batch, 80]", "batch, time", "[time, time]", "[batch, time=3]", "[batch, batch, time]"]
)
def test_what_is_no_output(text):
    with pytest.raises(UsageError, match="not a description of an output"):
        Inputs({"x": "float[batch, time]"}, {"0": text})


def test_of_a_command_line():
    inputs = declared(("x=float[batch, time, 4]", "n = length[batch]"), ("y=[batch, time]",))
    assert inputs == Inputs({"x": "float[batch, time, 4]", "n": "length[batch]"}, {"y": "[batch, time]"})
    assert declared((), ()) is None


@pytest.mark.parametrize("text", ["float[batch, time]", "float[batch, time=3]", "x"])
def test_a_text_without_a_name(text):
    with pytest.raises(UsageError, match=r"--input .*NAME=DESCRIPTION is needed"):
        declared((text,), ())
