"""What one measurement says of rows whose moves are written down, and what a tap does to an embedding."""

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from leakcheck.checkpoints import plan_for
from leakcheck.checkpoints.reading import Reading
from leakcheck.config import Configuration, Contract
from leakcheck.probes import measure
from leakcheck.probes.draws import BASE, PAST, Plant, Setting, batches
from leakcheck.probes.measure import Deltas
from leakcheck.probes.tap import tapped
from tests import models

SEQ, VOCAB, WIDTH = 6, 13, 4
inf, nan = float("inf"), float("nan")


def batch(contract=None, padded=()):
    valid = torch.ones(SEQ, dtype=torch.bool)
    valid[list(padded)] = False
    options = {} if contract is None else {"contract": contract}
    return next(batches(Setting(vocab_size=VOCAB, valid=valid, seed=0, sizes=(), **options)))


def row_at(work, draw, cut):
    return next(r for r in range(len(work.cut)) if work.draws[r] == draw and work.cut[r] == cut)


def rows(work, *moves):
    """Ones, `[batch, seq, features]`, but for the moves (draw, cut, position, channel, by)."""
    values = torch.ones(len(work.cut), SEQ, WIDTH, dtype=torch.float64)
    for draw, cut, position, channel, by in moves:
        values[row_at(work, draw, cut), position, channel] += by
    return values


def test_the_largest_move_of_the_past_and_where():
    work = batch()
    values = rows(work, ("tokens-1", 3, 1, 2, 0.25), ("tokens-2", 5, 4, 0, -0.5), ("tokens-2", 5, 5, 3, 4.0))
    found = measure._moves(values, work)
    assert (found.output, found.allowed) == (0.5, 4.0)
    worst = found.worst
    assert (worst.cut, worst.position, worst.channel, worst.draw, worst.delta, worst.before) == (
        5, 4, 0, "tokens-2", 0.5, False,
    )  # fmt: skip
    assert found.by_position.tolist() == [0, 0.25 / 1.25, 0, 0, 0.5, 0]
    assert found.relative == 0.5
    assert found.padded == 0


def test_a_move_is_relative_to_its_own_channel_without_what_blocks():
    work = batch()
    values = rows(work, ("tokens-1", 3, 1, 2, 0.5))
    values[:, :, 2] *= 8
    values[:, :, 1] *= 1000
    values[:, 5, 2] = -1e30
    assert measure._moves(values, work).relative == 4.0 / 12
    assert measure.channel_scale(values).tolist() == [1, 1000, 12, 1]
    assert measure.channel_scale(torch.zeros(2, 3, 1)).item() == pytest.approx(1e-30)


def test_padding_that_moves_is_counted_and_is_no_leak():
    work = batch(padded=(0, 1))
    values = rows(work, ("tokens-1", 3, 0, 2, 0.5), ("tokens-2", 4, 0, 1, 0.5), ("tokens-1", 4, 1, 0, 0.5))
    found = measure._moves(values, work)
    assert (found.output, found.padded, found.worst) == (0, 2, None)
    assert measure._moves(rows(work), work) == Deltas()


def test_a_move_before_the_window_says_so():
    valid = torch.ones(SEQ, dtype=torch.bool)
    setting = Setting(vocab_size=VOCAB, valid=valid, seed=0, sizes=(), contract=Contract(window=2))
    _, work = batches(setting)
    assert measure._moves(rows(work, ("tokens-1", 2, 4, 0, 1.0)), work).worst.before


def test_distance_of_what_is_not_finite():
    a = torch.tensor([1.0, inf, -inf, nan, 2.0, inf])
    b = torch.tensor([3.0, inf, inf, 0.0, nan, 1.0])
    found = measure.distance(a, b)
    assert found[:2].tolist() == [2.0, 0.0]
    assert found[3:5].tolist() == [inf, inf]
    assert (found[[2, 5]] >= torch.finfo(torch.float32).max).all()


def test_of_two_measurements_the_worse_counts():
    one = Deltas(1.0, 2.0, 0.5, 3.0, 4.0, None, 0.1, 1, "one", torch.tensor([0.0, 2.0]))
    two = Deltas(0.5, 3.0, 0.7, 2.0, 5.0, 0.25, 0.2, 2, "two", torch.tensor([1.0, 1.0]))
    for joined in (one.join(two), two.join(one)):
        assert (joined.output, joined.allowed, joined.relative) == (1.0, 3.0, 0.7)
        assert (joined.gradient, joined.gradient_scale) == (3.0, 5.0)
        assert (joined.local, joined.local_relative, joined.padded, joined.worst) == (0.25, 0.2, 2, "one")
        assert joined.by_position.tolist() == [1.0, 2.0]
    assert Deltas().join(Deltas()).local is None
    assert one.join(Deltas()).by_position.tolist() == Deltas().join(one).by_position.tolist() == [0.0, 2.0]


@pytest.mark.parametrize("each", [False, True])
def test_gradients_of_the_past_towards_what_changed(each):
    work = batch()
    leaf = torch.ones(len(work.cut), SEQ, WIDTH, dtype=torch.float64, requires_grad=True)
    ahead = torch.zeros_like(leaf)
    causal = 3 * leaf
    leaking = causal + 0.5 * torch.cat([leaf[:, 1:], ahead[:, :1]], 1)
    constant = ahead.clone()
    found = measure._gradients([causal, leaking, constant], work, [leaf], each=each)
    assert found[2] == (0.0, 0.0)
    assert found[1][0] == pytest.approx(0.5)
    if each:
        assert found[0] == (0.0, 3.0)
        assert 2.5 <= found[1][1] <= 3.5
    else:
        assert found[0] == found[1]
    assert measure._gradients([causal, constant], work, [leaf], each=each) == [
        (0.0, 0.0 if not each else 3.0),
        (0.0, 0.0),
    ]
    assert measure._gradients([causal], work, [], each=each) == [(0.0, 0.0)]


def test_gradients_that_cancel_in_a_sum_are_seen():
    """Two channels read the next position, with opposite signs."""
    work = batch()
    leaf = torch.ones(len(work.cut), SEQ, WIDTH, dtype=torch.float64, requires_grad=True)
    ahead = torch.cat([leaf[:, 1:, :1], torch.zeros_like(leaf[:, :1, :1])], 1)
    (found,) = measure._gradients([torch.cat([ahead, -ahead], -1)], work, [leaf], each=True)
    assert found[0] > 0


def test_what_does_not_depend_on_the_embeddings_has_no_gradient():
    work = batch()
    leaf, other = (torch.ones(len(work.cut), SEQ, WIDTH, requires_grad=True) for _ in range(2))
    assert measure._gradients([2 * other], work, [leaf], each=True) == [(0.0, 0.0)]


def test_a_gradient_that_is_no_number_counts_as_infinite_and_one_that_raises_as_none():
    work = batch()
    leaf = torch.zeros(len(work.cut), SEQ, WIDTH, requires_grad=True)
    ahead = torch.cat([leaf[:, 1:], leaf[:, :1].detach()], 1)
    (found,) = measure._gradients([(ahead * 0).sqrt() * 0 + leaf], work, [leaf], each=True)
    assert found == (inf, inf)

    class Raises(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x.clone()

        @staticmethod
        def backward(ctx, grad):
            raise RuntimeError

    assert measure._gradients([Raises.apply(ahead)], work, [leaf], each=True) == [(0.0, 0.0)]


def reading(run, tensors, inputs):
    return SimpleNamespace(run=run, pick=lambda result: (result,), tensors=tensors, inputs=inputs)


def test_a_stage_is_run_again_on_the_past_of_the_base_and_the_future_of_another():
    work = batch()
    values = torch.arange(float(len(work.cut)))[:, None, None] + torch.arange(0.0, 60, 10)[:, None]
    values = values.expand(-1, -1, WIDTH).contiguous()
    seen = []

    def run(inputs):
        seen.append(inputs)
        return inputs[0] + 0.5 * inputs[0].roll(-1, 1)

    parameter = nn.Parameter(values.clone())
    same = reading(run, (values,), [values, parameter, "text"])
    other = reading(None, (values,), None)
    fails = reading(lambda inputs: 1 / 0, (values,), [values])
    found = measure._locals([same, other, same, fails], work, torch.no_grad)
    assert found[0] == found[2]
    assert found[1] is found[3] is None
    (given,) = seen  # two readings of one call share its run
    assert given[1] is parameter
    assert given[2] == "text"
    for row in range(len(work.cut)):
        for t in range(SEQ):
            whole = int(work.whole[row]) if t >= work.cut[row] else BASE
            assert given[0][row, t, 0] == values[whole, t, 0]
    largest = max(0.5 * float(work.whole[r]) for r in range(len(work.cut)) if 0 < work.cut[r] < SEQ)
    assert found[0][0] == largest
    assert 0 < found[0][1] < 1


def test_a_local_leak_is_planted_in_the_last_stage_that_runs_again_and_returns_hidden_states():
    work = batch()
    hidden = torch.ones(len(work.cut), SEQ, WIDTH)
    weights = torch.ones(len(work.cut), 2, SEQ, SEQ)
    values = torch.arange(float(len(work.cut)))[:, None, None].expand(-1, SEQ, WIDTH).contiguous()
    ran = []

    def stage(name, *tensors, again=True):
        def run(inputs):
            ran.append(name)
            return inputs[0]

        return Reading(
            stage=None, path="", layer=None, module=name, code=None, node=None,
            tensors=tensors, inputs=[values], run=run if again else None, pick=lambda result: (result,),
        )  # fmt: skip

    stages = [stage("first", hidden), stage("attention", hidden, weights), stage("once", hidden, again=False)]
    assert measure.planted_local(stages, work, Plant(2, 3)) == pytest.approx(1e-3 * work.whole.max().item())
    assert ran == ["first"]
    assert measure.planted_local(stages[1:], work, Plant(2, 3)) is None


@pytest.mark.parametrize("again", [True, False])
def test_a_stage_that_cannot_run_again_has_no_local_move(again):
    model = models.toy(models.so_far)
    valid = torch.ones(models.SEQ, dtype=torch.bool)
    work = next(batches(Setting(vocab_size=models.VOCAB, valid=valid, seed=0, sizes=())))
    values = torch.arange(float(len(work.cut)))[:, None, None].expand(-1, models.SEQ, WIDTH).contiguous()
    seen = Reading(
        stage=None, path="", layer=None, module="", code=None, node=None,
        tensors=(values,), inputs=[values], run=(lambda inputs: inputs[0].roll(-1, 1)) if again else None,
        pick=lambda result: (result,),
    )  # fmt: skip
    plan = SimpleNamespace(watch=lambda: plan_for(model).watch(), readings=lambda recording, axes: [seen])
    ((_, deltas),) = measure.measure(model, plan, work, Configuration("default", "none", "eval")).readings
    assert (deltas.local is not None) is (deltas.local_relative > 0) is again


def test_rows_that_run_alone_find_what_is_drawn_once_already_there():
    """The first forward draws a table, and each one a mask: only after the first do equal rows get the same mask."""

    class DrawsOnce(models.Toy):
        table = None

        def forward(self, input_ids):
            if self.table is None:
                self.table = torch.rand(3)
            return super().forward(input_ids)

    model = models.seeded(DrawsOnce(models.Dropped(1.0))).train()
    valid = torch.ones(models.SEQ, dtype=torch.bool)
    work = next(batches(Setting(vocab_size=models.VOCAB, valid=valid, seed=0, sizes=())))
    assert measure.measure_rows(model, work, Configuration("default", "none", "train")).twin_delta == 0


@pytest.mark.parametrize("plant", [None, Plant(2, 4), Plant(3, 5, 2)])
def test_a_tap_scales_the_embeddings_and_plants(plant):
    embedding = nn.Embedding(VOCAB, WIDTH)
    ids, scale = torch.arange(2 * SEQ).reshape(2, SEQ), torch.rand(2, SEQ) + 1
    plain = (embedding(ids) * scale[..., None]).detach()
    with tapped(embedding, scale, plant=plant) as tap:
        out = embedding(ids)
        assert embedding(ids[:1]).shape[0] == 1
    (leaf,) = tap.leaves
    assert leaf.requires_grad
    assert leaf.is_leaf
    assert torch.equal(leaf, plain)
    expected = plain.clone()
    if plant is not None:
        expected[:, plant.inputs] += 1e-3 * plain[:, plant.source, None]
    assert torch.equal(out, expected)
    assert out is not leaf
    assert not embedding._forward_hooks
    with tapped(embedding, scale) as tap:
        assert torch.equal(embedding(ids[:1]), embedding.weight[ids[:1]])  # another batch than the one that is probed
    assert not tap.leaves


def test_ids_that_have_no_embedding_are_planted_by_their_mean():
    class Ids(nn.Module):
        def forward(self, ids):
            return ids

    ids, scale = torch.tensor([[1, 8, 3, 6, 12, 0]]), torch.ones(1, SEQ)
    with tapped(Ids(), scale):
        pass
    model = Ids()
    with tapped(model, scale, plant=Plant(2, 4)) as tap:
        assert model(ids).tolist() == [[1, 8, 7, 6, 12, 0]]
    with tapped(model, scale) as tap:
        assert torch.equal(model(ids), ids)
    assert not tap.leaves


@pytest.mark.parametrize("by_rows", [False, True])
def test_what_a_measurement_says_of_its_first_rows(by_rows):
    model = models.toy(models.so_far)
    valid = torch.ones(models.SEQ, dtype=torch.bool)
    valid[-2:] = False
    work = next(batches(Setting(vocab_size=models.VOCAB, valid=valid, seed=0, sizes=())))
    plain = Configuration("default", "none", "eval")
    if by_rows:
        found = measure.measure_rows(model, work, plain)
    else:
        found = measure.measure(model, None, work, plain)
    with torch.no_grad():
        logits = model(work.tokens[:3])
        logits = logits if isinstance(logits, torch.Tensor) else logits.logits
    assert found.size == pytest.approx(logits[BASE].abs().max().item())
    last = models.SEQ - 3
    assert found.past_effect == pytest.approx((logits[PAST, last] - logits[BASE, last]).abs().max().item())
    assert (found.twin_delta, found.by_rows) == (0, by_rows)
    assert torch.allclose(found.base_logits, logits[BASE])
    assert found.embedded
