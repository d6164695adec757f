import torch
from torch import nn
from transformers.models.llama.modeling_llama import repeat_kv


def replay_attention(
    attention: nn.Module,
    hidden_states: torch.Tensor,  # [batch, seq, hidden]
    attn_weights: torch.Tensor,  # [batch, heads, seq, kv]
    v_proj_weight: torch.Tensor,  # [kv_heads * head_dim, hidden]
) -> torch.Tensor:
    batch, seq, _ = hidden_states.shape
    value_states = nn.functional.linear(hidden_states, v_proj_weight)
    value_states = value_states.view(batch, seq, attention.num_key_value_heads, attention.head_dim).transpose(1, 2)
    value_states = repeat_kv(value_states, attention.num_key_value_groups)
    attn_output = torch.matmul(attn_weights, value_states).transpose(1, 2).contiguous()
    return attention.o_proj(attn_output.reshape(batch, seq, -1))
