"""Mutators that let a module of the model read later positions."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import PreTrainedModel

from leakcheck.errors import SubjectCrash
from leakcheck.findings import Verdict
from leakcheck.subjects.subject import input_embedding
from leakcheck.zoo.registry import Inapplicable, mutator

_BEYOND = 8  # positions


def layers_of(model: nn.Module) -> nn.ModuleList:
    """The model's layers: its longest list of modules.

    Raises:
        Inapplicable: it has none.
    """
    lists = [module for module in model.modules() if isinstance(module, nn.ModuleList) and len(module)]
    if not lists:
        raise Inapplicable(f"{type(model).__name__} has no list of layers")
    return max(lists, key=len)


def embedding_of(model: nn.Module) -> nn.Module:
    """The embedding of token ids.

    Raises:
        Inapplicable: it has none.
    """
    try:
        return input_embedding(model)
    except SubjectCrash as error:
        raise Inapplicable(str(error)) from error


def head_of(model: nn.Module) -> nn.Module:
    """What makes logits: `get_output_embeddings()`, else the last linear layer.

    Raises:
        Inapplicable: it has neither.
    """
    head = model.get_output_embeddings() if isinstance(model, PreTrainedModel) else None
    head = head or next((m for m in reversed([*model.modules()]) if isinstance(m, nn.Linear)), None)
    if head is None:
        raise Inapplicable(f"{type(model).__name__} has no layer that makes logits")
    return head


def change_output(module: nn.Module, change: Callable[[Tensor], Tensor]) -> None:
    """Let `change` have a module's hidden states `[batch, seq, hidden]`, which come first in a tuple."""

    def hook(module: nn.Module, args: tuple, output: Tensor | tuple) -> Tensor | tuple:
        return (change(output[0]), *output[1:]) if isinstance(output, tuple) else change(output)

    module.register_forward_hook(hook)


@mutator(hosts=("llama", "gpt2", "mamba"), learned_from="https://github.com/huggingface/transformers/issues/34817")
def last_layer_reads_successor(model: nn.Module, leaky: bool) -> nn.Module:
    """The output of the last layer holds what the next position has."""
    change_output(layers_of(model)[-1], lambda x: x + F.pad(x, (0, 0, -1, 1) if leaky else (0, 0, 1, -1)))  # leak
    return model


@mutator(hosts=("llama", "mixtral"), learned_from="https://arxiv.org/abs/1806.03185")
def one_layer_convolves_both_ways(model: nn.Module, leaky: bool) -> nn.Module:
    """One layer of many is smoothed over three positions, which needs padding on the left alone."""

    def smooth(x: Tensor) -> Tensor:
        padded = F.pad(x.transpose(1, 2), (1, 1) if leaky else (2, 0))  # [batch, hidden, seq + 2]
        return F.avg_pool1d(padded, 3, stride=1).transpose(1, 2).contiguous()  # leak

    change_output(layers_of(model)[0], smooth)
    return model


@mutator(hosts=("llama", "gpt2"), blind=("gradient",), learned_from="https://arxiv.org/abs/1607.06450")
def embeddings_are_centred_over_time(model: nn.Module, leaky: bool) -> nn.Module:
    """The mean that is taken off the embeddings is one over positions, not over features."""
    change_output(embedding_of(model), lambda x: x - x.mean(1 if leaky else 2, keepdim=True))  # leak
    return model


@mutator(hosts=("llama", "gpt2"), learned_from="https://github.com/huggingface/transformers/issues/47394")
def logits_are_those_of_the_next_position(model: nn.Module, leaky: bool) -> nn.Module:
    """Logits are shifted against the labels by the model, and once more by the loss."""
    change_output(head_of(model), lambda x: x.roll(-1 if leaky else 0, 1))  # leak
    return model


@mutator(hosts=("llama", "gpt_neox"), learned_from="https://github.com/BlinkDL/RWKV-LM")
def one_channel_reads_ahead(model: nn.Module, leaky: bool) -> nn.Module:
    """A token shift in the wrong direction, of a single channel."""

    def shift(x: Tensor) -> Tensor:
        shifted = x.clone()
        shifted[:, :-1, 3] += x[:, 1:, 3] if leaky else x[:, :-1, 3]  # leak
        return shifted

    change_output(layers_of(model)[-1], shift)
    return model


@mutator(
    hosts=("llama", "gpt2"),
    shortest=_BEYOND + 2,
    blamed=False,  # of a part of the sequence flow cannot tell positions: it names the line that puts it together again
    learned_from="https://github.com/huggingface/transformers/issues/34817",
)
def only_beyond_a_length(model: nn.Module, leaky: bool) -> nn.Module:
    """The first positions are right, as in a test of few tokens; those after them read ahead."""

    def read(x: Tensor) -> Tensor:
        late = x[:, _BEYOND:]
        late = late + F.pad(late, (0, 0, -1, 1) if leaky else (0, 0, 1, -1))  # leak
        return torch.cat([x[:, :_BEYOND], late], 1)

    change_output(layers_of(model)[-1], read)
    return model


@mutator(hosts=("llama", "mistral"), mode="train", learned_from="https://github.com/shiyu-coder/Kronos/issues/199")
def only_in_training(model: nn.Module, leaky: bool) -> nn.Module:
    """The layer reads ahead in train mode alone, so that no test in eval mode sees it."""
    layer = layers_of(model)[-1]

    def read(module: nn.Module, args: tuple, output: Tensor | tuple) -> Tensor | tuple | None:
        if not module.training:
            return None
        x = output[0] if isinstance(output, tuple) else output
        x = x + F.pad(x, (0, 0, -1, 1) if leaky else (0, 0, 1, -1))  # leak
        return (x, *output[1:]) if isinstance(output, tuple) else x

    layer.register_forward_hook(read)
    return model


@mutator(hosts=("llama", "gpt2"), blind=("gradient",), learned_from="https://arxiv.org/abs/1711.00937")
def detached(model: nn.Module, leaky: bool) -> nn.Module:
    """What is read ahead is detached, so that no gradient tells."""

    def read(x: Tensor) -> Tensor:
        return x + F.pad(x.detach(), (0, 0, -1, 1) if leaky else (0, 0, 1, -1))  # leak

    change_output(layers_of(model)[-1], read)
    return model


@mutator(hosts=("llama", "mamba"), blind=("gradient",), learned_from="https://arxiv.org/abs/1308.3432")
def rounded(model: nn.Module, leaky: bool) -> nn.Module:
    """What is read ahead is rounded, and has no derivative."""

    def read(x: Tensor) -> Tensor:
        return x + F.pad((4 * x).round(), (0, 0, -1, 1) if leaky else (0, 0, 1, -1))  # leak

    change_output(layers_of(model)[-1], read)
    return model


@mutator(hosts=("llama", "gpt2"), learned_from="https://arxiv.org/abs/2106.09685")
def faint(model: nn.Module, leaky: bool) -> nn.Module:
    """What is read ahead is below every tolerance that tests are written with."""

    def read(x: Tensor) -> Tensor:
        return x + 1e-7 * F.pad(x, (0, 0, -1, 1) if leaky else (0, 0, 1, -1))  # leak

    change_output(layers_of(model)[-1], read)
    return model


@mutator(
    hosts=("llama", "gpt2"),
    verdict=Verdict.SUSPECT,
    codes=("LC104",),
    blind=("perturbation", "gradient"),
    learned_from="https://arxiv.org/abs/2003.04887",
)
def behind_a_gate_of_zero(model: nn.Module, leaky: bool) -> nn.Module:
    """A residual branch that reads ahead is scaled by a weight that starts at zero: nothing moves before training."""
    layer, gate = layers_of(model)[-1], "gate"
    layer.register_parameter(gate, nn.Parameter(torch.zeros(())))

    def read(module: nn.Module, args: tuple, output: Tensor | tuple) -> Tensor | tuple:
        x = output[0] if isinstance(output, tuple) else output
        x = x + module.get_parameter(gate) * F.pad(x, (0, 0, -1, 1) if leaky else (0, 0, 1, -1))  # leak
        return (x, *output[1:]) if isinstance(output, tuple) else x

    layer.register_forward_hook(read)
    return model


@mutator(
    hosts=("llama", "mistral"),
    mode="train+checkpointing",
    learned_from="https://arxiv.org/abs/1604.06174",
)
def only_when_recomputed(model: nn.Module, leaky: bool) -> nn.Module:
    """Under gradient checkpointing a layer takes another path, which reads ahead."""
    layer = layers_of(model)[-1]
    if not hasattr(layer, "gradient_checkpointing"):
        raise Inapplicable(f"{type(model).__name__} has no gradient checkpointing")

    def read(module: nn.Module, args: tuple, output: Tensor | tuple) -> Tensor | tuple:
        if not (module.gradient_checkpointing and module.training):
            return output
        x = output[0] if isinstance(output, tuple) else output
        x = x + F.pad(x, (0, 0, -1, 1) if leaky else (0, 0, 1, -1))  # leak
        return (x, *output[1:]) if isinstance(output, tuple) else x

    layer.register_forward_hook(read)
    return model
