"""Which values an index can take, and what a scatter by it can reach."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from leakcheck.flow import choices
from leakcheck.flow.labels import Labels
from tests.flow.rules.bruteforce import tokens, traced

ROWS, CHOICES, TOP = 3, 5, 2
LIMIT = torch.tensor([[1], [2], [4]])


def seen(function: Callable[[Tensor], Any]) -> Tensor:
    """The values of each element that the table of the result holds, `[*shape, n]`."""
    results: list[Tensor] = []

    def kept(x: Tensor) -> Tensor:
        results.append(function(x))
        found = choices.of(results[0])
        results.append(torch.zeros(0) if found is None else found[1].clone())
        return results[0]

    traced(kept, tokens(ROWS, CHOICES, along=0))
    return results[1]


def test_index_is_one_of_as_many_as_there_are():
    table = seen(lambda x: x.topk(TOP, -1).indices)
    assert table.shape == (ROWS, TOP, CHOICES)
    assert torch.equal(table, torch.arange(CHOICES).expand(ROWS, TOP, CHOICES))
    assert seen(lambda x: x.argmax(-1)).shape == (ROWS, CHOICES)
    assert seen(lambda x: x.max(0).indices).shape == (CHOICES, ROWS)
    assert seen(lambda x: x.argsort(0)).shape == (ROWS, CHOICES, ROWS)


def test_function_of_a_choice_and_known_values():
    table = seen(lambda x: torch.where((i := x.topk(TOP, -1).indices) >= LIMIT, 9, i + 1))
    for row in range(ROWS):
        expected = [9 if v >= int(LIMIT[row]) else v + 1 for v in range(CHOICES)]
        assert table[row, 0].tolist() == table[row, 1].tolist() == expected


def test_views_and_copies_keep_it():
    table = seen(lambda x: (x.topk(TOP, -1).indices + LIMIT).T.clone().to(torch.int32).unsqueeze(1))
    assert table.shape == (TOP, 1, ROWS, CHOICES)
    assert table[1, 0, 2].tolist() == [4, 5, 6, 7, 8]


@pytest.mark.parametrize(
    "function",
    [
        lambda x: (i := x.topk(TOP, -1).indices) + i.flip(-1),  # two choices meet
        lambda x: x.topk(TOP, -1).indices + x[:, :TOP].long(),
        lambda x: x.topk(TOP, -1).indices.clamp_(min=1),
        lambda x: x.topk(TOP, -1).indices.index_fill_(0, torch.tensor([1]), 7),
        lambda x: x.topk(TOP, -1).indices.sum(-1),
    ],
    ids=["with another", "with tokens", "written", "written in part", "folded"],
)
def test_what_is_no_function_of_one_choice_has_no_table(function):
    assert not seen(function).numel()


def test_choice_with_itself():
    assert seen(lambda x: (i := x.argmax(-1)) * i)[0].tolist() == [0, 1, 4, 9, 16]
    assert not seen(lambda x: (i := x[:, :ROWS].argmax(-1))[:, None] * i[None]).numel()


def labels_of(function: Callable[[Tensor], Tensor]) -> Labels:
    return traced(function, tokens(ROWS, CHOICES, along=0)).labels[0]


def test_class_that_nobody_can_choose_is_zero():
    labels = labels_of(lambda x: F.one_hot(x.topk(TOP, -1).indices, CHOICES + 1).sum(1) * x[:, :1])
    assert labels[:, :CHOICES].tolist() == [[row] * CHOICES for row in range(ROWS)]
    assert labels[:, CHOICES].max() < 0


def test_mask_is_opened_below_the_limit_only():
    def masked(x: Tensor) -> Tensor:
        index = x.topk(TOP, -1).indices
        index = torch.where(index >= LIMIT, CHOICES, index)
        mask = torch.full((ROWS, CHOICES + 1), -torch.inf).scatter(-1, index, 0.0)[:, :CHOICES]
        return mask.exp() * x

    below = torch.arange(CHOICES) < LIMIT
    assert torch.equal(labels_of(masked) >= 0, below)


def test_mask_that_is_opened_anywhere_stays_open_everywhere():
    def masked(x: Tensor) -> Tensor:
        return torch.full((ROWS, CHOICES), -torch.inf).scatter(-1, x.topk(TOP, -1).indices, 0.0).exp()

    assert bool((labels_of(masked) >= 0).all())
