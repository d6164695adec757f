"""Traits of library models that a sweep over transformers' causal LMs tripped over, each in its smallest form."""

import pytest
import torch
from torch import nn
from torch.nn import functional
from transformers import Qwen2MoeConfig, Qwen2MoeForCausalLM

from leakcheck.checkpoints import plan_for
from leakcheck.config import Configuration
from leakcheck.probes import precision
from leakcheck.probes.probe import Prober
from leakcheck.subjects import running
from leakcheck.subjects.subject import randomise
from tests import models

EVAL = Configuration("default", "none", "eval")
TRAIN = Configuration("default", "none", "train")


def probe(model: nn.Module, configuration: Configuration):
    return Prober(model, plan_for, seq=models.SEQ, vocab_size=models.VOCAB, seed=0).probe(configuration)


class RareNoise(nn.Module):
    """Like sparse mixers in training: a random number decides, and almost always decides the same."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if not self.training:
            return models.so_far(x)
        rare = torch.rand(x.shape[:2]) > 0.98  # [batch, seq]
        return models.so_far(x) * (1 + 1e-4 * rare[..., None])


def test_rare_randomness_is_no_leak():
    probed = probe(models.toy(RareNoise()), TRAIN)
    assert not probed.independent
    assert not probed.logits.moved
    assert not probed.logits.gradient
    assert all(control.caught for control in probed.controls)


class ScalesInPlace(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return models.so_far(x.mul_(2.0))


def test_embeddings_that_are_scaled_in_place_can_be_probed():
    probed = probe(models.toy(ScalesInPlace()), EVAL)
    assert not probed.logits.moved
    assert not probed.logits.gradient
    assert {control.name.rpartition(": ")[2] for control in probed.controls if control.caught} >= {"output", "gradient"}


@pytest.mark.parametrize("backend", ["eager", "sdpa"])
def test_routed_experts_are_decided_in_float64(backend):
    config = Qwen2MoeConfig(
        vocab_size=models.VOCAB,
        hidden_size=16,
        intermediate_size=24,
        moe_intermediate_size=12,
        shared_expert_intermediate_size=20,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        num_experts=4,
        num_experts_per_tok=2,
    )
    model = Qwen2MoeForCausalLM(config)
    randomise(model, 0)
    probed = probe(model.eval(), Configuration(backend, "none", "eval"))
    assert probed.unconfirmed == ""
    assert not probed.logits.moved
    assert not probed.logits.gradient


def test_grouped_matrix_products_run_in_float64():
    torch.manual_seed(0)
    rows, weights = torch.randn(7, 16), torch.randn(3, 16, 8)
    ends = torch.tensor([2, 2, 6], dtype=torch.int32)  # the second group is empty, the last row is in none
    rows, weights = rows.double(), weights.double()
    expected = [row @ weights[group] for row, group in zip(rows[:6], [0, 0, 2, 2, 2, 2], strict=True)]
    with precision.float64():
        found = functional.grouped_mm(rows, weights, offs=ends)
    assert found.dtype == torch.float64
    assert torch.allclose(found[:6], torch.stack(expected), rtol=0, atol=1e-12)


def test_a_cache_that_is_only_a_keyword_is_turned_off():
    seen = []

    class Keywords(nn.Module):
        config = type("Config", (), {"use_cache": True})()

        def forward(self, input_ids, **kwargs):
            seen.append(kwargs)
            return torch.zeros(*input_ids.shape, 5)

    running.forward(Keywords(), torch.zeros(2, 3, dtype=torch.long), EVAL)
    assert seen == [{"use_cache": False}]
