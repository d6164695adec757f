"""Folders that save_pretrained wrote, and config.json files alone."""

import json

import pytest
import torch
from transformers import LlamaConfig, LlamaModel, MistralConfig, ViTConfig

from leakcheck import audit
from leakcheck.config import Settings
from leakcheck.findings import Verdict
from leakcheck.subjects.load import load

from .helpers import refusal, run


@pytest.mark.parametrize("name", ["llama", "method1_v3"])
def test_folder(name, tmp_path):
    saved = load(name)
    saved.model.save_pretrained(tmp_path)
    loaded = load(str(tmp_path))
    assert type(loaded.model) is type(saved.model)
    assert (loaded.weights, loaded.seq_len, loaded.vocab_size) == ("given", 13, 97)
    assert not loaded.model.training
    assert torch.equal(run(loaded), run(saved))


def test_folder_in_bfloat16_is_loaded_in_float32(tmp_path):
    load("llama").model.bfloat16().save_pretrained(tmp_path)
    assert {parameter.dtype for parameter in load(str(tmp_path)).model.parameters()} == {torch.float32}


def test_folder_with_weights_in_several_files(tmp_path):
    saved = load("llama")
    saved.model.save_pretrained(tmp_path, max_shard_size="20KB")
    shards = sorted(tmp_path.glob("model-*.safetensors"))
    assert len(shards) > 2
    loaded = load(str(tmp_path))
    assert loaded.weights == "given"
    assert torch.equal(run(loaded), run(saved))
    shards[1].unlink()
    assert "could not be loaded" in refusal(tmp_path)


def test_folder_with_weights_in_several_files_is_audited(tmp_path):
    load("llama").model.save_pretrained(tmp_path, max_shard_size="20KB")
    result = audit(str(tmp_path), Settings(attention=("sdpa",)))
    assert (result.verdict, result.subject.weights) == (Verdict.PROVEN, "given")


def test_folder_without_a_head_says_so(tmp_path):
    config = LlamaConfig(vocab_size=97, hidden_size=32, intermediate_size=64, num_hidden_layers=1)
    LlamaModel(config).save_pretrained(tmp_path)
    assert load(str(tmp_path)).weights == "given, but 1 missing and drawn at random"


def test_folder_without_configuration(tmp_path):
    assert "no config.json" in refusal(tmp_path)


def test_nothing_is_unpickled(tmp_path):
    load("llama").model.save_pretrained(tmp_path)
    (tmp_path / "model.safetensors").rename(tmp_path / "pytorch_model.bin")
    assert "unpickles none" in refusal(tmp_path)


def test_folder_with_broken_weights(tmp_path):
    load("llama").model.save_pretrained(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"nothing of the kind")
    assert "could not be loaded" in refusal(tmp_path)


def test_small_configuration_is_built_as_it_is(tmp_path):
    original = load("method1_v3")
    original.model.config.save_pretrained(tmp_path)
    subject = load(str(tmp_path / "config.json"))
    assert subject.weights == "random"
    assert subject.model.config.materialize_causal_mask
    assert torch.equal(run(subject), run(original))  # the same seed


def test_large_configuration_is_shrunk(tmp_path):
    MistralConfig(sliding_window=4096).save_pretrained(tmp_path)
    subject = load(str(tmp_path / "config.json"))
    assert subject.weights == "random (shrunk copy)"
    config = subject.model.config
    assert (config.num_hidden_layers, config.vocab_size, config.sliding_window) == (3, 97, 4)
    assert (config.num_attention_heads, config.num_key_value_heads) == (4, 2)
    assert run(subject).isfinite().all()


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("[1, 2]", "not a model configuration"),
        ('{"hidden_size": 32}', "not a model configuration"),
        ('{"model_type": 3}', "not a model configuration"),
        ('{"model_type": "no-such-type"}', "no model_type 'no-such-type'"),
        ('{"model_type": "llama",', "not readable as JSON"),
        ("", "not readable as JSON"),
        (json.dumps({"model_type": "llama", "hidden_size": "wide"}), "refuses this configuration"),
        (json.dumps(ViTConfig().to_dict()), "no causal language model"),
        (
            json.dumps({"model_type": "gpt2", "n_embd": 30, "n_head": 4, "n_layer": 1, "vocab_size": 50}),
            "no model could be built",
        ),
    ],
)
def test_json_that_is_no_configuration(content, reason, tmp_path):
    path = tmp_path / "some.json"
    path.write_text(content)
    message = refusal(path)
    assert message.startswith(str(path))
    assert reason in message
