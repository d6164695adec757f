"""Method1_v3: a LLaMA whose layers replay the attention of every earlier layer on their own input.

Class and method names are those of the hand-written mask trace, so that its 14 stages can be located in this file.
Notation as there: layer `l` has input norm `n_l`, attention `W^V_l, W^O_l`, post-attention norm `p_l`, MLP `f_l`;
`A_l` are its attention weights, `x_l` its input.
"""

import copy

import torch
from torch import nn
from transformers import LlamaForCausalLM, LlamaModel
from transformers.cache_utils import Cache, DynamicCache
from transformers.modeling_outputs import BaseModelOutputWithPast
from transformers.models.llama.modeling_llama import LlamaAttention, repeat_kv
from transformers.utils import logging

from leakcheck.subjects.library import (
    LlamaDecoderLayer,
    attention_arguments,
    capture_outputs,
    create_causal_mask,
    make_room,
    merge_with_config_defaults,
)

from .configuration_method1_v3 import Method1Config_v3

logger = logging.get_logger(__name__)


class Method1LlamaAttention_v3(LlamaAttention):
    """LLaMA attention that can also run with attention weights computed earlier."""

    def __init__(self, config: Method1Config_v3, layer_idx: int):
        # The replay needs the attention weights. Only the eager kernel returns them, so this module runs eagerly
        # whatever the model's backend is, on a configuration of its own.
        eager_config = copy.copy(config)
        eager_config._attn_implementation = "eager"
        super().__init__(eager_config, layer_idx)

    def forward(
        self,
        hidden_states: torch.Tensor,  # [batch, seq, hidden]
        position_embeddings: tuple[torch.Tensor, torch.Tensor] | None = None,
        attention_mask: torch.Tensor | None = None,  # [batch, 1, seq, kv]
        past_key_values: Cache | None = None,
        **kwargs,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Returns the output `[batch, seq, hidden]` and the weights `[batch, heads, seq, kv]`."""
        if not self.config.safety_parent_mask:
            attention_mask = None
        return super().forward(
            hidden_states,
            position_embeddings=position_embeddings,
            attention_mask=attention_mask,
            **attention_arguments(past_key_values),
            **kwargs,
        )[:2]

    def forward_with_precomputed_weights(
        self,
        hidden_states: torch.Tensor,  # [batch, seq, hidden], normed by this layer's input norm
        attn_weights: torch.Tensor,  # [batch, heads, seq, kv], stored when this layer ran
        v_proj_weight: torch.Tensor,  # [kv_heads * head_dim, hidden]
        attention_mask: torch.Tensor | None = None,  # [batch, 1, seq, kv]
        past_key_values: Cache | None = None,
        cache_index: int | None = None,
        apply_strict_causal_mask: bool = True,
    ) -> torch.Tensor:
        """Attention output `[batch, seq, hidden]` from stored weights and fresh values; Q and K are not recomputed."""
        batch, seq = hidden_states.shape[:2]

        if apply_strict_causal_mask and attention_mask is not None:
            current, stored = attention_mask.shape[-1], attn_weights.shape[-1]
            if current <= stored or not self.config.safety_length_check:
                trimmed_attn_weights = attn_weights[:, :, :seq, :current]
                causal_mask = attention_mask[:, :, :seq, :current]
                masked_weights = trimmed_attn_weights + causal_mask
                attn_weights = nn.functional.softmax(masked_weights, dim=-1)
            else:
                logger.warning_once(f"cannot re-mask: {current} keys now, {stored} when the weights were stored")

        value_states = nn.functional.linear(hidden_states, v_proj_weight)
        value_states = value_states.view(batch, seq, -1, self.head_dim).transpose(1, 2)  # [batch, kv_heads, seq, dim]
        if past_key_values is not None:
            make_room(past_key_values, cache_index)
            _, value_states = past_key_values.update(value_states, value_states, cache_index)
        value_states = repeat_kv(value_states, self.num_key_value_groups)  # [batch, heads, kv, dim]

        attn_output = torch.matmul(attn_weights, value_states)  # [batch, heads, seq, dim]
        attn_output = attn_output.transpose(1, 2).reshape(batch, seq, -1)
        return self.o_proj(attn_output)


class Method1DecoderLayer_v3(LlamaDecoderLayer):
    """Decoder layer that merges the replayed outputs of earlier layers and records what later layers replay."""

    def __init__(self, config: Method1Config_v3, layer_idx: int):
        super().__init__(config, layer_idx)
        self.merge_attention_output = config.merge_attention_output
        self.self_attn = Method1LlamaAttention_v3(config, layer_idx)

    def forward(
        self,
        hidden_states: torch.Tensor,  # x_l: [batch, seq, hidden]
        attention_mask: torch.Tensor | None = None,  # [batch, 1, seq, kv]
        position_ids: torch.Tensor | None = None,
        past_key_values: Cache | None = None,
        position_embeddings: tuple[torch.Tensor, torch.Tensor] | None = None,
        previous_mlp_outputs: list[torch.Tensor] | None = None,  # r_i(x_l) for every i < l, each [batch, seq, hidden]
        **kwargs,
    ) -> tuple[torch.Tensor, dict]:
        """Returns `x_{l+1}` and the record `{attn_weights, v_proj_weight, mlp, post_attention_layernorm}`."""
        attn_output, attn_weights = self.self_attn(
            hidden_states=self.input_layernorm(hidden_states),
            attention_mask=attention_mask,
            position_ids=position_ids,
            past_key_values=past_key_values,
            position_embeddings=position_embeddings,
            **kwargs,
        )
        attended = hidden_states + attn_output  # h_l
        merged = self.mlp(self.post_attention_layernorm(attended))  # m_l
        if previous_mlp_outputs is None:
            merged = attended + merged
        else:
            merged = sum(previous_mlp_outputs) + merged
            if self.merge_attention_output:
                merged = merged + attended

        record = {
            "attn_weights": attn_weights,
            "v_proj_weight": self.self_attn.v_proj.weight,
            "mlp": self.mlp,
            "post_attention_layernorm": self.post_attention_layernorm,
        }
        return merged, record


class Method1LlamaModel_v3(LlamaModel):
    """LLaMA's decoder stack with the recompute path between its layers."""

    config_class = Method1Config_v3

    def __init__(self, config: Method1Config_v3):
        super().__init__(config)
        self.layers = nn.ModuleList([Method1DecoderLayer_v3(config, i) for i in range(config.num_hidden_layers)])
        self.post_init()

    def _update_causal_mask(
        self,
        attention_mask: torch.Tensor | None,  # [batch, kv], 0 where padded
        inputs_embeds: torch.Tensor,  # [batch, seq, hidden]
        cache_position: torch.Tensor,  # [seq]
        past_key_values: Cache | None,
        output_attentions: bool = False,
    ) -> torch.Tensor | None:
        """The additive mask `[batch, 1, seq, kv]`, or `None` where the library thinks that its kernel masks by itself.

        transformers dropped `LlamaModel._update_causal_mask` in 4.53; this keeps its signature over the library's
        `masking_utils.create_causal_mask`.
        """
        causal_mask = create_causal_mask(
            config=self.config,
            inputs_embeds=inputs_embeds,
            attention_mask=attention_mask,
            past_key_values=past_key_values,
            position_ids=cache_position.unsqueeze(0),
            allow_is_causal_skip=not (self.config.materialize_causal_mask or output_attentions),
        )
        if causal_mask is not None and causal_mask.dtype == torch.bool:
            # The sdpa mask is boolean; the eager kernel adds its mask to the scores.
            blocked = torch.finfo(inputs_embeds.dtype).min
            causal_mask = torch.zeros_like(causal_mask, dtype=inputs_embeds.dtype).masked_fill(~causal_mask, blocked)
        return causal_mask

    def _recompute_previous_mlp_outputs(
        self,
        hidden_states: torch.Tensor,  # x_l: [batch, seq, hidden]
        stored_weights: list[dict],  # one record for each earlier layer
        attention_mask: torch.Tensor | None,  # [batch, 1, seq, kv]
        position_ids: torch.Tensor,
        cache_position: torch.Tensor,
        past_key_values: Cache | None = None,
    ) -> list[torch.Tensor]:
        """`r_i(x_l)` for every earlier layer `i`, each `[batch, seq, hidden]`: no residual around the MLP."""
        first_replay = len(self.layers) + len(stored_weights) * (len(stored_weights) - 1) // 2
        outputs = []
        for i, record in enumerate(stored_weights):
            layer = self.layers[i]
            attn_output = layer.self_attn.forward_with_precomputed_weights(
                layer.input_layernorm(hidden_states),
                attn_weights=record["attn_weights"],
                v_proj_weight=record["v_proj_weight"],
                attention_mask=attention_mask,
                past_key_values=past_key_values,
                cache_index=first_replay + i,
                apply_strict_causal_mask=self.config.safety_strict_remask,
            )
            outputs.append(record["mlp"](record["post_attention_layernorm"](hidden_states + attn_output)))
        return outputs

    @merge_with_config_defaults
    @capture_outputs
    def forward(
        self,
        input_ids: torch.LongTensor | None = None,  # [batch, seq]
        attention_mask: torch.Tensor | None = None,  # [batch, kv]
        position_ids: torch.LongTensor | None = None,  # [batch, seq]
        past_key_values: Cache | None = None,
        inputs_embeds: torch.Tensor | None = None,  # [batch, seq, hidden]
        use_cache: bool | None = None,
        output_attentions: bool = False,
        **kwargs,
    ) -> BaseModelOutputWithPast:
        if (input_ids is None) == (inputs_embeds is None):
            raise ValueError("give exactly one of input_ids and inputs_embeds")
        if inputs_embeds is None:
            inputs_embeds = self.embed_tokens(input_ids)
        if self.gradient_checkpointing and self.training:
            use_cache, past_key_values = False, None
        if use_cache and past_key_values is None:
            past_key_values = DynamicCache()

        seen = past_key_values.get_seq_length() if past_key_values is not None else 0
        cache_position = torch.arange(seen, seen + inputs_embeds.shape[1], device=inputs_embeds.device)
        if position_ids is None:
            position_ids = cache_position.unsqueeze(0)
        position_embeddings = self.rotary_emb(inputs_embeds, position_ids=position_ids)

        causal_mask = self._update_causal_mask(
            attention_mask, inputs_embeds, cache_position, past_key_values, output_attentions
        )

        hidden_states = inputs_embeds
        stored_weights: list[dict] = []
        for layer_idx, decoder_layer in enumerate(self.layers):
            previous_mlp_outputs = None
            if layer_idx > 0:
                # A copy of the list: a checkpointed call runs again after later layers have appended to it.
                recompute_args = (hidden_states, list(stored_weights), causal_mask, position_ids, cache_position)
                if self.gradient_checkpointing and self.training:
                    previous_mlp_outputs = self._gradient_checkpointing_func(
                        self._recompute_previous_mlp_outputs, *recompute_args
                    )
                else:
                    previous_mlp_outputs = self._recompute_previous_mlp_outputs(*recompute_args, past_key_values)

            layer_outputs = decoder_layer(
                hidden_states,
                attention_mask=causal_mask,
                position_ids=position_ids,
                past_key_values=past_key_values,
                position_embeddings=position_embeddings,
                previous_mlp_outputs=previous_mlp_outputs,
                **kwargs,
            )
            hidden_states = layer_outputs[0]
            current_weights = layer_outputs[1]
            stored_weights.append(current_weights)

        return BaseModelOutputWithPast(last_hidden_state=self.norm(hidden_states), past_key_values=past_key_values)


class Method1LlamaForCausalLM_v3(LlamaForCausalLM):
    """Method1_v3 with a language-model head."""

    config_class = Method1Config_v3

    def __init__(self, config: Method1Config_v3):
        super().__init__(config)
        self.model = Method1LlamaModel_v3(config)
        self.post_init()
