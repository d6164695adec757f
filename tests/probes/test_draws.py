"""The layout of the changed rows: every cut of every draw once, the past untouched, the whole future changed."""

from itertools import combinations, product

import pytest
import torch

from leakcheck.probes import draws
from leakcheck.probes.draws import BASE, DRAWS, PAST, TWIN, Setting, batches

SEQ, VOCAB = 9, 13
ALL = torch.ones(SEQ, dtype=torch.bool)


def made(valid=ALL, sizes=(), seed=0):
    return list(batches(Setting(vocab_size=VOCAB, valid=valid, seed=seed, sizes=sizes)))


@pytest.fixture(params=["one batch", "several batches"])
def work(request, monkeypatch):
    if request.param == "several batches":
        monkeypatch.setattr(draws, "_ELEMENTS", SEQ * SEQ * 16 * 5)  # five cuts at a time, across the borders of draws
    found = made()
    assert (len(found) > 1) == (request.param == "several batches")
    return found


def rows_of(batch):
    """The rows in which a proper suffix changed, as (row, draw, cut)."""
    return [(row, batch.draws[row], int(batch.cut[row])) for row in range(len(batch.cut)) if 0 < batch.cut[row] < SEQ]


def test_each_cut_of_each_draw_comes_exactly_once(work):
    found = [(draw, cut) for batch in work for _, draw, cut in rows_of(batch)]
    assert sorted(found) == sorted(product([draw.name for draw in DRAWS], range(1, SEQ)))


def test_the_past_is_the_base_and_every_future_token_differs(work):
    for batch in work:
        base = batch.tokens[BASE]
        for row, draw, cut in rows_of(batch):
            assert (batch.tokens[row, :cut] == base[:cut]).all()
            assert (batch.tokens[row, cut:] != base[cut:]).all()
            assert (batch.scale[row, :cut] == 1).all()
            assert (batch.scale[row, cut:] == (100 if draw == "norm-100" else 1)).all()


def test_every_batch_has_the_same_base_and_a_twin_of_it(work):
    for batch in work:
        assert (batch.tokens[BASE] == work[0].tokens[BASE]).all()
        assert (batch.tokens[TWIN] == batch.tokens[BASE]).all()
        assert (batch.scale[[BASE, TWIN]] == 1).all()
        assert (batch.cut[[BASE, TWIN, PAST]] == SEQ).all()


def test_the_row_of_another_past_keeps_the_last_token_and_changes_all_others(work):
    for batch in work:
        changed = batch.tokens[PAST] != batch.tokens[BASE]
        assert changed.tolist() == [True] * (SEQ - 1) + [False]


def test_whole_names_the_row_in_which_the_same_draw_changed_everything(work):
    for batch in work:
        for row, draw, cut in rows_of(batch):
            whole = int(batch.whole[row])
            assert (batch.cut[whole], batch.draws[whole]) == (0, draw)
            assert (batch.tokens[whole, cut:] == batch.tokens[row, cut:]).all()
            assert (batch.tokens[whole] != batch.tokens[BASE]).all()


def test_source_takes_the_past_from_the_base_and_the_future_from_the_whole_row(work):
    for batch in work:
        for row, _, cut in rows_of(batch):
            expected = [BASE] * cut + [int(batch.whole[row])] * (SEQ - cut)
            assert batch.source[row].tolist() == expected
        assert (batch.source[[BASE, TWIN]] == BASE).all()


def test_past_and_future_split_every_changed_row_at_its_cut(work):
    for batch in work:
        for row, _, cut in rows_of(batch):
            assert batch.past[row].tolist() == [True] * cut + [False] * (SEQ - cut)
            assert batch.future[row].tolist() == [False] * cut + [True] * (SEQ - cut)
        unchanged = batch.cut == SEQ
        assert not (batch.past | batch.future | batch.past_padding)[unchanged].any()


def test_padding_is_no_past():
    valid = ALL.clone()
    valid[:2] = False
    (batch,) = made(valid)
    for row, _, cut in rows_of(batch):
        assert batch.past[row].nonzero().flatten().tolist() == list(range(2, cut))
        assert batch.past_padding[row].nonzero().flatten().tolist() == list(range(min(2, cut)))


@pytest.mark.parametrize("padding", [(), (0, 1), (7, 8)])
def test_covered_pairs_are_those_that_brute_force_counts(padding):
    valid = ALL.clone()
    valid[list(padding)] = False
    covered = torch.stack([batch.covered_pairs for batch in made(valid)]).any(0)
    expected = {(past, future) for past, future in combinations(range(SEQ), 2) if valid[past]}
    assert {tuple(pair) for pair in covered.nonzero().tolist()} == expected


@pytest.mark.parametrize("draw", [draw.name for draw in DRAWS])
def test_every_draw_covers_the_pairs_of_its_cut(draw):
    covered = made()[0].only(draw, 4).covered_pairs
    assert {tuple(pair) for pair in covered.nonzero().tolist()} == set(product(range(4), range(4, SEQ)))


def test_the_number_of_rows_is_no_size_of_the_model_and_not_the_length():
    plain = len(made()[0].cut)
    sizes = {plain, plain + 1, plain + 3}
    (batch,) = made(sizes=sizes)
    assert len(batch.cut) == plain + 2
    assert (batch.tokens[plain:] == batch.tokens[BASE]).all()
    assert (batch.cut[plain:] == SEQ).all()


def test_another_seed_draws_other_tokens_and_the_same_seed_the_same():
    assert (made(seed=0)[0].tokens == made(seed=0)[0].tokens).all()
    assert (made(seed=0)[0].tokens != made(seed=1)[0].tokens).any()


def test_tokens_are_drawn_twice_and_once_with_long_embeddings():
    assert sorted(draw.norm for draw in DRAWS) == [1, 1, 100]


def test_the_draws_of_tokens_differ_from_one_another():
    (batch,) = made()
    whole = [row for row in range(len(batch.cut)) if batch.cut[row] == 0]
    assert len({tuple(batch.tokens[row].tolist()) for row in whole}) == len(DRAWS)


def test_two_tokens_are_enough():
    (batch,) = batches(Setting(vocab_size=2, valid=torch.ones(3, dtype=torch.bool), seed=0, sizes=()))
    for row in range(len(batch.cut)):
        cut = int(batch.cut[row])
        assert (batch.tokens[row, cut:] == 1 - batch.tokens[BASE, cut:]).all()
