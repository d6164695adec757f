"""Models whose parameters are never allocated."""

import pytest
import torch
from torch import nn
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

from leakcheck.subjects import architectures, saved
from leakcheck.subjects.load import load
from leakcheck.subjects.weightless import LARGEST, weightless

from .helpers import refusal, run

LARGE = LlamaConfig(
    hidden_size=2048, num_hidden_layers=5, num_attention_heads=16, num_key_value_heads=4, intermediate_size=4096,
    vocab_size=32000, max_position_embeddings=128,
)  # fmt: skip


@pytest.mark.parametrize("name", ["llama", "gpt_neo", "bloom", "gptj", "ctrl", "mamba2", "deepseek_v3", "xglm"])
def test_parameters_have_no_values_and_buffers_their_own(name):
    real, bare = architectures.build(name), weightless(lambda: architectures.build(name))
    assert not bare.training
    assert all(parameter.is_meta for parameter in bare.parameters())
    shapes = [{n: p.shape for n, p in model.named_parameters()} for model in (real, bare)]
    assert shapes[0] == shapes[1]
    buffers = dict(bare.named_buffers())
    assert buffers.keys() == dict(real.named_buffers()).keys()
    assert all(torch.equal(buffers[n], buffer) for n, buffer in real.named_buffers())


def test_shared_parameters_stay_shared():
    model = weightless(lambda: GPT2LMHeadModel(GPT2Config(n_layer=1, n_embd=32, n_head=4, vocab_size=97)))
    assert model.lm_head.weight is model.transformer.wte.weight


def test_a_buffer_too_large_to_make_has_no_values():
    class Masked(nn.Module):
        def __init__(self, size):
            super().__init__()
            self.register_buffer("mask", torch.ones(size, size, dtype=torch.bool).tril())

    size = int(LARGEST**0.5)
    assert weightless(lambda: Masked(size + 1)).mask.is_meta
    assert torch.equal(weightless(lambda: Masked(9)).mask, torch.ones(9, 9, dtype=torch.bool).tril())


def test_a_buffer_computed_from_a_parameter_has_no_values():
    class Normed(nn.Module):
        def __init__(self, copied):
            super().__init__()
            self.weight = nn.Parameter(torch.ones(3))
            self.register_buffer("size", torch.zeros(()) if copied else self.weight.norm())
            if copied:
                self.size.copy_(self.weight[0])

    assert weightless(lambda: Normed(False)).size.is_meta
    with pytest.raises(NotImplementedError, match="values that are not there"):
        weightless(lambda: Normed(True))


def test_large_configuration_is_there_at_its_full_size(tmp_path):
    LARGE.save_pretrained(tmp_path)
    subject = load(str(tmp_path / "config.json"))
    assert subject.weights == "random (shrunk copy)"
    assert subject.full is not None
    assert (subject.vocab_size, subject.full.vocab_size, subject.full.weights) == (97, 32000, "none")
    assert subject.full.model.config.num_hidden_layers == 5
    assert all(parameter.is_meta for parameter in subject.full.model.parameters())
    assert all(parameter.dtype == torch.float32 for parameter in subject.full.model.parameters())
    assert sum(p.numel() for p in subject.full.model.parameters()) == LlamaForCausalLM(LARGE).num_parameters()
    assert run(subject).isfinite().all()


def test_small_configuration_has_no_other_size(tmp_path):
    load("llama").model.config.save_pretrained(tmp_path)
    assert load(str(tmp_path / "config.json")).full is None


def test_length_is_of_the_full_size_and_of_the_copy_if_it_fits(tmp_path):
    LARGE.save_pretrained(tmp_path)
    path = str(tmp_path / "config.json")
    both, only_full = load(path, seq_len=20), load(path, seq_len=100)
    assert (both.full.seq_len, both.seq_len) == (20, 20)
    assert (only_full.full.seq_len, only_full.seq_len) == (100, 13)
    assert "maximum is 128" in refusal(path, seq_len=129)


def test_folder_with_no_weights_asked_for(tmp_path):
    LARGE.save_pretrained(tmp_path)
    assert load(str(tmp_path), no_weights=True).full is not None
    load("llama").model.save_pretrained(tmp_path / "small")
    assert load(str(tmp_path / "small"), no_weights=True).weights == "random"
    assert "--no-weights" in refusal("llama", no_weights=True)


def test_folder_that_does_not_fit_in_memory(tmp_path, monkeypatch):
    load("llama").model.bfloat16().save_pretrained(tmp_path)
    stored = sum(file.stat().st_size for file in tmp_path.glob("*.safetensors"))
    assert saved.weights_in_memory(tmp_path, [*tmp_path.glob("*.safetensors")]) == 2 * stored  # in float32
    assert saved.available_memory() > 2 * stored
    assert load(str(tmp_path)).weights == "given"
    monkeypatch.setattr(saved, "available_memory", lambda: 2 * stored - 1)
    assert load(str(tmp_path)).weights.startswith("random (its weights need ")
