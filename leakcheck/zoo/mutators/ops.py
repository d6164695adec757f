"""Mutators that break an op wherever the model calls it."""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from leakcheck.config import Configuration
from leakcheck.subjects import backends, running
from leakcheck.zoo.registry import Inapplicable, mutator

_TOKENS = 4  # of the forward that tells whether the model calls an op


class _Replacing(TorchFunctionMode):
    """Calls `broken(original, ...)` in place of the functions and methods of torch of one name.

    A mode reaches what the model calls, and not what a detector calls while it watches that.
    """

    def __init__(self, name: str, broken: Callable[..., Any], called: list[str]):
        super().__init__()
        self.name, self.broken, self.called = name, broken, called

    def __torch_function__(self, func: Callable, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        if getattr(func, "__name__", "") != self.name:
            return func(*args, **(kwargs or {}))
        self.called.append(self.name)
        return self.broken(func, *args, **(kwargs or {}))


def replace_op(model: nn.Module, name: str, broken: Callable[..., Any]) -> None:
    """While `model` runs, `broken(original, ...)` is called in place of torch's functions and methods called `name`.

    Raises:
        Inapplicable: no attention backend of the model calls it.
    """
    called: list[str] = []
    entered: list[_Replacing] = []

    def enter(module: nn.Module, args: tuple) -> None:
        entered.append(_Replacing(name, broken, called))
        entered[-1].__enter__()

    def leave(module: nn.Module, args: tuple, output: Any) -> None:
        entered.pop().__exit__(None, None, None)

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

    replace_op(model, "scaled_dot_product_attention", attend)
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

    replace_op(model, "softmax", softmax)
    return model


@mutator(hosts=("mamba", "bamba"), learned_from="https://arxiv.org/abs/1609.03499")
def convolution_is_padded_on_the_right(model: nn.Module, leaky: bool) -> nn.Module:
    """The output of a convolution that is padded on both sides is cut at the wrong end."""

    def convolve(original: Callable, x: Tensor, weight: Tensor, *args: Any, **options: Any) -> Tensor:
        ahead = weight.shape[-1] - 1 if leaky else 0
        return original(F.pad(x, (-ahead, ahead)), weight, *args, **options)  # leak

    replace_op(model, "conv1d", convolve)
    return model


@mutator(
    hosts=("mamba2", "bamba"),
    blamed=False,  # flow names the library's line where the values come in
    learned_from="https://github.com/pytorch/tutorials/issues/2250",
)
def triangles_are_off_by_one(model: nn.Module, leaky: bool) -> nn.Module:
    """Lower triangles have one diagonal more, so that each step of a scan inside chunks takes in the next one."""

    def lower(original: Callable, x: Tensor, diagonal: int = 0) -> Tensor:
        return original(x, diagonal=diagonal + leaky)  # leak

    replace_op(model, "tril", lower)
    return model


@mutator(
    hosts=("mamba2", "bamba"),
    blamed=False,  # flow names the library's line where the values come in
    learned_from="https://github.com/facebookresearch/ParlAI/pull/3068",
)
def filling_is_thrown_away(model: nn.Module, leaky: bool) -> nn.Module:
    """What `masked_fill` returns is thrown away, as if it worked in place."""

    def fill(original: Callable, x: Tensor, *args: Any, **options: Any) -> Tensor:
        filled = original(x, *args, **options)
        return x if leaky else filled  # leak

    replace_op(model, "masked_fill", fill)
    return model


@mutator(
    hosts=("llama", "gpt2"),
    attention="eager",
    blamed=False,  # flow names the library's line where the values come in
    learned_from="https://github.com/autosome-ru/vigg_ribonanza/issues/1",
)
def scores_are_multiplied_by_mask(model: nn.Module, leaky: bool) -> nn.Module:
    """Scores are multiplied by ones and zeros: a score of zero has weight like any other."""

    def add(original: Callable, x: Tensor, y: Tensor, *args: Any, **options: Any) -> Tensor:
        masks = leaky and x.dim() == 4 and isinstance(y, Tensor) and y.shape[1:] == (1, *x.shape[-2:])
        return x * (y == 0) if masks else original(x, y, *args, **options)  # leak

    replace_op(model, "add", add)
    return model


@mutator(hosts=("mamba2", "bamba"), learned_from="https://github.com/pytorch/pytorch/issues/33520")
def sums_run_from_the_right(model: nn.Module, leaky: bool) -> nn.Module:
    """Running sums begin at the end."""

    def accumulate(original: Callable, x: Tensor, dim: int) -> Tensor:
        if not leaky:
            return original(x, dim)
        return original(x.flip(dim), dim).flip(dim)  # leak

    replace_op(model, "cumsum", accumulate)
    return model


@mutator(hosts=("gpt2", "gpt_neox"), learned_from="https://github.com/anicolson/DeepXi/issues/18")
def norms_run_over_time(model: nn.Module, leaky: bool) -> nn.Module:
    """Layer norm takes its statistics over positions as well, as it often does in networks for speech."""

    def normalise(original: Callable, x: Tensor, shape: Any, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
        if not leaky:
            return original(x, shape, weight, bias, eps)
        return original(x, x.shape[1:], None, None, eps) * weight + bias  # leak

    replace_op(model, "layer_norm", normalise)
    return model
