"""Moves of outputs that are blind to a change, on toys whose answer is known; what is planted behind an embedding."""

import pytest
import torch
from torch import nn

from leakcheck.checkpoints import plan_for
from leakcheck.config import Configuration
from leakcheck.errors import SubjectCrash
from leakcheck.probes import groups
from leakcheck.probes.draws import DRAWS, Draw
from leakcheck.probes.groups import Change, Mix, Moved, behind_embedding, differing, moved, sees
from leakcheck.probes.probe import Prober
from tests import models
from tests.models import SEQ, VOCAB, so_far, successor

PLAIN, TRAIN = Configuration("default", "none", "eval"), Configuration("default", "none", "train")
EPS32 = torch.finfo(torch.float32).eps
TOKENS = torch.arange(2 * SEQ).reshape(2, SEQ)
VALID = torch.ones(2, SEQ, dtype=torch.bool)
LATER = torch.arange(SEQ).ge(6).expand(2, SEQ)
FUTURE = Change("the later half", LATER, ~LATER)


def plain(model, tokens):
    return model(tokens)


def prober_of(model, seed=0):
    return Prober(model, plan_for, seq=SEQ, vocab_size=VOCAB, seed=seed)


def moves(model, configuration=PLAIN, changes=(FUTURE,), valid=VALID, **options):
    return moved(prober_of(model), configuration, plain, TOKENS, list(changes), valid, **options)


# --- what moved -------------------------------------------------------------------------------------------------------


def test_a_causal_model_does_not_move_and_one_that_reads_ahead_does():
    assert moves(models.toy(so_far)) == Moved(None)
    found = moves(models.toy(lambda x: so_far(x) + successor(x)))
    assert (found.worst.change, found.worst.position) == ("the later half", 5)
    assert found.repeatable


def test_the_worst_move_is_that_of_brute_force():
    model = models.toy(lambda x: so_far(x) + successor(x))
    worst = moves(model).worst
    double = model.double()
    largest = {}
    with torch.no_grad():
        for draw in DRAWS:
            generator = torch.Generator().manual_seed(draw.seed)
            other = (TOKENS + torch.randint(1, VOCAB, TOKENS.shape, generator=generator)) % VOCAB
            embedded = double.embed(torch.where(LATER, other, TOKENS)) * torch.where(LATER, draw.norm, 1.0)[..., None]
            base, changed = (double.head(x + double.mixer(x)) for x in (double.embed(TOKENS), embedded))
            apart = (changed - base).abs() * FUTURE.blind[..., None]
            relative = (apart / base.abs().amax((0, 1))).max().item()
            largest[draw.name] = apart.max().item(), (apart == apart.max()).nonzero()[0].tolist(), relative
    draw = max(largest, key=lambda name: largest[name][0])
    delta, where, relative = largest[draw]
    assert (worst.draw, [worst.row, worst.position, worst.channel]) == (draw, where)
    assert (worst.delta, worst.relative) == (pytest.approx(delta), pytest.approx(relative))


def test_rows_that_read_one_another_are_found_by_a_change_of_one():
    change = Change("the other row", torch.tensor([[True], [False]]).expand(2, SEQ), ~LATER & VALID.cumsum(0).gt(1))
    mixed = moves(models.toy(lambda x: so_far(x + x.flip(0))), changes=[change])
    assert mixed.worst.row == 1
    assert moves(models.toy(so_far), changes=[change]).worst is None


def test_all_changes_and_draws_are_made():
    seen = []

    def run(model, tokens):
        seen.append(tokens)
        return model(tokens)

    earlier = Change("the first half", ~LATER, LATER & False)
    draws = (Draw("a", 1), Draw("b", 2))
    assert moved(prober_of(models.toy(so_far)), PLAIN, run, TOKENS, [FUTURE, earlier], VALID, draws).worst is None
    base, changed = seen[:3], seen[3:]
    assert all(torch.equal(tokens, TOKENS) for tokens in base)
    assert len(changed) == 4
    for tokens, inputs in zip(changed, (LATER, LATER, ~LATER, ~LATER), strict=True):
        assert torch.equal(tokens != TOKENS, inputs)
        assert tokens.min() >= 0
        assert tokens.max() < VOCAB
    assert not torch.equal(changed[0], changed[1])


def test_tokens_are_drawn_by_the_seed_of_the_prober_and_of_the_draw():
    def drawn(seed, draw):
        return groups.changed(prober_of(models.toy(so_far), seed), TOKENS, LATER, Draw("d", draw)).changed.tolist()

    assert drawn(1, 2) == drawn(1, 2) == drawn(0, 3)
    assert drawn(1, 2) != drawn(1, 3)
    assert drawn(1, 2) != drawn(2, 2)


def test_two_tokens_change_into_each_other():
    prober = Prober(models.toy(so_far), plan_for, seq=SEQ, vocab_size=2, seed=0)
    tokens = TOKENS % 2
    assert torch.equal(groups.changed(prober, tokens, VALID, DRAWS[0]).changed, 1 - tokens)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_outputs_that_are_valid_have_to_be_finite(bad):
    model = models.toy(lambda x: x.masked_fill((torch.arange(SEQ) == 10)[:, None], bad))
    with pytest.raises(SubjectCrash, match="returned NaN or infinity under default/none/eval"):
        moves(model)
    padded = VALID.clone()
    padded[:, 10] = False
    moves(model, valid=padded)


def test_rounding_is_no_move_and_is_told():
    found = moves(models.toy(models.FourierConvolution(padded=True)))
    assert found.worst is None
    assert found.repeatable
    assert 0 < found.rounding < 1e-4
    each = [moves(models.toy(models.FourierConvolution(padded=True)), draws=[draw]).rounding for draw in DRAWS]
    assert found.rounding == pytest.approx(max(each), rel=0.5)  # it differs from run to run, by draw much more
    assert max(each) > 5 * min(each)
    assert moves(models.toy(models.FourierConvolution(padded=False))).worst is not None


def test_a_leak_that_float64_alone_sees_is_not_rounding():
    """It moves float32 by little, as rounding does, and stays in float64."""
    found = moves(models.toy(lambda x: so_far(x) + 3e-7 * successor(x)))
    assert 1e-7 < found.worst.delta < 1e-2
    assert found.rounding == 0


def test_what_no_seed_controls_is_not_repeatable_and_dropout_is():
    assert not moves(models.toy(models.Noise(1.0))).repeatable
    dropped = moves(models.toy(models.Dropped(1.0)), TRAIN)
    assert dropped.repeatable
    assert dropped.worst is None


def test_what_is_drawn_once_is_there_before_anything_is_compared():
    class DrawsOnce(models.Toy):
        table = None

        def forward(self, input_ids):
            if self.table is None:
                self.table = torch.rand(3)
            return super().forward(input_ids)

    assert moves(models.seeded(DrawsOnce(models.Dropped(1.0))), TRAIN) == Moved(None)


def test_what_float64_cannot_run_stays_a_suspicion():
    def only_single(x):
        if x.dtype == torch.float64:
            raise RuntimeError("no such kernel\nsecond line")
        return so_far(x) + successor(x)

    found = moves(models.toy(only_single))
    assert found.unconfirmed == "not decided in float64: RuntimeError: no such kernel"
    assert found.worst.position == 5


def test_gradients_are_on_in_training_alone():
    seen = []
    model = models.toy(lambda x: seen.append(torch.is_grad_enabled()) or so_far(x))
    moves(model)
    assert set(seen) == {False}
    seen.clear()
    moves(model, TRAIN)
    assert set(seen) == {True}


def test_the_largest_move_by_hand():
    base = torch.ones(2, 3, 2)
    base[..., 1] = 4
    logits = base.clone()
    logits[1, 2, 1] += 2
    logits[0, 1, 0] -= 1
    logits[0, 0, 0] += 50
    where = torch.tensor([[False, True, True], [True, True, True]])
    move = groups._largest(logits, base, where, "c", "d")
    assert (move.change, move.draw, move.row, move.position, move.channel) == ("c", "d", 1, 2, 1)
    assert (move.delta, move.relative) == (2, 1)
    still = groups._largest(base, base, where, "c", "d")
    assert (still.delta, still.relative) == (0, 0)


# --- two ways to run --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("apart", "differs"), [(0.0, False), (0.5 * EPS32, False), (1.5 * EPS32, True), (1.0, True)])
def test_two_ways_differ_by_more_than_a_constant_in_float32(apart, differs):
    def other(model, tokens):
        return model(tokens).double() * (1 + apart)

    prober = prober_of(models.toy(so_far))
    found = differing(prober, PLAIN, lambda model, tokens: model(tokens).double(), other, TOKENS, VALID)
    assert (found.worst is not None) is differs
    assert found.repeatable
    if apart:
        assert (found.rounding > 0) is not differs


def test_ways_that_differ_where_nothing_is_valid_do_not():
    def other(model, tokens):
        return model(tokens) + LATER[..., None]

    prober = prober_of(models.toy(so_far))
    assert differing(prober, PLAIN, plain, other, TOKENS, ~LATER).worst is None
    worst = differing(prober, PLAIN, plain, other, TOKENS, VALID).worst
    assert worst.position >= 6
    assert worst.delta == pytest.approx(1.0)


# --- what is planted --------------------------------------------------------------------------------------------------


def target(row, position):
    made = torch.zeros(2, SEQ, dtype=torch.bool)
    made[row, position] = True
    return made


def test_a_planted_leak_is_seen_where_its_target_is_blind():
    prober = prober_of(models.toy(so_far))
    assert sees(prober, PLAIN, plain, TOKENS, FUTURE, Mix(target(1, 3), 0, 8))
    assert not sees(prober, PLAIN, plain, TOKENS, FUTURE, Mix(target(1, 3), 0, 2))  # its source does not change
    assert not sees(prober, PLAIN, plain, TOKENS, FUTURE, Mix(target(1, 7), 0, 8))  # it may move
    deaf = models.toy(so_far)
    deaf.head.weight.data.zero_()
    assert not sees(prober_of(deaf), PLAIN, plain, TOKENS, FUTURE, Mix(target(1, 3), 0, 8))
    # Only the target is asked: a leak of the model's own elsewhere shows nothing.
    leaking = models.toy(successor)
    leaking.embed.weight.data[TOKENS[0, 8]] = 0
    assert not sees(prober_of(leaking), PLAIN, plain, TOKENS, FUTURE, Mix(target(1, 1), 0, 3))


@pytest.mark.parametrize("first", [0, 1])  # the source is the first of its piece, or the second
@pytest.mark.parametrize("sizes", [(SEQ,), (5, 6), (4, 4, 3)])
def test_embeddings_are_scaled_and_mixed_whole_or_piece_by_piece(sizes, first):
    model = models.toy(so_far)
    scale = 1 + torch.arange(2.0 * SEQ).reshape(2, SEQ)
    source = sum(sizes[:-1]) + first
    mix = Mix(target(1, source + 1) | target(0, SEQ - 1), 0, source)
    embedded = model.embed(TOKENS) * scale[..., None]
    expected = embedded.clone()
    expected[mix.targets] += 0.5 * embedded[0, source]
    with behind_embedding(model, scale, mix, strength=0.5):
        for _ in range(2):  # the next sequence begins at the start again
            pieces = [model.embed(piece) for piece in TOKENS.split(sizes, 1)]
            assert torch.equal(torch.cat(pieces, 1), expected)
    with behind_embedding(model, scale, mix):
        pieces = [model.embed(piece) for piece in TOKENS.split(sizes, 1)]
        expected[mix.targets] += 0.5 * embedded[0, source]
        assert torch.allclose(torch.cat(pieces, 1), expected)
    assert torch.equal(model.embed(TOKENS), model.embed.weight[TOKENS])


def test_all_embeddings_may_be_longer():
    model = models.toy(so_far)
    with behind_embedding(model, 2 * torch.ones(2, SEQ)):
        assert torch.equal(model.embed(TOKENS), 2 * model.embed.weight[TOKENS])


def test_a_sequence_that_was_left_unfinished_is_begun_again():
    model, scale = models.toy(so_far), 1 + torch.arange(2.0 * SEQ).reshape(2, SEQ)
    with behind_embedding(model, scale):
        model.embed(TOKENS[:, :4])
        assert torch.equal(model.embed(TOKENS), model.embed.weight[TOKENS] * scale[..., None])


def test_embeddings_of_another_batch_are_left_alone():
    model = models.toy(so_far)
    with behind_embedding(model, 2 * torch.ones(2, SEQ)):
        for tokens in (TOKENS[:1], torch.cat([TOKENS, TOKENS], 1), TOKENS[0, 0]):
            assert torch.equal(model.embed(tokens), model.embed.weight[tokens])


def test_ids_without_an_embedding_stay_ids():
    class Ids(nn.Embedding):
        def forward(self, ids):
            return ids

    model, scale = Ids(VOCAB, 1), 3 * torch.ones(2, SEQ)
    with behind_embedding(model, scale):
        assert torch.equal(model(TOKENS), TOKENS)
    expected = TOKENS.clone()
    expected[1, 7] = (TOKENS[1, 7] + TOKENS[0, 8]) // 2
    for sizes in ((SEQ,), (5, 6)):
        with behind_embedding(model, scale, Mix(target(1, 7), 0, 8)):
            assert torch.equal(torch.cat([model(piece) for piece in TOKENS.split(sizes, 1)], 1), expected)
