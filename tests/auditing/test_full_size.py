"""A large configuration: proven at its full size without weights, probed in a shrunken copy."""

import json
import resource
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from transformers import AutoConfig, LlamaConfig, PreTrainedConfig

import leakcheck.auditing
from leakcheck.auditing import audit
from leakcheck.auditing.examine import Examined, Examiner
from leakcheck.config import Configuration
from leakcheck.findings import Verdict
from leakcheck.report import json as report_json
from leakcheck.report.view import subject_line
from leakcheck.subjects.load import load
from leakcheck.subjects.subject import Subject

GIGABYTES = 6


def llama_405b(layers: int = 126) -> LlamaConfig:
    return LlamaConfig(
        hidden_size=16384, num_hidden_layers=layers, num_attention_heads=128, num_key_value_heads=8,
        intermediate_size=53248, vocab_size=128256, max_position_embeddings=131072,
    )  # fmt: skip


FULL_SIZE = {  # one in its whole depth; of the others every kind of layer, since each more costs as much again
    "llama 405B": (llama_405b(), 405_853_388_800),
    "8 of 56 layers of mixtral 8x22B": (
        AutoConfig.for_model(
            "mixtral", hidden_size=6144, num_hidden_layers=8, num_attention_heads=48, num_key_value_heads=8,
            intermediate_size=16384, vocab_size=32768, num_local_experts=8, sliding_window=None,
        ),
        20_000_000_000,
    ),
    "6 of 61 layers of deepseek v3": (AutoConfig.for_model("deepseek_v3", num_hidden_layers=6), 35_000_000_000),
    "11 of 32 layers of bamba 9B": (
        AutoConfig.for_model("bamba", num_hidden_layers=11, attn_layer_indices=[9], mamba_d_state=128),
        3_000_000_000,
    ),
    "16 of 64 layers of mamba 2 2.7B": (
        AutoConfig.for_model(
            "mamba2", hidden_size=2560, num_hidden_layers=16, num_heads=80, state_size=128, n_groups=1, vocab_size=50288
        ),
        700_000_000,
    ),
}  # fmt: skip
SDPA = Configuration("sdpa", "none", "eval")


def loaded(config: PreTrainedConfig, folder: Path) -> Subject:
    config.save_pretrained(folder)
    return load(str(folder / "config.json"))


def examiner(subject: Subject) -> Examiner:
    return Examiner(subject.model, seq=subject.seq_len, vocab_size=subject.vocab_size, seed=0, full=subject.full)


def examined(subject: Subject, attention: str) -> Examined:
    return examiner(subject).examine(Configuration(attention, "none", "eval"))


@pytest.fixture
def llama(tmp_path) -> Subject:
    """Of three layers at full size."""
    return loaded(
        LlamaConfig(
            hidden_size=2048, num_hidden_layers=3, num_attention_heads=16, intermediate_size=4096, vocab_size=32000
        ),
        tmp_path,
    )


def test_layers_of_405_billion_parameters_on_the_command_line(tmp_path):
    """Four of its 126."""
    llama_405b(4).save_pretrained(tmp_path)
    report = tmp_path / "audit.json"
    command = [sys.executable, "-m", "leakcheck", "run", "--model", str(tmp_path / "config.json")]
    options = ["--attn", "sdpa", "--strict", "--report", str(report)]
    done = subprocess.run([*command, *options], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    first = " ".join(done.stdout.split())
    assert "proof: full size, 16,953,524,224 parameters, weight-free, seq_len 13" in first
    assert "probes: a shrunken copy of 34,080 parameters, seq_len 13, random (shrunk copy) weights" in first
    result = report_json.read(report.read_text())
    assert {c.verdict for c in result.configurations} == {Verdict.PROVEN}
    assert (result.subject.full_size.parameters, result.subject.parameters) == (16_953_524_224, 34_080)
    assert resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024 < GIGABYTES * 1e9  # of 68 GB of weights


@pytest.mark.parametrize("name", FULL_SIZE)
def test_architectures_at_full_size(name, tmp_path):
    config, at_least = FULL_SIZE[name]
    subject = loaded(config, tmp_path)
    assert sum(p.numel() for p in subject.full.model.parameters()) >= at_least
    found = examined(subject, "eager" if config.model_type == "mamba2" else "sdpa")
    assert found.result.verdict is Verdict.PROVEN
    assert found.result.horizon == 0
    assert not found.proof.holes


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_a_leak_that_has_its_witness_in_the_copy(attention, tmp_path):
    config = load("method1_v3_as_published").model.config
    config.update({"hidden_size": 2048, "num_attention_heads": 16, "num_key_value_heads": 4, "intermediate_size": 4096})
    config.update({"num_hidden_layers": 4, "vocab_size": 32000, "head_dim": 128})
    subject = loaded(config, tmp_path)
    found = examined(subject, attention)
    assert found.result.verdict is (Verdict.LEAK if attention == "sdpa" else Verdict.PROVEN)
    assert bool(found.proof.violations) == (attention == "sdpa")
    assert found.proof.horizons  # stages of the copy, with what is seen at full size


@pytest.mark.parametrize("name", ["cpmant", "prophetnet", "xlnet"])
def test_leaking_architectures_are_not_proven(name, tmp_path):
    layers = {"prophetnet": ("num_encoder_layers", "num_decoder_layers"), "xlnet": ("n_layer",)}
    config = AutoConfig.for_model(name, is_decoder=True)
    for field in layers.get(name, ("num_hidden_layers",)):
        setattr(config, field, 2)
    found = examined(loaded(config, tmp_path), "default" if name == "cpmant" else "eager")
    assert found.proof.violations
    assert found.result.verdict in (Verdict.LEAK, Verdict.SUSPECT)


@pytest.fixture
def single(monkeypatch):
    """Audits are of one configuration."""
    monkeypatch.setattr(leakcheck.auditing, "matrix", lambda subject, settings: [SDPA])


def with_forward(subject: Subject, forward) -> Subject:
    """The subject with another forward of the embedding at full size alone."""
    embedding = subject.full.model.get_input_embeddings()
    embedding.register_forward_hook(lambda module, args, output: forward(output))
    return subject


def test_a_violation_at_full_size_alone_is_a_suspicion(llama, single):
    subject = with_forward(llama, lambda x: x + x.roll(-1, 1))
    found = examined(subject, "sdpa")
    assert found.result.verdict is Verdict.SUSPECT
    assert found.sought == "the shrunken copy has none such"
    finding = audit(subject).findings[0]
    assert (finding.code, finding.message.startswith("at full size ")) == ("LC104", True)


def test_control_flow_at_full_size_is_open_and_named(llama):
    subject = with_forward(llama, lambda x: x if x.sum().item() > 0 else -x)
    found = examined(subject, "sdpa")
    assert found.result.verdict is Verdict.OPEN
    assert any(hole.place and hole.place.file == __file__ for hole in found.proof.holes)


def test_a_forward_that_stops_at_full_size_is_open(llama):
    def stops(x):
        raise RuntimeError("no way without weights")

    found = examined(with_forward(llama, stops), "sdpa")
    assert found.result.verdict is Verdict.OPEN
    assert "no way without weights" in found.proof.holes[0].carries


def test_a_witness_says_that_it_is_the_copys(llama, single):
    """The copy leaks, the full size does not."""

    def ahead(module, args, output):
        return output + output.roll(-1, 1)

    llama.model.get_input_embeddings().register_forward_hook(ahead)
    result = audit(llama)
    assert result.verdict is Verdict.LEAK
    leaks = [finding for finding in result.findings if finding.witness]
    assert {finding.witness["model"] for finding in leaks} == {"the shrunken copy"}
    refuted = next(finding for finding in result.findings if finding.code == "LC903")
    assert "proved at full size" in refuted.message
    assert "of the shrunken copy" in refuted.message
    written = report_json.render(result)
    assert report_json.render(report_json.read(written)) == written


def test_horizons_are_those_of_the_stage_at_its_worst_layer(llama):
    """At full size the last layer alone sees the future; every layer of the copy is told so."""
    full = llama.full.model
    full.model.layers[2].post_attention_layernorm.register_forward_hook(lambda module, args, output: output.flip(1))
    found = examined(llama, "sdpa")
    horizons = {c.module: c.horizon for c in found.checkpoints}
    assert horizons["model.layers.0.self_attn.q_proj"] == 0
    assert {horizons[f"model.layers.{n}.mlp"] for n in range(3)} == {12}
    assert horizons["lm_head"] == 12


def test_experts_that_are_looped_over_are_checked_in_the_copy(tmp_path):
    attention = {"rope_theta": 10000.0, "kv_n_heads": 8, "clip_qkv": 8.0}
    config = AutoConfig.for_model("dbrx", d_model=2048, n_heads=16, n_layers=2, attn_config=attention)
    found = examined(loaded(config, tmp_path), "eager")
    assert not [hole for hole in found.proof.holes if hole.op == "aten::nonzero"]


def test_the_line_of_a_subject_of_one_size_is_as_before(single):
    result = audit("llama")
    assert "full size" not in subject_line(result)
    assert result.subject.full_size is None
    shown = replace(result, subject=replace(result.subject, spec="x"))
    assert subject_line(shown).startswith("x: LlamaForCausalLM, 34,080 parameters, seq_len 13")
    assert json.loads(report_json.render(result))["subject"]["full_size"] is None
