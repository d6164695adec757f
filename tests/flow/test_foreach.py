"""Ops on lists of tensors do what they do without labels, and every tensor in the list has labels of its own."""

import pytest
import torch

from leakcheck.flow import trace

X = torch.arange(1.0, 43).view(2, 7, 3)


def back(x):
    """Every position reads its successor."""
    return torch.cat([x[:, 1:], x[:, -1:]], 1)


PROGRAMS = {
    "mul by a number": lambda a, b: torch._foreach_mul([a, b], 2.0),
    "mul by numbers": lambda a, b: torch._foreach_mul([a, b], [2.0, 3.0]),
    "mul by tensors": lambda a, b: torch._foreach_mul([a, b], [a, b]),
    "mul by a tensor": lambda a, b: torch._foreach_mul([a, b], torch.tensor(2.0)),
    "add with a factor": lambda a, b: torch._foreach_add([a, b], [a, b], alpha=0.5),
    "lerp": lambda a, b: torch._foreach_lerp([a, b], [b, b], 0.0) and torch._foreach_neg([a, b]),
    "pow of a number": lambda a, b: torch._foreach_pow(2.0, [a / 42, b / 42]),
    "in place": lambda a, b: _in_place(torch._foreach_sqrt_, a, b),
    "copied": lambda a, b: _in_place(lambda both: torch._foreach_copy_(both, [a * 2, b * 2]), a, b),
}


def _in_place(op, a, b):
    both = [a.clone(), b.clone()]
    op(both)
    return both


@pytest.mark.parametrize("program", PROGRAMS.values(), ids=PROGRAMS)
def test_each_tensor_has_its_own_labels(program):
    clean, leaky = (trace(lambda x, i=i: program(x, back(x))[i], X) for i in (0, 1))
    assert clean.proven
    assert [leaky.holes, leaky.horizon[0].tolist()] == [(), [1, 2, 3, 4, 5, 6, 6]]


@pytest.mark.parametrize("program", PROGRAMS.values(), ids=PROGRAMS)
def test_values_are_those_without_labels(program):
    seen = []
    trace(lambda x: seen.extend(program(x, back(x))) or x, X)
    assert all(torch.equal(a, b) for a, b in zip(seen, program(X, back(X)), strict=True))


def test_without_an_op_on_single_tensors_it_is_a_hole():
    traced = trace(lambda x: torch._foreach_addcdiv([x], [x], [x], 2.0)[0], X)
    assert [hole.op for hole in traced.holes] == ["aten::_foreach_addcdiv"]
    assert not traced.proven
