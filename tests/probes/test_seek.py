"""The search for a witness, aimed at pairs of positions."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from leakcheck.checkpoints import plan_for
from leakcheck.config import Configuration
from leakcheck.probes import measure
from leakcheck.probes import seek as search
from leakcheck.probes.draws import BASE, Setting, aimed
from leakcheck.probes.measure import Deltas
from leakcheck.probes.probe import Prober
from leakcheck.probes.seek import seek, under_other_weights
from tests import models
from tests.models import SEQ, VOCAB, predecessor, successor

PLAIN = Configuration("default", "none", "eval")
TRAIN = Configuration("default", "none", "train")


def prober_of(model):
    return Prober(model, plan_for, seq=SEQ, vocab_size=VOCAB, seed=0)


def batch(number, reader=3, source=8):
    valid = torch.ones(SEQ, dtype=torch.bool)
    return aimed(Setting(vocab_size=VOCAB, valid=valid, seed=0, sizes={7, 8}), reader, source, number)


def test_rows_of_an_aimed_batch():
    made = batch(0)
    assert len(made.tokens) not in (7, 8, SEQ)
    changed = made.tokens != made.tokens[BASE]
    alone, on, behind = changed[4:7]
    assert alone.nonzero().flatten().tolist() == [8]
    assert on.nonzero().flatten().tolist() == [8, 9, 10]
    assert behind.nonzero().flatten().tolist() == list(range(4, SEQ))
    assert made.cut[4:7].tolist() == [8, 8, 4]
    assert made.whole[4:7].tolist() == [3, 3, 3]
    assert changed[3].all()
    assert made.cut[3] == 0
    assert not changed[7:].any()
    assert len(set(made.draws[4:7])) == 3  # a row is found again by its draw and cut


def test_the_source_takes_every_token():
    seen = {int(t) for number in range((VOCAB + 1) // 2) for t in batch(number).tokens[[BASE, 4], 8]}
    assert seen == set(range(VOCAB))


def test_embeddings_grow_where_tokens_change():
    scales = {batch(number).scale.max().item() for number in range(5)}
    assert max(scales) > 100
    for number in range(5):
        made = batch(number)
        assert bool((made.scale[4:7][made.tokens[4:7] == made.tokens[BASE]] == 1).all())


class WhenAll(models.Toy):
    """Position 3 reads position 8 if its token is `token`, by `strength`."""

    def __init__(self, token, strength=1.0, where=8):
        super().__init__(models.Mixer(models.so_far))
        self.token, self.strength, self.where = token, strength, where

    def forward(self, input_ids):
        x = models.so_far(self.embed(input_ids))
        reader = torch.arange(input_ids.shape[1]) == 3
        told = input_ids[:, self.where : self.where + 1] == self.token
        return self.head(x + self.strength * (reader * told)[..., None])


@pytest.mark.parametrize("strength", [1.0, 1e-9])
def test_one_token_at_one_position_is_found(strength):
    prober = prober_of(models.seeded(WhenAll(9, strength)))
    known = prober.probe(PLAIN)
    assert not known.logits.moved
    found = seek(prober, PLAIN, [(3, 8)], known)
    assert found.logits.moved
    assert found.logits.worst.position == 3
    assert found.pairs_covered == known.pairs_covered
    assert found.controls == known.controls


def test_the_twin_that_reads_the_past_is_not():
    prober = prober_of(models.seeded(WhenAll(9, where=2)))
    assert seek(prober, PLAIN, [(3, 8)], prober.probe(PLAIN)) is None


def test_rounding_is_no_witness():
    prober = prober_of(models.toy(models.FourierConvolution(padded=True)))
    assert seek(prober, PLAIN, [(3, 8), (0, 10)], prober.probe(PLAIN)) is None


def test_a_row_that_moved_with_its_batch_is_no_witness():
    """Every row reads the one before it: together they move in float64, alone none does."""
    prober = prober_of(models.toy(lambda x: models.so_far(x + x.roll(1, 0))))
    known = replace(prober.probe(PLAIN), independent=True)
    assert seek(prober, PLAIN, [(3, 8)], known) is None


def test_randomness_is_no_witness():
    prober = prober_of(models.toy(models.Dropped(1.0)))
    assert seek(prober, TRAIN, [(3, 8)], prober.probe(TRAIN)) is None


def test_other_weights_open_a_gate_in_a_copy():
    for near, moves in ((successor, True), (predecessor, False)):
        model = models.toy(models.Gated(near))
        model.mixer.gate.data.zero_()
        before = {name: value.clone() for name, value in model.state_dict().items()}
        assert (under_other_weights(prober_of(model), PLAIN) > 0) is moves
        assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


def found(*, moved=True, repeatable=True, unconfirmed="", output=0.5):
    """What a probe says, as far as the search reads it."""
    logits = SimpleNamespace(moved=moved, output=output)
    return SimpleNamespace(logits=logits, repeatable=repeatable, unconfirmed=unconfirmed)


NO_WITNESS = {
    "it moved by rounding": found(moved=False),
    "equal inputs gave different outputs": found(repeatable=False),
    "float64 could not decide": found(unconfirmed="no such kernel"),
}


@pytest.fixture
def tried(monkeypatch):
    """The pairs that a search aims at, in order; nothing moves."""
    pairs = []
    monkeypatch.setattr(search, "aimed", lambda setting, *pair: pairs.append(pair))
    monkeypatch.setattr(search, "_moves", lambda *args, **options: False)
    return pairs


def scripted(*answers):
    """A prober without a model, which gives these answers in turn."""
    remaining = iter(answers)
    return SimpleNamespace(
        double=(None, None), setting=lambda configuration: None, probe=lambda configuration, batch: next(remaining)
    )


def test_the_closest_pair_the_farthest_and_the_first_readers_are_tried_in_turn(tried):
    pairs = [(2, 9), (8, 9), (5, 6), (0, 7), (1, 10)]
    assert seek(scripted(), PLAIN, pairs, SimpleNamespace(independent=True)) is None
    assert tried == [(*pair, number) for number in range(32) for pair in [(5, 6), (1, 10), (0, 7)]]


def test_a_pair_is_tried_once_for_each_number(tried):
    assert seek(scripted(), PLAIN, [(3, 8)], SimpleNamespace(independent=True)) is None
    assert tried == [(3, 8, number) for number in range(32)]


@pytest.mark.parametrize("why", NO_WITNESS)
def test_the_search_gives_up_after_two_moves_that_are_no_witness(why, tried, monkeypatch):
    monkeypatch.setattr(search, "_moves", lambda *args, **options: True)
    assert seek(scripted(NO_WITNESS[why], NO_WITNESS[why]), PLAIN, [(3, 8)], SimpleNamespace(independent=True)) is None
    assert len(tried) == 2


@pytest.mark.parametrize("independent", [True, False])
def test_only_rows_that_are_known_not_to_depend_on_their_batch_run_together(independent):
    """Every row reads the one before it: together they move, alone none does."""
    prober = prober_of(models.toy(lambda x: models.so_far(x + x.roll(1, 0))))
    model, _ = prober.double
    assert search._moves(model, batch(0), PLAIN, independent=independent) is independent


def test_what_float64_cannot_run_does_not_move():
    def only_single(x):
        if x.dtype == torch.float64:
            raise RuntimeError("no such kernel")
        return models.so_far(x) + successor(x)

    model, _ = prober_of(models.toy(only_single)).double
    assert not search._moves(model, batch(0), PLAIN, independent=True)


@pytest.mark.parametrize(("epsilons", "moves"), [(500, False), (1500, True)])
def test_a_move_of_more_than_a_thousand_epsilons_is_one(epsilons, moves, monkeypatch):
    relative = epsilons * torch.finfo(torch.float64).eps
    monkeypatch.setattr(measure, "measure_logits", lambda *args, **options: Deltas(relative=relative))
    assert search._moves(models.toy(models.so_far), batch(0), PLAIN, independent=True) is moves


@pytest.fixture
def redrawn(monkeypatch):
    """Runs the search under other weights on scripted answers; returns what it returned and the seeds it drew."""

    def run(*answers):
        seeds, remaining = [], iter(answers)

        def prober(model, plan_for, *, each_gradient, **sizes):
            assert not each_gradient  # only whether anything moves is asked
            assert sizes == {"seq": SEQ, "vocab_size": VOCAB, "seed": 0}
            return SimpleNamespace(probe=lambda configuration: next(remaining))

        monkeypatch.setattr(search, "randomise", lambda model, seed: seeds.append(seed))
        monkeypatch.setattr(search, "Prober", prober)
        return under_other_weights(prober_of(models.toy(models.so_far)), PLAIN), seeds

    return run


def test_other_weights_are_drawn_three_times_before_the_search_gives_up(redrawn):
    assert redrawn(*NO_WITNESS.values()) == (0.0, [1, 2, 3])


def test_the_first_weights_that_move_are_enough(redrawn):
    assert redrawn(found(moved=False), found(output=0.25), found()) == (0.25, [1, 2])
