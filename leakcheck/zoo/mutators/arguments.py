"""Mutators that change what the model's layers are called with."""

import inspect
from collections.abc import Callable
from typing import Any

from torch import nn

from leakcheck.zoo.mutators.modules import layers_of
from leakcheck.zoo.registry import Inapplicable, mutator


def lose_mask(layer: nn.Module, when: Callable[[nn.Module], bool]) -> None:
    """Call `layer` without its attention mask `when` it says so.

    Raises:
        Inapplicable: it takes none.
    """
    signature = inspect.signature(layer.forward)
    if "attention_mask" not in signature.parameters:
        raise Inapplicable(f"{type(layer).__name__} takes no attention mask")

    def hand_on(module: nn.Module, args: tuple, kwargs: dict[str, Any]) -> tuple[tuple, dict[str, Any]]:
        bound = signature.bind(*args, **kwargs)
        if when(module):
            bound.arguments["attention_mask"] = None
        return bound.args, bound.kwargs

    layer.register_forward_pre_hook(hand_on, with_kwargs=True)


@mutator(
    hosts=("llama", "gpt2"),
    attention="eager",
    blamed=False,  # flow names the library's line where the values come in
    learned_from="https://github.com/huggingface/transformers/issues/27819",
)
def one_layer_gets_no_mask(model: nn.Module, leaky: bool) -> nn.Module:
    """One layer of many is called without the mask, in a backend that masks by nothing else."""
    lose_mask(layers_of(model)[-1], lambda layer: leaky)  # leak
    return model


@mutator(
    hosts=("llama", "mistral"),
    attention="eager",
    mode="train+checkpointing",
    blamed=False,  # flow names the library's line where the values come in
    learned_from="https://github.com/lightly-ai/lightly/issues/2049",
)
def mask_is_lost_when_recomputed(model: nn.Module, leaky: bool) -> nn.Module:
    """The call of a layer under gradient checkpointing hands on the hidden states and forgets the mask.

    Raises:
        Inapplicable: no layer has gradient checkpointing.
    """
    for layer in layers_of(model):
        if not hasattr(layer, "gradient_checkpointing"):
            raise Inapplicable(f"{type(model).__name__} has no gradient checkpointing")
        lose_mask(layer, lambda layer: leaky and layer.training and bool(layer.gradient_checkpointing))  # leak
    return model
