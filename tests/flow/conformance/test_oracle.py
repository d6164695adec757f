"""The oracle itself, on functions whose dependence is plain to see; and what the comparison makes of wrong claims."""

import torch

from leakcheck.flow.labels import BLOCKED, HOLE, KNOWN, ZERO
from tests.flow.conformance.claims import coarse, unsound
from tests.flow.conformance.oracle import FIXED, GENERIC, Input, Truth, horizons


def normal(generator, shape):
    return torch.randn(shape, generator=generator, dtype=torch.float64)


def labelled(*labels, value=None):
    plane = torch.tensor(labels)
    value = torch.randn(plane.shape, dtype=torch.float64) if value is None else value
    return Input(value, plane, normal)


def horizon(function, *inputs, **options):
    return [truth.horizon.tolist() for truth in horizons(lambda t: [function(*t)], inputs, **options)]


def test_the_largest_label_that_moves_an_element():
    assert horizon(lambda x: x.cumsum(0), labelled(3, 1, 5, 2)) == [[3, 3, 5, 5]]
    assert horizon(lambda x, y: x @ y, labelled([0, 1], [2, 2]), labelled([4], [1])) == [[[4], [4]]]


def test_constants_and_parameters():
    assert horizon(lambda x: torch.stack([x[0] * 0, x[1], x[2]]), labelled(4, FIXED, GENERIC)) == [
        [FIXED, FIXED, GENERIC]
    ]


def test_what_is_not_smooth():
    assert horizon(lambda x: x.argmax(), labelled(0, 7, 2)) == [7]
    assert horizon(lambda x: x.round(), labelled(0, 7)) == [[0, 7]]
    hidden = labelled(5, value=torch.tensor([-3.0], dtype=torch.float64))
    assert horizon(lambda x: x.relu(), hidden) == [[5]]  # though it is zero on both sides of the first base


def test_a_result_of_another_size_is_moved_as_a_whole():
    x = labelled(1, 6, 3, value=torch.tensor([1.0, -1.0, 2.0], dtype=torch.float64))
    assert horizon(lambda t: torch.zeros(int((t > 0).sum())), x) == [[6, 6]]


def test_tied_elements_stay_equal():
    tied = Input(torch.ones(2, 3, dtype=torch.float64), torch.tensor([[1, 1, 1], [4, 4, 4]]), normal, tied=1)
    assert horizon(lambda x: x - x[:, :1], tied) == [[[FIXED] * 3, [FIXED] * 3]]


def test_zero_and_low():
    (seen,) = horizons(lambda t: [torch.stack([t[0][0] * 0, t[0][0] - 1e300])], [labelled(2)])
    assert seen.zero.tolist() == [True, False]
    assert seen.low.tolist() == [False, True]
    assert seen.horizon.tolist() == [FIXED, FIXED]


def test_it_searches_on_only_for_what_is_in_doubt():
    calls = []

    def function(t):
        calls.append(1)
        return [t[0] * 2]

    horizons(function, [labelled(0, 1)], bases=50, until=[torch.tensor([0, 1])])
    few = len(calls)
    horizons(function, [labelled(0, 1)], bases=50, until=[torch.tensor([0, 3])])
    assert few < len(calls) - few


def truth(horizon, zero=False, low=False):
    made = torch.tensor([horizon])
    return [Truth(made, torch.tensor([zero]), torch.tensor([low]))]


def test_wrong_claims():
    def claim(label):
        return [torch.tensor([label], dtype=torch.int16)]

    assert unsound(claim(2), truth(3))
    assert not unsound(claim(3), truth(3))
    assert not unsound(claim(4), truth(3))
    assert unsound(claim(KNOWN), truth(GENERIC))
    assert not unsound(claim(KNOWN), truth(FIXED))
    assert unsound(claim(ZERO), truth(FIXED))
    assert not unsound(claim(ZERO), truth(FIXED, zero=True))
    assert unsound(claim(BLOCKED), truth(FIXED))
    assert not unsound(claim(BLOCKED), truth(FIXED, low=True))
    assert unsound(claim(ZERO), truth(3, zero=True))
    assert unsound([torch.zeros(2)], truth(0))
    assert unsound([], truth(0))
    assert coarse(claim(4), truth(3))
    assert not coarse(claim(3), truth(3))
    assert not coarse(claim(HOLE), truth(3))
