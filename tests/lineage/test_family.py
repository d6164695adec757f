"""Which tensors are masks, by value and derivation, and where one meets data."""

import pytest
import torch
from torch import nn

from leakcheck.lineage.family import Masks
from leakcheck.lineage.masks import OpLog

B, T, H = 3, 5, 4


class World:
    """Tokens, and scores `[B, T, T]` that depend on them and on weights."""

    def __init__(self):
        self.tokens = torch.randint(7, (B, T), generator=torch.Generator().manual_seed(0))
        self.weight = nn.Parameter(torch.randn(7, H))

    def scores(self):
        x = nn.functional.embedding(self.tokens, self.weight)
        return x @ x.transpose(1, 2)


def masks_of(function, *, given=()):
    """The masks of a function of a `World`, and what it returned."""
    world = World()
    with torch.no_grad(), OpLog() as log:
        result = function(world)
    return Masks(log.ops, tokens=world.tokens, given=given), result


def lower():
    return torch.ones(T, T).tril()


MADE = {
    "lower triangle": lambda: lower(),
    "boolean": lambda: torch.arange(T)[:, None] >= torch.arange(T),
    "minus infinity": lambda: torch.full((T, T), -torch.inf).triu(1),
    "filled in place": lambda: torch.zeros(T, T).masked_fill_(lower() == 0, -1e9),
    "written into": lambda: _written(),
    "four axes": lambda: torch.full((B, 1, T, T), torch.finfo(torch.float32).min).triu(1),
}


def _written():
    mask = torch.zeros(T, T)
    for query in range(T):
        mask[query, query + 1 :] = -1e9
    return mask


@pytest.mark.parametrize("make", MADE.values(), ids=MADE)
def test_a_mask_is_born_and_acts_where_it_meets_scores(make):
    def forward(world):
        mask = make()
        blocked = mask == 0 if mask.dtype == torch.float32 and mask.max() > 0 else mask
        if blocked.dtype == torch.bool:
            return mask, world.scores().masked_fill(blocked, -torch.inf)
        return mask, world.scores() + mask

    masks, (mask, applied) = masks_of(forward)
    assert id(mask) in masks.roots
    assert masks.births
    ((op, acting),) = masks.applications(masks.roots)
    assert op.outputs[0] is applied
    assert masks.roots[id(acting)] <= masks.births.keys()
    assert id(applied) not in masks.roots  # masked scores have entries that block, and are no mask


def test_what_is_computed_from_a_mask_alone_is_the_mask_and_its_sums_are_not():
    def forward(world):
        mask = lower()
        part = mask[None, :, :].expand(B, -1, -1)
        inverted = 1.0 - part
        additive = torch.zeros_like(inverted).masked_fill(inverted.bool(), -torch.inf)
        inside = {"part": part, "inverted": inverted, "additive": additive}
        return inside, mask.cumsum(0), mask.sum(), world.scores() + additive.mT

    masks, (inside, positions, count, _) = masks_of(forward)
    assert len(masks.births) == 1
    assert all(id(tensor) in masks.roots for tensor in inside.values())
    assert id(positions) not in masks.roots
    assert id(count) not in masks.roots


def test_a_learned_bias_with_a_mask_in_it_stays_a_mask_until_it_meets_scores():
    bias = nn.Parameter(torch.randn(T, T))

    def forward(world):
        biased = bias + torch.full((T, T), -torch.inf).triu(1)
        return biased, world.scores() + biased

    masks, (biased, applied) = masks_of(forward)
    assert id(biased) in masks.roots
    ((op, _),) = masks.applications(masks.roots)
    assert op.outputs[0] is applied


@pytest.mark.parametrize(
    "make",
    [
        lambda world: torch.arange(T)[None] * -0.5,  # the slopes of alibi
        lambda world: torch.arange(T)[:, None] - torch.arange(T),  # relative positions
        lambda world: nn.functional.one_hot(world.tokens, T + 2),
        lambda world: world.scores().softmax(-1),
        lambda world: (world.scores() > 0).float(),
        lambda world: torch.randn(T, T),
        lambda world: torch.full((T, T), -torch.inf),
        lambda world: (torch.arange(T)[:, None] < torch.arange(T)).long() * 7,
    ],
    ids=["alibi", "relative positions", "one hot", "weights", "routing", "noise", "a constant", "buckets of positions"],
)
def test_what_blocks_nothing_or_depends_on_activations_is_no_mask(make):
    masks, other = masks_of(lambda world: (make(world), world.scores())[0])
    assert id(other) not in masks.roots
    assert masks.births == {}


def test_what_was_there_before_is_born_outside_the_forward():
    buffer = torch.ones(1, 1, 9, 9).tril()
    masks, part = masks_of(lambda world: buffer[:, :, :T, :T])
    (birth,) = masks.births.values()
    assert birth.op is None
    assert birth.mask is buffer
    assert id(part) in masks.roots


def test_a_mask_made_of_a_blank_one_is_born_where_it_begins_to_block():
    def forward(world):
        blank = torch.ones(T, T, dtype=torch.bool)
        triangle = blank.tril()
        return blank, triangle, world.scores().masked_fill(~triangle, -torch.inf)

    masks, (blank, triangle, _) = masks_of(forward)
    (birth,) = masks.births.values()
    assert birth.mask is triangle
    assert id(blank) not in masks.roots


def test_a_mask_that_allows_everything_is_a_mask_where_it_acts():
    def forward(world):
        allowed = torch.ones(T, T, dtype=torch.bool)
        return allowed, world.scores().masked_fill(~allowed, -torch.inf)

    masks, (allowed, _) = masks_of(forward)
    (birth,) = masks.births.values()
    assert birth.mask is allowed
    assert len(masks.applications(masks.roots)) == 1


def test_what_the_caller_gave_is_a_mask_without_a_birth():
    given = torch.ones(B, T, dtype=torch.long)
    masks, (cast, causal, joined) = masks_of(
        lambda world: (c := given.bool(), low := lower().bool(), c[:, None] & low), given=[given]
    )
    assert len(masks.births) == 1
    assert id(cast) in masks.given
    assert id(joined) not in masks.given
    assert masks.family([cast]) == set()
    assert masks.roots[id(causal)] < masks.roots[id(joined)]


def test_a_family_shares_a_birth():
    def forward(world):
        one, other = lower(), torch.full((T, T), -torch.inf).triu(1)
        return one, one[:3], other

    masks, (one, part, other) = masks_of(forward)
    family = masks.family([one])
    assert {id(one), id(part)} <= family
    assert id(other) not in family
    assert masks.family([]) == set()
