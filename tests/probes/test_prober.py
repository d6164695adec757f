"""`Prober.probe`: its numbers against brute force, what it refuses, and that it leaves no trace."""

import random
from dataclasses import replace
from functools import partial
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from leakcheck.checkpoints import plan_for
from leakcheck.config import Configuration
from leakcheck.errors import NothingChecked, SubjectCrash
from leakcheck.probes import draws, measure
from leakcheck.probes.draws import DRAWS
from leakcheck.probes.measure import Deltas
from leakcheck.probes.probe import Prober, _decided, _decided_readings
from tests import models, oracle
from tests.models import SEQ, VOCAB, successor

PLAIN = Configuration("default", "none", "eval")


def prober(model: nn.Module, seed: int = 0) -> Prober:
    return Prober(model, plan_for, seq=SEQ, vocab_size=VOCAB, seed=seed)


EXACT = {
    "gpt2 reads its successor": partial(models.reading, models.gpt2, "transformer.h.0.mlp", successor),
    "gpt2 reads one channel": partial(models.reading, models.gpt2, "transformer.h.1.mlp", successor, "one channel"),
    "gpt2 beyond 8": partial(models.reading, models.gpt2, "transformer.h.0.mlp", successor, "beyond position 8"),
    "one pair": lambda: models.toy(partial(models.one_pair, reader=2, read=7)),
    "symmetric padding": lambda: models.toy(models.Convolution(2, 1)),
    "circular convolution": lambda: models.toy(models.FourierConvolution(padded=False)),
}


@pytest.mark.parametrize("seed", [0, 3])
@pytest.mark.parametrize("name", EXACT)
def test_the_numbers_are_those_of_brute_force_on_the_same_draws(name, seed):
    model = EXACT[name]()
    found = prober(model, seed).probe(PLAIN).logits

    (batch,) = prober(model, seed).batches(PLAIN)
    base = batch.tokens[0]
    moved = {}
    for draw in DRAWS:
        whole = next(row for row in range(len(batch.cut)) if batch.cut[row] == 0 and batch.draws[row] == draw.name)
        moved[draw.name] = oracle.moves_between(model, base, batch.tokens[whole], norm=draw.norm)
    largest = max(oracle.largest_leak(m) for m in moved.values())

    assert found.output == pytest.approx(largest, rel=1e-6)
    assert found.worst.delta == found.output
    assert moved[found.worst.draw][found.worst.cut, found.worst.position] == pytest.approx(largest, rel=1e-6)
    allowed = max(m[1:].triu(1).max().item() for m in moved.values())  # [cut - 1, position]: position >= cut
    assert found.relative == pytest.approx(largest / max(allowed, _whole_row(moved)), rel=1e-6)


def _whole_row(moved: dict[str, torch.Tensor]) -> float:
    """The move when everything changed, which is allowed everywhere."""
    return max(m[0].max().item() for m in moved.values())


def test_a_leak_below_the_resolution_of_float32_is_suspected_by_its_gradient_and_confirmed_in_float64():
    model = models.toy(lambda x: 100 + models.so_far(x) + 1e-9 * successor(x))
    found = prober(model).probe(PLAIN).logits
    assert found.gradient > 0
    assert 1e-9 < found.output < 1e-5
    (batch,) = prober(model).batches(PLAIN)
    with torch.no_grad():
        single = model(batch.tokens)
    assert (single == single[0])[batch.past].all()


def test_the_worst_channel_is_the_one_that_moves():
    model = models.reading(lambda: models.toy(models.so_far), "head", _only_channel_7)
    worst = prober(model).probe(PLAIN).logits.worst
    assert worst.channel == 7


def _only_channel_7(output: torch.Tensor) -> torch.Tensor:
    return successor(output) * (torch.arange(output.shape[-1]) == 7)


def test_one_pair_is_found_at_its_reader():
    for reader, read in [(0, 10), (4, 5), (9, 10)]:
        worst = prober(models.toy(partial(models.one_pair, reader=reader, read=read))).probe(PLAIN).logits.worst
        assert worst.position == reader
        assert reader < worst.cut <= read


@pytest.mark.parametrize("name", ["gpt2 reads its successor", "one pair"])
def test_several_batches_measure_what_one_does(name, monkeypatch):
    model = EXACT[name]()
    whole = prober(model).probe(PLAIN)
    monkeypatch.setattr(draws, "_ELEMENTS", SEQ * SEQ * 16 * 4)
    assert len(prober(model).batches(PLAIN)) > 3
    chunked = prober(model).probe(PLAIN)

    assert chunked.logits.output == pytest.approx(whole.logits.output, rel=1e-9)
    assert chunked.logits.relative == pytest.approx(whole.logits.relative, rel=1e-9)
    assert (chunked.logits.worst.cut, chunked.logits.worst.position) == (
        whole.logits.worst.cut,
        whole.logits.worst.position,
    )
    assert chunked.pairs_covered == whole.pairs_covered
    for (one, a), (other, b) in zip(whole.readings, chunked.readings, strict=True):
        assert one.module == other.module
        assert a.output == pytest.approx(b.output, rel=1e-9)
        assert a.local == pytest.approx(b.local, rel=1e-9)


@pytest.mark.parametrize(("mask", "padded"), [("none", 0), ("ones", 0), ("left-padded", 2), ("right-padded", 2)])
def test_pairs_covered_are_counted(mask, padded):
    found = prober(models.llama()).probe(Configuration("eager", mask, "eval"))
    live = range(padded, SEQ) if mask == "left-padded" else range(SEQ - padded)
    expected = sum(SEQ - 1 - position for position in live)
    assert found.pairs_covered == expected
    assert found.pairs_total == SEQ * (SEQ - 1) // 2
    assert found.padded_queries == padded


def test_the_module_that_leaks_is_told_from_those_behind_it():
    found = prober(EXACT["gpt2 reads its successor"]()).probe(PLAIN)
    by_module = {reading.module: decided for reading, decided in found.readings}
    before = by_module["transformer.h.0.attn"]
    assert before.output == before.gradient == before.local == 0
    leaking = by_module["transformer.h.0.mlp"]
    assert leaking.output > 0
    assert leaking.gradient > 0
    behind = by_module["transformer.h.1.attn"]
    assert behind.output > 0
    assert behind.local == 0


# --- what cannot be judged ------------------------------------------------------------------------------------------


def _raising(x: torch.Tensor) -> torch.Tensor:
    raise RuntimeError("first line\nsecond line")


def _nan_at(position: int, x: torch.Tensor) -> torch.Tensor:
    return x.masked_fill((torch.arange(x.shape[1]) == position)[:, None], torch.nan)


@pytest.mark.parametrize("mode", ["eval", "train"])
@pytest.mark.parametrize("position", [0, 5, SEQ - 1])
def test_nan_is_a_crash(position, mode):
    with pytest.raises(SubjectCrash, match="NaN"):
        prober(models.toy(partial(_nan_at, position))).probe(Configuration("default", "none", mode))


def test_a_forward_that_raises_is_a_crash_with_one_line():
    with pytest.raises(SubjectCrash) as caught:
        prober(models.toy(_raising)).probe(PLAIN)
    assert str(caught.value) == "Toy.forward raised under default/none/eval: RuntimeError: first line"


@pytest.mark.parametrize(("seq", "vocab_size"), [(1, VOCAB), (SEQ, 1)])
def test_nothing_to_compare(seq, vocab_size):
    with pytest.raises(NothingChecked):
        Prober(models.toy(models.so_far), plan_for, seq=seq, vocab_size=vocab_size, seed=0).probe(PLAIN)


def test_two_positions_and_two_tokens_are_enough():
    for near, moves in ((successor, True), (models.predecessor, False)):
        model = models.toy(near)
        found = Prober(model, plan_for, seq=2, vocab_size=2, seed=0).probe(PLAIN)
        assert (found.pairs_covered, found.pairs_total) == (1, 1)
        assert found.logits.moved is moves


@pytest.mark.parametrize("mixed", ["twin", "base"])
def test_a_row_that_depends_on_its_batch_is_run_alone(mixed):
    """Each row is weighted by its number, so that the base is as when alone; or all rows lend from all."""

    def weighted(x):
        return models.so_far(x) * torch.arange(1, len(x) + 1)[:, None, None]

    def mean(x):
        return models.so_far(x + x.mean(0, keepdim=True))

    found = prober(models.toy(weighted if mixed == "twin" else mean)).probe(PLAIN)
    assert not found.independent
    assert found.repeatable
    assert not found.logits.moved
    assert prober(models.toy(models.so_far)).probe(PLAIN).independent


def test_one_suspicious_batch_of_several_is_enough(monkeypatch):
    model = EXACT["one pair"]()
    monkeypatch.setattr(draws, "_ELEMENTS", SEQ * SEQ * 16 * 2)
    one = prober(model)
    moves = [measure.measure_logits(model, batch, PLAIN).output > 0 for batch in one.batches(PLAIN)]
    assert {True, False} == set(moves)
    assert one.probe(PLAIN).logits.moved


EPS64 = torch.finfo(torch.float64).eps


@pytest.mark.parametrize(("epsilons", "moves"), [(500, False), (1500, True)])
def test_a_move_of_more_than_a_thousand_epsilons_is_none_of_rounding(epsilons, moves):
    relative = epsilons * EPS64
    measured = Deltas(output=1.0, relative=relative, local=1.0, local_relative=relative)
    measured = replace(measured, by_position=torch.tensor([0.0, relative, 500 * EPS64, 1.0]))
    decided = _decided([Deltas()], [measured])
    assert decided.moved is moves
    assert decided.reached == ((1, 3) if moves else ())
    assert decided.local is None  # there was none in float32
    decided = _decided([replace(measured, relative=0.0, local_relative=0.0)], [measured])
    assert (decided.output > 0, decided.local > 0) == (moves, moves)


def test_stages_that_every_run_reached_are_decided_together():
    def measured(*named):
        return SimpleNamespace(readings=[(SimpleNamespace(key=key), deltas) for key, deltas in named])

    low = measured(("a", Deltas(output=1.0, relative=1.0)), ("a", Deltas()), ("b", Deltas()))
    high = measured(("a", Deltas(output=0.5, relative=0.5)), ("a", Deltas()))
    found = _decided_readings([low, low], [high, high])
    assert [(reading.key, decided.output) for reading, decided in found] == [("a", 0.5), ("a", 0.0)]
    assert [reading.key for reading, _ in _decided_readings([low], None)] == ["a", "a", "b"]


def test_a_suspicion_that_float64_cannot_decide_stays_one():
    def only_single(x: torch.Tensor) -> torch.Tensor:
        if x.dtype == torch.float64:
            raise RuntimeError("no such kernel")
        return models.so_far(x) + successor(x)

    found = prober(models.toy(only_single)).probe(PLAIN)
    assert found.logits.output > 0
    assert "no such kernel" in found.unconfirmed


# --- controls ---------------------------------------------------------------------------------------------------------


def test_all_controls_are_put_and_caught():
    controls = prober(models.gpt2()).probe(PLAIN).controls
    assert [c.expected for c in controls] == ["no delta", "delta", "delta", "delta"]
    assert all(c.caught for c in controls)


def test_a_model_that_shows_nothing_misses_the_positive_control():
    model = models.toy(models.so_far)
    model.head.weight.data.zero_()
    found = prober(model).probe(PLAIN)
    assert found.vacuous
    missed = [c.name for c in found.controls if not c.caught]
    assert [name.rpartition(": ")[2] for name in missed] == ["output", "gradient", "local"]


def test_a_model_that_shows_nothing_row_by_row_misses_the_positive_control():
    model = models.toy(models.so_far)
    model.head.weight.data.zero_()
    found = prober(model).probe(PLAIN, alone=True)
    assert [c.name.rpartition(": ")[2] for c in found.controls if not c.caught] == ["output"]


def test_a_detached_model_misses_the_gradient_control_only():
    found = prober(models.toy(lambda x: models.so_far(x.detach()) - x + x.detach())).probe(PLAIN)
    missed = [c.name for c in found.controls if not c.caught]
    assert all("gradient" in name for name in missed)


# --- no trace -------------------------------------------------------------------------------------------------------


def snapshot(model: nn.Module) -> dict:
    return {
        "training": [m.training for m in model.modules()],
        "backend": getattr(getattr(model, "config", None), "_attn_implementation", None),
        "checkpointing": [getattr(m, "gradient_checkpointing", None) for m in model.modules()],
        "hooks": [len(m._forward_hooks) + len(m._forward_pre_hooks) + len(m._backward_hooks) for m in model.modules()],
        "requires_grad": [p.requires_grad for p in model.parameters()],
        "no_grad": [p.grad is None for p in model.parameters()],
        "dtypes": [p.dtype for p in model.parameters()],
        "weights": {name: value.clone() for name, value in model.state_dict().items()},
        "rng": torch.get_rng_state(),
        "python rng": random.getstate(),
        "default dtype": torch.get_default_dtype(),
        "grad mode": torch.is_grad_enabled(),
    }


def assert_unchanged(before: dict, after: dict) -> None:
    for name in before:
        if name == "weights":
            for key, value in before[name].items():
                assert torch.equal(value, after[name][key]), key
        elif name == "rng":
            assert torch.equal(before[name], after[name])
        else:
            assert before[name] == after[name], name


@pytest.mark.parametrize(
    ("build", "attention", "mask", "mode"),
    [
        (models.llama, "eager", "none", "eval"),
        (models.llama, "sdpa", "left-padded", "train"),
        (models.llama, "eager", "none", "train+checkpointing"),
        (models.gpt2, "sdpa", "none", "train"),  # with dropout
        (EXACT["gpt2 reads its successor"], "eager", "none", "train+checkpointing"),  # float64 runs too
        (partial(models.toy, models.TimeNorm()), "default", "none", "train"),  # with running statistics
    ],
)
@pytest.mark.parametrize("training", [False, True])
def test_a_probe_leaves_the_model_as_it_was(build, attention, mask, mode, training):
    model = build().train(training)
    next(model.parameters()).requires_grad_(False)
    before = snapshot(model)
    prober(model).probe(Configuration(attention, mask, mode))
    assert_unchanged(before, snapshot(model))


def test_a_probe_that_crashes_leaves_the_model_as_it_was():
    model = models.reading(models.llama, "model.layers.1.mlp", _raising)
    before = snapshot(model)
    with pytest.raises(SubjectCrash):
        prober(model).probe(Configuration("eager", "ones", "train+checkpointing"))
    assert_unchanged(before, snapshot(model))


def test_a_crash_in_float64_leaves_the_default_dtype_as_it_was():
    test_a_suspicion_that_float64_cannot_decide_stays_one()
    assert torch.get_default_dtype() == torch.float32


def test_the_order_of_configurations_does_not_matter():
    def outputs(model: nn.Module, modes: tuple[str, ...]) -> dict[str, float]:
        one = prober(model)
        return {mode: one.probe(Configuration("default", "none", mode)).logits.output for mode in modes}

    def leaking() -> nn.Module:
        return models.toy(nn.Sequential(models.Convolution(2, 1), models.TimeNorm()))

    assert outputs(leaking(), ("eval", "train")) == pytest.approx(outputs(leaking(), ("train", "eval")), rel=1e-9)
