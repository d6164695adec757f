"""SPEC -> Subject: every form, every bad input, rebuilding."""

import subprocess
import sys

import pytest
import torch
from transformers.utils import logging

from leakcheck.errors import UsageError
from leakcheck.subjects.load import load
from leakcheck.subjects.method1_v3 import Method1Config_v3, Method1LlamaForCausalLM_v3
from leakcheck.subjects.names import BUILTIN

from .helpers import refusal, run


def test_names_import_no_torch():
    code = "import sys, leakcheck.subjects, leakcheck.subjects.names; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize("name", BUILTIN)
def test_builtin(name):
    subject = load(name)
    assert (subject.spec, subject.vocab_size, subject.seq_len, subject.weights) == (name, 97, 13, "random")
    assert not subject.model.training
    assert {parameter.dtype for parameter in subject.model.parameters()} == {torch.float32}
    assert run(subject).shape == (2, 13, 97)


def test_as_published_differs_only_in_the_mask():
    audited, published = load("method1_v3").model.config, load("method1_v3_as_published").model.config
    assert audited.materialize_causal_mask
    assert not published.materialize_causal_mask
    assert published._attn_implementation == load("llama").model.config._attn_implementation == "sdpa"
    published.materialize_causal_mask = True
    assert audited.to_dict() == published.to_dict()


def test_llama_is_the_control_of_method1_v3():
    llama, method1 = (dict(load(name).model.named_parameters()) for name in ("llama", "method1_v3"))
    assert llama.keys() == method1.keys()
    assert all(torch.equal(llama[name], method1[name]) for name in llama)
    assert not torch.equal(load("llama").model.model.layers[0].mlp.up_proj.weight, torch.zeros(64, 32))


def test_loading_is_reproducible_and_leaves_the_random_state_alone():
    torch.manual_seed(1)
    state = torch.get_rng_state()
    first, second = load("method1_v3"), load("method1_v3")
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(run(first), run(second))


def test_verbosity_and_progress_bars_are_restored():
    verbosity, progress = logging.get_verbosity(), logging.is_progress_bar_enabled()
    load("llama")
    refusal("no_such_model")
    assert (logging.get_verbosity(), logging.is_progress_bar_enabled()) == (verbosity, progress)


def test_rebuild_changes_the_configuration_and_keeps_the_weights():
    subject = load("method1_v3")
    subject.model.set_attn_implementation("eager")
    rebuilt = subject.rebuild({"safety_strict_remask": False, "merge_attention_output": True})
    assert type(rebuilt) is type(subject.model)
    assert not rebuilt.training
    assert rebuilt.config._attn_implementation == "eager"
    assert not rebuilt.config.safety_strict_remask
    assert subject.model.config.safety_strict_remask
    for (name, parameter), (_, before) in zip(
        rebuilt.named_parameters(), subject.model.named_parameters(), strict=True
    ):
        assert parameter is not before
        assert torch.equal(parameter, before), name


def test_rebuild_keeps_given_weights(tmp_path):
    model = load("llama").model
    model.save_pretrained(tmp_path)
    rebuilt = load(str(tmp_path)).rebuild({})
    assert all(torch.equal(a, b) for a, b in zip(rebuilt.parameters(), model.parameters(), strict=True))


def test_rebuild_with_other_shapes_keeps_what_fits():
    subject = load("llama")
    rebuilt = subject.rebuild({"intermediate_size": 48})
    assert torch.equal(rebuilt.lm_head.weight, subject.model.lm_head.weight)
    assert rebuilt.model.layers[0].mlp.up_proj.weight.shape == (48, 32)
    assert rebuilt.model.layers[0].mlp.up_proj.weight.std() > 0.1  # as random as the rest, not the default 0.02


def test_rebuild_refuses_unknown_fields_and_bad_values():
    rebuild = load("llama").rebuild
    with pytest.raises(UsageError, match="no field 'safety_parent_mask'"):
        rebuild({"safety_parent_mask": False})
    with pytest.raises(UsageError, match="LlamaForCausalLM with"):
        rebuild({"num_hidden_layers": "three"})


@pytest.mark.parametrize("spec", ["no_such_model", "no/such/folder", "no_such.py", "no_such.py:build", "config.json"])
def test_nothing_there(spec, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    message = refusal(spec)
    assert spec in message
    assert all(name in message for name in BUILTIN)


def test_a_file_of_another_kind(tmp_path):
    (tmp_path / "weights.bin").write_bytes(b"")
    assert "not a folder, a .json, .gguf, .pt2 or .py file" in refusal(tmp_path / "weights.bin")


def test_seq_len():
    assert load("llama", seq_len=64).seq_len == 64
    assert "at least 2" in refusal("llama", seq_len=1)
    assert "maximum is 64" in refusal("llama", seq_len=65)


def test_method1_v3_is_known_to_the_auto_classes():
    assert isinstance(load("method1_v3").model, Method1LlamaForCausalLM_v3)
    assert isinstance(load("method1_v3").model.config, Method1Config_v3)
