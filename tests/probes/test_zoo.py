"""What the probes alone say of planted leaks and of their clean twins; `tests/zoo` asks whole audits."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import pytest
import torch
from torch import nn
from transformers import MixtralForCausalLM

from leakcheck.checkpoints import plan_for
from leakcheck.config import Configuration
from leakcheck.probes.probe import Probed, Prober
from tests import models, oracle
from tests.models import SEQ, VOCAB, predecessor, successor


@dataclass(frozen=True)
class Pair:
    """A leaking model, its clean twin, and the mode in which they differ."""

    leaking: Callable[[], nn.Module]
    clean: Callable[[], nn.Module]
    mode: str = "eval"
    blind_gradient: bool = False  # the leak has no derivative


def _neighbour(build: Callable[..., nn.Module], *args: object, **options: object) -> Pair:
    return Pair(partial(build, *args, successor), partial(build, *args, predecessor), **options)


def _toys(leaking: Callable, clean: Callable, **options: object) -> Pair:
    return Pair(lambda: models.toy(leaking()), lambda: models.toy(clean()), **options)


def only_in_training(near: models.Near) -> nn.Module:
    no_dropout = partial(models.gpt2, resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0)
    return models.reading(no_dropout, "transformer.h.0.mlp", near, only_in_training=True)


ZOO = {
    **{
        f"llama: {name}": Pair(partial(models.llama_with_kernel, name), partial(models.llama_with_kernel, "causal"))
        for name in models.KERNELS
        if name != "causal"
    },
    **{
        f"gpt2 reads its neighbour: {name}": _neighbour(
            partial(models.reading, models.gpt2, "transformer.h.0.mlp", read=name),
            blind_gradient=name in ("detached", "rounded"),
        )
        for name in models.READS
    },
    "gpt2 reads its neighbour in training": _neighbour(only_in_training, mode="train"),
    "mamba: input one ahead": _neighbour(models.reading, models.mamba, "backbone.layers.0.mixer.in_proj"),
    "mamba2: output one ahead": _neighbour(models.reading, models.mamba2, "backbone.layers.1.mixer"),
    "mistral: last layer one ahead": _neighbour(models.reading, models.mistral, "model.layers.1.mlp"),
    "mixtral: experts one ahead": _neighbour(models.reading, models.mixtral, "model.layers.0.mlp"),
    "mean over the sequence": _toys(lambda: lambda x: x.mean(1, keepdim=True).expand_as(x), lambda: models.so_far),
    "roll by -1": _toys(lambda: lambda x: x.roll(-1, 1), lambda: predecessor),
    "symmetric padding": _toys(lambda: models.Convolution(2, 1), lambda: models.Convolution(3, 0)),
    "circular convolution": _toys(
        lambda: models.FourierConvolution(padded=False), lambda: models.FourierConvolution(padded=True)
    ),
    "one pair": _toys(
        lambda: partial(models.one_pair, reader=4, read=9), lambda: partial(models.one_pair, reader=9, read=4)
    ),
    "expert choice": _toys(
        lambda: partial(models.expert_choice, causal=False),
        lambda: partial(models.expert_choice, causal=True),
        blind_gradient=True,
    ),
    "randomised gate": _toys(lambda: models.Gated(successor), lambda: models.Gated(predecessor)),
}


def probed(model: nn.Module, mode: str = "eval", mask: str = "none", attention: str = "default") -> Probed:
    prober = Prober(model, plan_for, seq=SEQ, vocab_size=VOCAB, seed=0)
    return prober.probe(Configuration(attention, mask, mode))


def brute_force(model: nn.Module, mode: str = "eval") -> float:
    if isinstance(model, MixtralForCausalLM):
        model.set_experts_implementation("eager")  # the fused kernel has no float64
    return oracle.largest_leak(oracle.moves(model, seq=SEQ, vocab_size=VOCAB, train=mode != "eval"))


@pytest.mark.parametrize("name", ZOO)
def test_a_leak_is_found(name):
    pair = ZOO[name]
    model = pair.leaking()
    found = probed(model, pair.mode)  # before brute force, which changes the model's experts

    assert brute_force(model, pair.mode) > 1e-11
    assert found.logits.output > 1e-11
    assert found.logits.relative > 0
    assert not found.unconfirmed
    assert found.logits.worst is not None
    assert found.logits.worst.position < found.logits.worst.cut
    assert all(control.caught for control in found.controls)
    assert (found.logits.gradient == 0) == pair.blind_gradient


@pytest.mark.parametrize("name", ZOO)
def test_its_clean_twin_is_not(name):
    pair = ZOO[name]
    model = pair.clean()
    found = probed(model, pair.mode)

    assert brute_force(model, pair.mode) < 1e-13
    assert found.logits.output == found.logits.gradient == 0
    assert found.logits.worst is None
    assert not any(d.output or d.gradient or d.local for _, d in found.readings)
    assert all(control.caught for control in found.controls)
    assert not found.vacuous


@pytest.mark.parametrize("mode", ["eval", "train"])
@pytest.mark.parametrize("name", models.LIBRARY)
def test_models_of_the_library_are_causal(name, mode):
    model = models.LIBRARY[name]()
    found = probed(model, mode)

    assert brute_force(model, mode) < 1e-13
    assert found.logits.output == found.logits.gradient == 0
    assert all(control.caught for control in found.controls)
    assert not found.vacuous
    assert found.pairs_covered == found.pairs_total == SEQ * (SEQ - 1) // 2


def test_a_leak_only_in_training_is_not_seen_in_eval():
    found = probed(only_in_training(successor), "eval")
    assert found.logits.output == found.logits.gradient == 0


def test_a_leak_behind_a_closed_gate_is_beyond_probes():
    """Why weights are drawn anew before an audit, and why a clean probe is no proof."""
    model = models.toy(models.Gated(successor))
    model.mixer.gate.data.zero_()
    found = probed(model)
    assert found.logits.output == found.logits.gradient == 0


def test_the_kind_of_rounding_that_a_fourier_transform_makes_is_reported_as_rounding():
    found = probed(models.toy(models.FourierConvolution(padded=True)))
    assert found.logits.output == 0
    assert 1e-9 < found.logits.rounding < 1e-3


def test_statistics_over_batch_and_time_are_a_leak_in_training_only():
    model = models.toy(models.TimeNorm())
    assert brute_force(model, "train") > 1e-3
    assert brute_force(model, "eval") == 0

    in_training = probed(model, "train")
    assert not in_training.independent
    assert in_training.logits.output > 1e-3
    in_eval = probed(models.toy(models.TimeNorm()), "eval")
    assert in_eval.independent
    assert in_eval.logits.output == in_eval.logits.gradient == 0


@pytest.mark.parametrize("strength", [1.0, 1e-4])
def test_dropout_of_a_causal_model_is_no_leak(strength):
    found = probed(models.toy(models.Dropped(strength)), "train")
    assert found.logits.output == 0
    assert all(control.caught for control in found.controls)


@pytest.mark.parametrize("strength", [1.0, 1e-4])
def test_reading_another_row_of_the_batch_is_no_leak(strength):
    """A row reads the one before it, at the same position; alone in its batch it reads itself."""
    found = probed(models.toy(lambda x: models.so_far(x + strength * x.roll(1, 0))))
    assert found.logits.output == 0
    assert not found.independent


def test_a_large_constant_logit_does_not_hide_a_small_leak():
    """Unused entries of the vocabulary are often blocked by a large finite value."""

    def blocked(logits: torch.Tensor, near: models.Near) -> torch.Tensor:
        live = logits[..., :-1]
        return torch.cat([live + 1e-7 * near(live), torch.full_like(logits[..., -1:], -1e9)], -1)

    def build(near: models.Near) -> nn.Module:
        model = models.toy(models.so_far)
        model.head = nn.Sequential(model.head, models.Mixer(partial(blocked, near=near)))
        return model

    assert brute_force(build(successor)) > 1e-8
    assert probed(build(successor)).logits.output > 1e-8
    assert probed(build(predecessor)).logits.output == 0


def test_an_infinity_that_the_future_makes_is_no_rounding():
    """A future embedding a hundred times as long makes the position before it infinite, in every precision."""

    def overflow(x: torch.Tensor) -> torch.Tensor:
        too_long = successor(x).norm(dim=-1, keepdim=True) > 50
        return models.so_far(x).masked_fill(too_long, torch.inf)

    found = probed(models.toy(overflow))
    assert found.logits.output == float("inf")
    assert found.logits.worst.draw == "norm-100"


@pytest.mark.parametrize("strength", [1.0, 1e-4])
def test_noise_that_no_seed_controls_misses_the_quiet_control(strength):
    found = probed(models.toy(models.Noise(strength)))
    assert "two equal inputs" in [control.name for control in found.controls if not control.caught]


def test_a_model_that_ignores_its_past_is_vacuous():
    found = probed(models.toy(lambda x: x.tanh()))
    assert found.vacuous
    assert found.logits.output == 0


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize("mask", ["left-padded", "right-padded"])
def test_padded_queries_are_counted_apart(attention, mask):
    found = probed(models.llama(), mask=mask, attention=attention)
    assert found.logits.output == found.logits.gradient == 0
    assert found.padded_queries == 2  # a quarter of 11, rounded down
    if mask == "right-padded":
        assert found.logits.padded == 0  # they are the last, nothing is after them but padding
    elif attention == "eager":
        assert found.logits.padded == 2  # every key is blocked alike, so the weights are uniform over all


def test_padding_does_not_hide_a_leak():
    model = models.reading(models.llama, "model.layers.0.mlp", successor)
    assert probed(model, mask="left-padded", attention="eager").logits.output > 1e-3
