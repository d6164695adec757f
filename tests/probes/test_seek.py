"""The search for a witness, aimed at pairs of positions."""

from dataclasses import replace

import pytest
import torch

from leakcheck.checkpoints import plan_for
from leakcheck.config import Configuration
from leakcheck.probes.draws import BASE, Setting, aimed
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
