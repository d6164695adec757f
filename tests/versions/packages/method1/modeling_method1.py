"""Method1_v3 as written for transformers 4.47: the mask comes from the library's own `_update_causal_mask`."""

import torch
from torch import nn
from transformers.cache_utils import Cache
from transformers.modeling_outputs import BaseModelOutputWithPast
from transformers.models.llama.modeling_llama import (
    LLAMA_ATTENTION_CLASSES,
    LlamaAttention,
    LlamaDecoderLayer,
    LlamaForCausalLM,
    LlamaModel,
)
from transformers.utils import logging

from .configuration_method1 import Method1Config_v3
from .replay import replay_attention

logger = logging.get_logger(__name__)


class Method1LlamaAttention_v3(LlamaAttention):
    def forward(
        self,
        hidden_states: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        position_ids: torch.LongTensor | None = None,
        past_key_value: Cache | None = None,
        output_attentions: bool = False,
        use_cache: bool = False,
        cache_position: torch.LongTensor | None = None,
        position_embeddings: tuple[torch.Tensor, torch.Tensor] | None = None,
        **kwargs,
    ):
        # The replay needs the weights, whatever the caller wants to see.
        return super().forward(
            hidden_states=hidden_states,
            attention_mask=attention_mask,
            position_ids=position_ids,
            past_key_value=past_key_value,
            output_attentions=True,
            use_cache=use_cache,
            cache_position=cache_position,
            position_embeddings=position_embeddings,
            **kwargs,
        )

    def forward_with_precomputed_weights(
        self,
        hidden_states: torch.Tensor,
        attn_weights: torch.Tensor,
        v_proj_weight: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        apply_strict_causal_mask: bool = True,
    ) -> torch.Tensor:
        if apply_strict_causal_mask and attention_mask is not None:
            current, stored = attention_mask.shape[-1], attn_weights.shape[-1]
            if current <= stored:
                trimmed_attn_weights = attn_weights[:, :, :, :current]
                causal_mask = attention_mask[:, :, : hidden_states.shape[1], :current]
                masked_weights = trimmed_attn_weights + causal_mask
                attn_weights = nn.functional.softmax(masked_weights, dim=-1)
            else:
                logger.warning_once("the stored weights are shorter than the mask")
        return replay_attention(self, hidden_states, attn_weights, v_proj_weight)


class Method1DecoderLayer_v3(LlamaDecoderLayer):
    def __init__(self, config: Method1Config_v3, layer_idx: int):
        super().__init__(config, layer_idx)
        self.self_attn = Method1LlamaAttention_v3(config=config, layer_idx=layer_idx)

    def forward(
        self,
        hidden_states: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        position_ids: torch.LongTensor | None = None,
        cache_position: torch.LongTensor | None = None,
        position_embeddings: tuple[torch.Tensor, torch.Tensor] | None = None,
        previous_mlp_outputs: list[torch.Tensor] | None = None,
    ):
        residual = hidden_states
        hidden_states, attn_weights, _ = self.self_attn(
            hidden_states=self.input_layernorm(hidden_states),
            attention_mask=attention_mask,
            position_ids=position_ids,
            cache_position=cache_position,
            position_embeddings=position_embeddings,
        )
        hidden_states = residual + hidden_states
        mlp_output = self.mlp(self.post_attention_layernorm(hidden_states))
        if previous_mlp_outputs:
            hidden_states = sum(previous_mlp_outputs) + mlp_output
        else:
            hidden_states = hidden_states + mlp_output
        record = {
            "attn_weights": attn_weights,
            "v_proj_weight": self.self_attn.v_proj.weight,
            "mlp": self.mlp,
            "post_attention_layernorm": self.post_attention_layernorm,
        }
        return hidden_states, record


class Method1LlamaModel_v3(LlamaModel):
    config_class = Method1Config_v3

    def __init__(self, config: Method1Config_v3):
        super().__init__(config)
        self.layers = nn.ModuleList([Method1DecoderLayer_v3(config, i) for i in range(config.num_hidden_layers)])
        self.post_init()

    def _recompute_previous_mlp_outputs(
        self,
        hidden_states: torch.Tensor,
        stored_weights: list[dict],
        attention_mask: torch.Tensor | None,
        position_ids: torch.LongTensor,
        cache_position: torch.LongTensor,
    ) -> list[torch.Tensor]:
        outputs = []
        for i, weights in enumerate(stored_weights):
            layer = self.layers[i]
            attn_output = layer.self_attn.forward_with_precomputed_weights(
                layer.input_layernorm(hidden_states),
                attn_weights=weights["attn_weights"],
                v_proj_weight=weights["v_proj_weight"],
                attention_mask=attention_mask,
                apply_strict_causal_mask=True,
            )
            outputs.append(weights["mlp"](weights["post_attention_layernorm"](hidden_states + attn_output)))
        return outputs

    def forward(
        self,
        input_ids: torch.LongTensor | None = None,
        attention_mask: torch.Tensor | None = None,
        position_ids: torch.LongTensor | None = None,
        past_key_values: Cache | None = None,
        inputs_embeds: torch.FloatTensor | None = None,
        use_cache: bool | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
        cache_position: torch.LongTensor | None = None,
        **kwargs,
    ):
        output_attentions = output_attentions if output_attentions is not None else self.config.output_attentions
        if inputs_embeds is None:
            inputs_embeds = self.embed_tokens(input_ids)
        if cache_position is None:
            cache_position = torch.arange(inputs_embeds.shape[1], device=inputs_embeds.device)
        if position_ids is None:
            position_ids = cache_position.unsqueeze(0)

        causal_mask = self._update_causal_mask(
            attention_mask, inputs_embeds, cache_position, past_key_values, output_attentions
        )
        hidden_states = inputs_embeds
        position_embeddings = self.rotary_emb(hidden_states, position_ids)

        stored_weights = []
        for layer_idx, decoder_layer in enumerate(self.layers):
            previous_mlp_outputs = None
            if layer_idx > 0:
                previous_mlp_outputs = self._recompute_previous_mlp_outputs(
                    hidden_states, stored_weights, causal_mask, position_ids, cache_position
                )
            if self.gradient_checkpointing and self.training:
                layer_outputs = self._gradient_checkpointing_func(
                    decoder_layer.__call__,
                    hidden_states,
                    causal_mask,
                    position_ids,
                    cache_position,
                    position_embeddings,
                    previous_mlp_outputs,
                )
            else:
                layer_outputs = decoder_layer(
                    hidden_states,
                    attention_mask=causal_mask,
                    position_ids=position_ids,
                    cache_position=cache_position,
                    position_embeddings=position_embeddings,
                    previous_mlp_outputs=previous_mlp_outputs,
                )
            hidden_states = layer_outputs[0]
            current_weights = layer_outputs[1]
            stored_weights.append(current_weights)

        return BaseModelOutputWithPast(last_hidden_state=self.norm(hidden_states))


class Method1LlamaForCausalLM_v3(LlamaForCausalLM):
    config_class = Method1Config_v3

    def __init__(self, config: Method1Config_v3):
        super().__init__(config)
        self.model = Method1LlamaModel_v3(config)
        self.post_init()


LLAMA_ATTENTION_CLASSES["method1"] = Method1LlamaAttention_v3
