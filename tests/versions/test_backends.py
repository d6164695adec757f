"""A model switched to another attention backend is what its constructor would have made, and is restored exactly."""

import copy

import pytest
import torch
from torch import nn
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

from leakcheck.config import Configuration
from leakcheck.subjects import architectures, backends, running
from leakcheck.subjects.library import IN_FLOAT32
from leakcheck.subjects.subject import logits_of

TOKENS = torch.arange(3, 25).view(2, 11)  # [batch, seq]


def kinds(model):
    """The class of every module and the backend of every configuration."""
    return {
        path: type(part) if isinstance(part, nn.Module) else part._attn_implementation
        for path, part in backends._parts(model)
    }


def attributes(model):
    return {path: dict(vars(part)) for path, part in backends._parts(model)}


def built(model, backend):
    """The same weights in a model that was made for this backend."""
    config = copy.deepcopy(model.config)
    twin = AutoModelForCausalLM.from_config(config, attn_implementation=backend, **IN_FLOAT32).eval()
    twin.load_state_dict(model.state_dict())
    return twin


@pytest.mark.parametrize("model_type", ["llama", "gpt2", "opt", "bart", "phi3"])
def test_switched_is_what_would_have_been_built(model_type):
    model = architectures.build(model_type)
    before = kinds(model), attributes(model)
    assert backends.available(model) == ("eager", "sdpa")
    for backend in ("eager", "sdpa"):
        twin = built(model, backend)
        with running.configured(model, Configuration(backend, "none", "eval")), torch.no_grad():
            assert kinds(model) == kinds(twin)
            assert torch.equal(logits_of(model(TOKENS)), logits_of(twin(TOKENS)))
        assert (kinds(model), attributes(model)) == before


def test_what_was_put_in_after_construction_stays():
    class Own(nn.Module):
        def __init__(self, inner):
            super().__init__()
            self.inner = inner

        def forward(self, *args, **kwargs):
            return self.inner(*args, **kwargs)

    sizes = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2}
    model = LlamaForCausalLM(LlamaConfig(vocab_size=31, **sizes)).eval()
    own = model.model.layers[1].self_attn = Own(model.model.layers[1].self_attn)
    inner = type(own.inner)
    for backend in ("eager", "sdpa"):
        with running.configured(model, Configuration(backend, "none", "eval")):
            assert model.model.layers[1].self_attn is own
            assert type(own.inner) is inner
            assert model.config._attn_implementation == backend


def test_a_class_that_cannot_be_built_again_keeps_its_backend():
    class Own(LlamaForCausalLM):
        def __init__(self, config, needed):
            super().__init__(config)

    sizes = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 1, "num_attention_heads": 2}
    model = Own(LlamaConfig(vocab_size=31, **sizes), needed=1)
    offered = backends.available(model)
    assert model.config._attn_implementation in offered
    assert offered == (("eager", "sdpa") if backends.SWITCHES_ATTENTION else ("sdpa",))
