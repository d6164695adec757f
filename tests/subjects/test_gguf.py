"""A GGUF file, written here with the package that defines the format."""

import importlib.util

import pytest
import torch
from transformers import LlamaForCausalLM

from leakcheck import audit
from leakcheck.config import Settings
from leakcheck.findings import Verdict
from leakcheck.subjects import gguf as reading
from leakcheck.subjects.load import load

from .helpers import refusal, run

needs_gguf = pytest.mark.skipif(
    any(importlib.util.find_spec(name) is None for name in reading.NEEDED), reason="the extra `gguf` is not installed"
)

# As llama.cpp names them; queries and keys lie in the order that its rotation wants.
NAMES = {
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
}


def write(path, model: LlamaForCausalLM, *, architecture: str = "llama") -> None:
    import gguf

    config = model.config
    writer = gguf.GGUFWriter(path, architecture)
    writer.add_name("tiny")
    writer.add_block_count(config.num_hidden_layers)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    writer.add_vocab_size(config.vocab_size)
    writer.add_tokenizer_model("llama")
    writer.add_token_list([f"<{i}>" for i in range(config.vocab_size)])
    writer.add_token_scores([0.0] * config.vocab_size)
    writer.add_token_types([1] * config.vocab_size)
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_unk_token_id(0)
    for name, tensor in model.state_dict().items():
        for ours, theirs in NAMES.items():
            name = name.replace(f".{ours}.", f".{theirs}.")
        heads = {"attn_q": config.num_attention_heads, "attn_k": config.num_key_value_heads}.get(name.split(".")[-2])
        if heads:
            tensor = tensor.unflatten(0, (heads, 2, -1)).transpose(1, 2).flatten(0, 2)
        name = name.replace("model.layers.", "blk.").replace("model.embed_tokens", "token_embd")
        name = name.replace("model.norm", "output_norm").replace("lm_head", "output")
        writer.add_tensor(name, tensor.numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


@needs_gguf
def test_weights_are_those_in_the_file(tmp_path):
    saved = load("llama")
    write(tmp_path / "tiny.gguf", saved.model)
    loaded = load(str(tmp_path / "tiny.gguf"))
    assert type(loaded.model) is type(saved.model)
    assert (loaded.weights, loaded.vocab_size) == ("given (dequantised)", saved.vocab_size)
    assert torch.allclose(run(loaded), run(saved), atol=1e-5)


@needs_gguf
def test_file_is_audited(tmp_path):
    write(tmp_path / "tiny.gguf", load("llama").model)
    result = audit(str(tmp_path / "tiny.gguf"), Settings(attention=("sdpa",), seq_len=7))
    assert result.verdict is Verdict.PROVEN
    assert len(result.configurations) == 12  # float64 and other backends are open to what was quantised, too


@needs_gguf
def test_architecture_that_transformers_cannot_read(tmp_path):
    write(tmp_path / "tiny.gguf", load("llama").model, architecture="clip")
    assert "could not be loaded: ValueError: GGUF model with architecture clip is not supported" in refusal(
        tmp_path / "tiny.gguf"
    )


@needs_gguf
@pytest.mark.parametrize("content", [b"", b"PK\3\4", b"GGUF", b"GGUF\3\0\0\0" + bytes(40)])
def test_no_gguf_file(content, tmp_path):
    path = tmp_path / "broken.gguf"
    path.write_bytes(content)
    assert str(path) in refusal(path)


def test_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setattr(reading, "find_spec", lambda name: None)
    (tmp_path / "tiny.gguf").write_bytes(b"GGUF")
    assert "reading GGUF needs gguf and accelerate: pip install gguf accelerate" in refusal(tmp_path / "tiny.gguf")
