"""What differs between versions of transformers, from 4.47 on; everything else imports it from here.

Names and signatures are those of the newest version. For an older one stands what does the same there.
"""

import functools
import inspect
from collections.abc import Callable
from dataclasses import fields, is_dataclass
from types import SimpleNamespace
from typing import Any

import torch
import transformers
from transformers import LlamaModel, PreTrainedModel
from transformers import PretrainedConfig as PreTrainedConfig  # the older name is there in every version
from transformers.cache_utils import Cache
from transformers.models.llama import modeling_llama

__all__ = [
    "IN_FLOAT32",
    "SWITCHES_ATTENTION",
    "SWITCHES_EXPERTS",
    "LlamaDecoderLayer",
    "PreTrainedConfig",
    "attention_arguments",
    "capture_outputs",
    "constructor_fields",
    "create_causal_mask",
    "make_room",
    "merge_with_config_defaults",
    "strict",
]

_VERSION = tuple(int(part) for part in transformers.__version__.split(".")[:2])

# For `from_pretrained`, `from_config` and `_from_config`.
IN_FLOAT32: dict[str, Any] = {"dtype" if _VERSION >= (4, 56) else "torch_dtype": torch.float32}

# Whether a model can take another attention backend after it was built; before 4.54 its constructor chose for good.
SWITCHES_ATTENTION = hasattr(PreTrainedModel, "set_attn_implementation")

# Whether there are several ways to run experts.
SWITCHES_EXPERTS = hasattr(PreTrainedModel, "set_experts_implementation")


def constructor_fields(config_class: type[PreTrainedConfig]) -> set[str]:
    """The fields that a configuration is made from, those that its base classes take included."""
    if is_dataclass(config_class):
        return {field.name for field in fields(config_class)}
    names = set(vars(PreTrainedConfig()))
    for base in config_class.__mro__[:-1]:
        names |= vars(base).get("__annotations__", {}).keys()
        names |= inspect.signature(base.__init__).parameters.keys()
    return names - {"self", "kwargs"}


# --- what Method1_v3 is built on --------------------------------------------------------------------------------------

if is_dataclass(PreTrainedConfig):
    from huggingface_hub.dataclasses import strict
else:

    def strict(config_class: type) -> type:
        """Give a configuration class a constructor that takes its annotated fields."""
        defaults = {name: getattr(config_class, name) for name in vars(config_class)["__annotations__"]}
        parent: Callable[..., None] = config_class.__init__  # type: ignore[misc]

        def construct(self: Any, **kwargs: Any) -> None:
            for name, default in defaults.items():
                setattr(self, name, kwargs.pop(name, default))
            parent(self, **kwargs)

        config_class.__init__ = construct  # type: ignore[misc]
        return config_class


try:
    from transformers.utils.generic import merge_with_config_defaults
    from transformers.utils.output_capturing import capture_outputs
except ImportError:

    def capture_outputs(forward: Callable) -> Callable:
        """Nothing: what a model was asked to return beside its output is not captured."""
        return forward

    def merge_with_config_defaults(forward: Callable) -> Callable:
        """`use_cache` from the configuration, unless it is given."""

        @functools.wraps(forward)
        def merged(self: Any, *args: Any, use_cache: bool | None = None, **kwargs: Any) -> Any:
            use_cache = self.config.use_cache if use_cache is None else use_cache
            return forward(self, *args, use_cache=use_cache, **kwargs)

        return merged


try:
    from transformers import masking_utils
except ImportError:  # before 4.53
    masking_utils = None  # type: ignore[assignment]

if masking_utils is None:

    def create_causal_mask(
        config: PreTrainedConfig,
        inputs_embeds: torch.Tensor,  # [batch, seq, hidden]
        attention_mask: torch.Tensor | None,  # [batch, kv]
        past_key_values: Cache | None,
        position_ids: torch.Tensor,  # [1, seq]
        allow_is_causal_skip: bool = True,
    ) -> torch.Tensor | None:
        """The additive mask `[batch, 1, seq, kv]`, or `None`, of the method that the models had for it."""
        model: Any = SimpleNamespace(
            config=config,
            training=False,
            _prepare_4d_causal_attention_mask_with_cache_position=(
                LlamaModel._prepare_4d_causal_attention_mask_with_cache_position
            ),
        )
        mask = LlamaModel._update_causal_mask(
            model, attention_mask, inputs_embeds, position_ids[0], past_key_values, not allow_is_causal_skip
        )
        # Without a padding mask it has one key too many; attention slices it.
        return None if mask is None else mask[..., : int(position_ids[0, -1]) + 1]

elif "allow_is_causal_skip" in inspect.signature(masking_utils.create_causal_mask).parameters:
    create_causal_mask = masking_utils.create_causal_mask
else:

    def create_causal_mask(
        config: PreTrainedConfig,
        inputs_embeds: torch.Tensor,  # [batch, seq, hidden]
        attention_mask: torch.Tensor | None,  # [batch, kv]
        past_key_values: Cache | None,
        position_ids: torch.Tensor,  # [1, seq]
        allow_is_causal_skip: bool = True,
    ) -> torch.Tensor | None:
        """The mask `[batch, 1, seq, kv]`, or `None`; a condition of one's own keeps it from being skipped."""
        known = inspect.signature(masking_utils.create_causal_mask).parameters
        options: dict[str, Any] = {
            "inputs_embeds": inputs_embeds,
            "input_embeds": inputs_embeds,
            "cache_position": position_ids[0],
            "and_mask_function": None if allow_is_causal_skip else _everywhere,
        }
        return masking_utils.create_causal_mask(
            config=config,
            attention_mask=attention_mask,
            past_key_values=past_key_values,
            **{name: value for name, value in options.items() if name in known},
        )

    def _everywhere(batch: torch.Tensor, head: torch.Tensor, query: torch.Tensor, key: torch.Tensor) -> torch.Tensor:
        return key >= 0


def attention_arguments(past_key_values: Cache | None) -> dict[str, Any]:
    """What `LlamaAttention.forward` has to be given so that it uses the cache and returns its weights."""
    if _VERSION >= (4, 56):
        return {"past_key_values": past_key_values}
    return {"past_key_value": past_key_values, "output_attentions": True}


def make_room(cache: Cache, index: int) -> None:
    """Let a cache have an entry of this number."""
    if hasattr(cache, "layers"):  # before 4.54 it grows by itself
        from transformers.cache_utils import DynamicLayer

        while len(cache.layers) <= index:
            cache.layers.append(DynamicLayer())


if hasattr(transformers, "GradientCheckpointingLayer"):
    LlamaDecoderLayer = modeling_llama.LlamaDecoderLayer
else:

    class LlamaDecoderLayer(modeling_llama.LlamaDecoderLayer):  # type: ignore[no-redef]
        """A layer that checkpoints itself; before 4.53 the model's loop did it for its layers."""

        gradient_checkpointing = False

        def __call__(self, *args: Any, **kwargs: Any) -> Any:
            call = functools.partial(super().__call__, **kwargs)
            checkpointed = self.gradient_checkpointing and self.training
            return self._gradient_checkpointing_func(call, *args) if checkpointed else call(*args)
