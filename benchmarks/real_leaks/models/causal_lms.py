"""Causal language models of transformers, small: only their sizes differ from the library's own defaults."""

from typing import Any

import torch
import transformers
from torch import Tensor, nn

ATTENTION = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
TOKENS = {"vocab_size": 97, "max_position_embeddings": 64, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
# A state-space mixer twice as wide as the model, in chunks of four tokens.
MAMBA2 = {"chunk_size": 4, "n_groups": 2}


def made(name: str, config: str = "", **fields: Any) -> nn.Module:
    """`{name}ForCausalLM` of `{name}Config(**fields)`, or of the configuration class that is named."""
    configured = getattr(transformers, config or f"{name}Config")(**fields)
    return getattr(transformers, f"{name}ForCausalLM")(configured)


class Called(nn.Module):
    """A model called with nothing but tokens, so with its cache: leakcheck itself calls one without."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, ids: Tensor) -> Tensor:
        return self.model(ids).logits


class LeftPadded(nn.Module):
    """A model of which the first two tokens are padding; what it gives for these, which nobody reads, is zero."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, ids: Tensor) -> Tensor:
        mask = torch.ones_like(ids)
        mask[:, :2] = 0
        return self.model(ids, attention_mask=mask).logits * mask[..., None]


def mamba2() -> nn.Module:
    return made(
        "Mamba2", **TOKENS, **MAMBA2, hidden_size=32, num_hidden_layers=2, expand=2, head_dim=16, num_heads=4,
        state_size=8,
    )  # fmt: skip


def zamba2() -> nn.Module:
    return made(
        "Zamba2", **TOKENS, **ATTENTION, chunk_size=4, mamba_ngroups=2, mamba_d_state=8, mamba_headdim=16,
        n_mamba_heads=4, mamba_expand=2, num_mem_blocks=1, layers_block_type=["mamba", "hybrid"], adapter_rank=4,
        use_mem_rope=False,
    )  # fmt: skip


def nemotron_h() -> nn.Module:
    return made(
        "NemotronH", **TOKENS, **ATTENTION, chunk_size=4, n_groups=2, ssm_state_size=8,
        mamba_num_heads=4, mamba_head_dim=16, expand=2, num_key_value_heads=2, head_dim=8,
        layers_block_type=["mamba", "attention"],
    )  # fmt: skip


def bert_generation() -> nn.Module:
    config = transformers.BertGenerationConfig(**TOKENS, **ATTENTION, is_decoder=True)
    return Called(transformers.BertGenerationDecoder(config))


def roformer() -> nn.Module:
    return made("RoFormer", **TOKENS, **ATTENTION, embedding_size=32, is_decoder=True)


def rembert() -> nn.Module:
    return made("RemBert", **TOKENS, **ATTENTION, input_embedding_size=32, output_embedding_size=32, is_decoder=True)


def megatron_bert() -> nn.Module:
    return made("MegatronBert", **TOKENS, **ATTENTION, is_decoder=True)


def big_bird() -> nn.Module:
    return made("BigBird", **TOKENS, **ATTENTION, attention_type="original_full", is_decoder=True)


def doge() -> nn.Module:
    return made("Doge", **TOKENS, **ATTENTION, num_key_value_heads=2, keep_window_size=4)


def moshi() -> nn.Module:
    return made(
        "Moshi", **TOKENS, hidden_size=32, ffn_dim=64, num_hidden_layers=2, num_attention_heads=4, sliding_window=64,
        attn_implementation="eager",
    )  # fmt: skip


def recurrent_gemma() -> nn.Module:
    sizes = {**ATTENTION, "num_hidden_layers": 3, "lru_width": 32, "attention_window_size": 4}
    return Called(made("RecurrentGemma", **TOKENS, **sizes))


def llama4() -> nn.Module:
    return made(
        "Llama4", "Llama4TextConfig", **TOKENS, **ATTENTION, intermediate_size_mlp=64, num_key_value_heads=2,
        head_dim=8, num_local_experts=2, attention_chunk_size=64,
    )  # fmt: skip


def _glm_moe_dsa() -> nn.Module:
    return made(
        "GlmMoeDsa", **TOKENS, **ATTENTION, moe_intermediate_size=16, num_key_value_heads=4, n_routed_experts=4,
        n_group=1, topk_group=1, num_experts_per_tok=2, first_k_dense_replace=1, q_lora_rank=16, kv_lora_rank=16,
        qk_nope_head_dim=8, qk_rope_head_dim=8, v_head_dim=8, index_n_heads=4, index_head_dim=16, index_topk=4,
    )  # fmt: skip


def glm_moe_dsa() -> nn.Module:
    return Called(_glm_moe_dsa())


def glm_moe_dsa_padded() -> nn.Module:
    return LeftPadded(_glm_moe_dsa())


def prophetnet() -> nn.Module:
    return made(
        "ProphetNet", **TOKENS, hidden_size=32, decoder_ffn_dim=64, num_decoder_layers=2,
        num_decoder_attention_heads=4, encoder_ffn_dim=64, num_encoder_layers=2, num_encoder_attention_heads=4,
    )  # fmt: skip
