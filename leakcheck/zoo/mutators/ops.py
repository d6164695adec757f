"""Mutators that break an op wherever the model calls it."""

from collections.abc import Callable
from typing import Any
from unittest import mock

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from leakcheck.config import Configuration
from leakcheck.subjects import backends, running
from leakcheck.zoo.registry import Inapplicable, mutator

_TOKENS = 4  # of the forward that tells whether the model calls an op


def replace_op(model: nn.Module, owner: Any, name: str, broken: Callable[..., Any]) -> None:
    """While `model` runs, `owner.name` is `broken(original, ...)`.

    Raises:
        Inapplicable: no attention backend of the model calls it.
    """
    original, called, entered = getattr(owner, name), [], []

    def replaced(*args: Any, **kwargs: Any) -> Any:
        called.append(True)
        return broken(original, *args, **kwargs)

    def enter(module: nn.Module, args: tuple) -> None:
        patch = mock.patch.object(owner, name, replaced)
        patch.start()
        entered.append(patch)

    def leave(module: nn.Module, args: tuple, output: Any) -> None:
        entered.pop().stop()

    model.register_forward_pre_hook(enter)
    model.register_forward_hook(leave, always_call=True)
    for attention in backends.available(model):
        configuration = Configuration(attention, "none", "eval")
        with running.configured(model, configuration), torch.no_grad():
            running.forward(model, torch.zeros(1, _TOKENS, dtype=torch.long), configuration)
    if not called:
        raise Inapplicable(f"{type(model).__name__} never calls {name}")


@mutator(
    hosts=("llama", "gpt2"),
    attention="sdpa",
    learned_from="https://github.com/huggingface/transformers/pull/48769",
)
def fused_attention_is_not_causal(model: nn.Module, leaky: bool) -> nn.Module:
    """The fused kernel is called without its causal flag, and without a mask."""

    def attend(original: Callable, q: Tensor, k: Tensor, v: Tensor, attn_mask: Any = None, **options: Any) -> Tensor:
        if leaky:
            attn_mask, options["is_causal"] = None, False
        return original(q, k, v, attn_mask=attn_mask, **options)  # leak

    replace_op(model, F, "scaled_dot_product_attention", attend)
    return model


@mutator(
    hosts=("llama", "mistral"),
    attention="eager",
    learned_from="https://github.com/labmlai/annotated_deep_learning_paper_implementations/issues/146",
)
def softmax_over_queries(model: nn.Module, leaky: bool) -> nn.Module:
    """Scores are normalised over the queries, so that the weights of a query depend on later ones."""

    def softmax(original: Callable, x: Tensor, dim: int, *args: Any, **options: Any) -> Tensor:
        return original(x, -2 if leaky and x.dim() == 4 else dim, *args, **options)  # leak

    replace_op(model, F, "softmax", softmax)
    return model


@mutator(hosts=("mamba", "bamba"), learned_from="https://arxiv.org/abs/1609.03499")
def convolution_is_padded_on_the_right(model: nn.Module, leaky: bool) -> nn.Module:
    """The output of a convolution that is padded on both sides is cut at the wrong end."""

    def convolve(original: Callable, x: Tensor, weight: Tensor, *args: Any, **options: Any) -> Tensor:
        ahead = weight.shape[-1] - 1 if leaky else 0
        return original(F.pad(x, (-ahead, ahead)), weight, *args, **options)  # leak

    replace_op(model, F, "conv1d", convolve)
    return model
