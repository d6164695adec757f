"""What differs between versions of transformers, from 4.47 on; everything else imports it from here.

Names and signatures are those of the newest version. For an older one stands what does the same there.
"""

import functools
import importlib
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
    "masking_utils",
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


def _imported(module: str, name: str, otherwise: Any) -> Any:
    """A name from the library, where this version has it."""
    try:
        return getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError):
        return otherwise


def _taking_its_annotations(config_class: Any) -> Any:
    """Give a configuration class a constructor that takes its annotated fields."""
    defaults = {name: getattr(config_class, name) for name in vars(config_class)["__annotations__"]}
    parent = config_class.__init__

    def construct(self: Any, **kwargs: Any) -> None:
        for name, default in defaults.items():
            setattr(self, name, kwargs.pop(name, default))
        parent(self, **kwargs)

    config_class.__init__ = construct
    return config_class


def _merging_use_cache(forward: Callable[..., Any]) -> Callable[..., Any]:
    """Take `use_cache` from the configuration, unless it is given."""

    @functools.wraps(forward)
    def merged(self: Any, *args: Any, use_cache: bool | None = None, **kwargs: Any) -> Any:
        use_cache = self.config.use_cache if use_cache is None else use_cache
        return forward(self, *args, use_cache=use_cache, **kwargs)

    return merged


def _capturing_nothing(forward: Callable[..., Any]) -> Callable[..., Any]:
    return forward


strict: Any = _taking_its_annotations
if is_dataclass(PreTrainedConfig):
    strict = _imported("huggingface_hub.dataclasses", "strict", None)
merge_with_config_defaults = _imported("transformers.utils.generic", "merge_with_config_defaults", _merging_use_cache)
capture_outputs = _imported("transformers.utils.output_capturing", "capture_outputs", _capturing_nothing)


def _mask_of_the_model(
    config: PreTrainedConfig,
    inputs_embeds: torch.Tensor,  # [batch, seq, hidden]
    attention_mask: torch.Tensor | None,  # [batch, kv]
    past_key_values: Cache | None,
    position_ids: torch.Tensor,  # [1, seq]
    allow_is_causal_skip: bool = True,
) -> torch.Tensor | None:
    """The additive mask `[batch, 1, seq, kv]`, or `None`, by the method that models had for it before 4.53."""
    llama: Any = LlamaModel
    model = SimpleNamespace(config=config, training=False)
    name = "_prepare_4d_causal_attention_mask_with_cache_position"
    setattr(model, name, getattr(llama, name))
    mask = llama._update_causal_mask(
        model, attention_mask, inputs_embeds, position_ids[0], past_key_values, not allow_is_causal_skip
    )
    # Without a padding mask it has one key too many; attention slices it.
    return None if mask is None else mask[..., : int(position_ids[0, -1]) + 1]


def _mask_without_option(
    config: PreTrainedConfig,
    inputs_embeds: torch.Tensor,  # [batch, seq, hidden]
    attention_mask: torch.Tensor | None,  # [batch, kv]
    past_key_values: Cache | None,
    position_ids: torch.Tensor,  # [1, seq]
    allow_is_causal_skip: bool = True,
) -> torch.Tensor | None:
    """The mask `[batch, 1, seq, kv]`, or `None`; a condition that always holds keeps it from being skipped."""
    options = {
        "input_embeds": inputs_embeds,
        "inputs_embeds": inputs_embeds,
        "cache_position": position_ids[0],
        "and_mask_function": None if allow_is_causal_skip else _always,
    }
    return _create_causal_mask(
        config=config,
        attention_mask=attention_mask,
        past_key_values=past_key_values,
        **{name: value for name, value in options.items() if name in _taken(_create_causal_mask)},
    )


def _always(batch: torch.Tensor, head: torch.Tensor, query: torch.Tensor, key: torch.Tensor) -> torch.Tensor:
    return key >= 0


def _taken(function: Callable[..., Any]) -> set[str]:
    return set(inspect.signature(function).parameters)


# The module that makes masks of positions that restart at each packed document; `None` before 4.53.
masking_utils: Any = _imported("transformers", "masking_utils", None)

_create_causal_mask = _imported("transformers.masking_utils", "create_causal_mask", _mask_of_the_model)
create_causal_mask = (
    _create_causal_mask if "allow_is_causal_skip" in _taken(_create_causal_mask) else _mask_without_option
)


def attention_arguments(past_key_values: Cache | None) -> dict[str, Any]:
    """What `LlamaAttention.forward` has to be given so that it uses the cache and returns its weights."""
    if _VERSION >= (4, 56):
        return {"past_key_values": past_key_values}
    return {"past_key_value": past_key_values, "output_attentions": True}


def make_room(cache: Any, index: int) -> None:
    """Let a cache have an entry of this number."""
    layer = _imported("transformers.cache_utils", "DynamicLayer", None)
    while layer is not None and len(cache.layers) <= index:  # before 4.54 it makes room by itself
        cache.layers.append(layer())


class _CheckpointedLayer(modeling_llama.LlamaDecoderLayer):
    """A layer that checkpoints itself, where the model's loop did it for its layers."""

    gradient_checkpointing = False

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        call = functools.partial(super().__call__, **kwargs)
        if not (self.gradient_checkpointing and self.training):
            return call(*args)
        checkpoint: Any = self._gradient_checkpointing_func
        return checkpoint(call, *args)


LlamaDecoderLayer: Any = _CheckpointedLayer
if hasattr(transformers, "GradientCheckpointingLayer"):  # 4.53
    LlamaDecoderLayer = modeling_llama.LlamaDecoderLayer
