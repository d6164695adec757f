"""Mutators that let a module of the model read its neighbours."""

from collections.abc import Callable

import torch.nn.functional as F
from torch import Tensor, nn

from leakcheck.zoo.registry import Inapplicable, mutator


def layers_of(model: nn.Module) -> nn.ModuleList:
    """The model's layers: its longest list of modules.

    Raises:
        Inapplicable: it has none.
    """
    lists = [module for module in model.modules() if isinstance(module, nn.ModuleList) and len(module)]
    if not lists:
        raise Inapplicable(f"{type(model).__name__} has no list of layers")
    return max(lists, key=len)


def hidden_of(output: Tensor | tuple, change: Callable[[Tensor], Tensor]) -> Tensor | tuple:
    """A layer's output with its hidden states `[batch, seq, hidden]` changed; they come first in a tuple."""
    return (change(output[0]), *output[1:]) if isinstance(output, tuple) else change(output)


@mutator(hosts=("llama", "gpt2"), learned_from="https://github.com/huggingface/transformers/issues/38368")
def last_layer_reads_successor(model: nn.Module, leaky: bool) -> nn.Module:
    """The output of the last layer holds what the next position has."""

    def read(module: nn.Module, args: tuple, output: Tensor | tuple) -> Tensor | tuple:
        return hidden_of(output, lambda x: x + F.pad(x, (0, 0, -1, 1) if leaky else (0, 0, 1, -1)))  # leak

    layers_of(model)[-1].register_forward_hook(read)
    return model
