"""Folders that save_pretrained wrote, and config.json files alone."""

import json
import pickle
import sys

import pytest
import torch
from transformers import LlamaConfig, LlamaModel, MistralConfig, ViTConfig

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


def test_folder_without_a_head_says_so(tmp_path):
    config = LlamaConfig(vocab_size=97, hidden_size=32, intermediate_size=64, num_hidden_layers=1)
    LlamaModel(config).save_pretrained(tmp_path)
    assert load(str(tmp_path)).weights == "given, but 1 missing and drawn at random"


def test_folder_without_configuration(tmp_path):
    assert "no config.json" in refusal(tmp_path)


def test_folder_of_shards(tmp_path):
    saved = load("llama")
    saved.model.save_pretrained(tmp_path, max_shard_size="20KB")
    assert len(list(tmp_path.glob("*.safetensors"))) > 2
    loaded = load(str(tmp_path))
    assert loaded.weights == "given"
    assert torch.equal(run(loaded), run(saved))


def missing(shards, index):
    shards[1].unlink()


def corrupt(shards, index):
    shards[1].write_bytes(b"nothing of the kind")


def truncated(shards, index):
    shards[1].write_bytes(shards[1].read_bytes()[:-10])


def empty_index(shards, index):
    index.write_text("{}")


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (missing, "1 is missing: model-00002-of-"),
        (corrupt, "model-00002-of-00009.safetensors: not a whole safetensors file"),
        (truncated, "model-00002-of-00009.safetensors: not a whole safetensors file"),
        (empty_index, "model.safetensors.index.json: not an index of weights"),
    ],
)
def test_damaged_shards(damage, said, tmp_path):
    load("llama").model.save_pretrained(tmp_path, max_shard_size="20KB")
    damage(sorted(tmp_path.glob("*.safetensors")), tmp_path / "model.safetensors.index.json")
    assert said in refusal(tmp_path)


def pickled(folder, states):
    """The saved model with its weights as pickles: one file, or several with an index."""
    saved = load("llama")
    saved.model.save_pretrained(folder)
    (folder / "model.safetensors").unlink()
    names = [f"pytorch_model-{n}.bin" for n in range(states)] if states > 1 else ["pytorch_model.bin"]
    weights = saved.model.state_dict()
    where = {key: names[n % states] for n, key in enumerate(weights)}
    for name in names:
        torch.save({key: value for key, value in weights.items() if where[key] == name}, folder / name)
    if states > 1:
        (folder / "pytorch_model.bin.index.json").write_text(json.dumps({"metadata": {}, "weight_map": where}))
    return saved


@pytest.mark.parametrize("states", [1, 3])
def test_pickles_of_tensors_are_read(states, tmp_path):
    saved = pickled(tmp_path, states)
    loaded = load(str(tmp_path))
    assert loaded.weights == "given"
    assert torch.equal(run(loaded), run(saved))


class Touch:
    """Unpickled, it makes a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


@pytest.mark.parametrize("dump", [torch.save, lambda value, path: path.write_bytes(pickle.dumps(value))])
def test_nothing_else_is_unpickled(dump, tmp_path):
    pickled(tmp_path, 1)
    dump({"model.norm.weight": Touch(tmp_path / "executed")}, tmp_path / "pytorch_model.bin")
    assert "unpickles none of them" in refusal(tmp_path)
    assert not (tmp_path / "executed").exists()
    pickle.loads(pickle.dumps(Touch(tmp_path / "executed"))).close()  # it would have been seen
    assert (tmp_path / "executed").exists()


def test_safetensors_are_preferred(tmp_path):
    pickled(tmp_path, 1)
    torch.save({"model.norm.weight": Touch(tmp_path / "executed")}, tmp_path / "pytorch_model.bin")
    saved = load("method1_v3")
    saved.model.save_pretrained(tmp_path)
    assert torch.equal(run(load(str(tmp_path))), run(saved))
    assert not (tmp_path / "executed").exists()


def test_folder_without_weights(tmp_path):
    load("llama").model.config.save_pretrained(tmp_path)
    assert "no weights in this folder" in refusal(tmp_path)


def changed(folder, **fields):
    stored = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(stored | fields))


def test_weights_of_another_shape(tmp_path):
    load("llama").model.save_pretrained(tmp_path)
    changed(tmp_path, intermediate_size=48)
    assert "down_proj.weight is [32, 64] in the files, [32, 48] by config.json" in refusal(tmp_path)


def test_weights_that_the_model_has_not(tmp_path):
    load("llama").model.save_pretrained(tmp_path)
    changed(tmp_path, num_hidden_layers=2)
    assert load(str(tmp_path)).weights == "given, but 9 in the files that the model has not"


OWN_CODE = """
from pathlib import Path
from transformers import LlamaForCausalLM
from .configuration_own import OwnConfig
Path(RAN).touch()

class OwnForCausalLM(LlamaForCausalLM):
    config_class = OwnConfig

    def forward(self, input_ids=None, attention_mask=None, **kwargs):
        output = super().forward(input_ids, attention_mask, **kwargs)
        output.logits = 2 * output.logits
        return output
"""


@pytest.fixture
def own(tmp_path, monkeypatch):
    """A folder with code of its own, which leaves a file when it runs; transformers copies code elsewhere."""
    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(tmp_path / "modules"))
    monkeypatch.setattr(sys, "path", [*sys.path])
    folder = tmp_path / f"own_{tmp_path.name}"  # transformers keeps modules by the folder's name
    load("llama").model.save_pretrained(folder)
    code = {"AutoConfig": "configuration_own.OwnConfig", "AutoModelForCausalLM": "modeling_own.OwnForCausalLM"}
    changed(folder, model_type="brought-along", auto_map=code)
    (folder / "configuration_own.py").write_text(
        "from transformers import LlamaConfig\nclass OwnConfig(LlamaConfig):\n    model_type = 'brought-along'\n"
    )
    (folder / "modeling_own.py").write_text(OWN_CODE.replace("RAN", repr(str(tmp_path / "ran"))))
    yield folder
    for name in [name for name in sys.modules if name.partition(".")[0] == "transformers_modules"]:
        del sys.modules[name]


@pytest.mark.parametrize("model_type", ["brought-along", "llama"])
@pytest.mark.parametrize("spec", ["", "config.json"])
def test_code_of_a_folder_runs_only_when_it_is_trusted(spec, model_type, own):
    changed(own, model_type=model_type)
    before = sorted(own.rglob("*"))
    assert "--trust-remote-code" in refusal(own / spec)
    assert not (own.parent / "ran").exists()
    subject = load(str(own / spec), trust_remote_code=True)
    assert type(subject.model).__name__ == "OwnForCausalLM"
    assert (own.parent / "ran").exists()
    assert sorted(own.rglob("*")) == before


def test_code_of_a_folder_is_what_is_audited(own):
    plain = own.parent / "plain"
    load("llama").model.save_pretrained(plain)
    assert torch.equal(run(load(str(own), trust_remote_code=True)), 2 * run(load(str(plain))))


def test_a_large_configuration_with_code_is_shrunk(own):
    changed(own, hidden_size=1024, vocab_size=32000)
    assert load(str(own / "config.json"), trust_remote_code=True).weights == "random (shrunk copy)"


def test_code_that_is_missing(own):
    (own / "modeling_own.py").unlink()
    assert "modeling_own.py" in refusal(own, trust_remote_code=True)


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
