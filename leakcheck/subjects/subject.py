"""The uniform subject: what every SPEC is turned into before anything is measured."""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel

from leakcheck.errors import SubjectCrash


@dataclass(frozen=True)
class Subject:
    """A model that reads token ids, with what is needed to run it under any configuration.

    `model` is in float32 and in eval mode. `seq_len` crosses at least two of the model's chunk, window or block
    boundaries and leaves a partial tail. `weights` says whether they are "random" or "given". `rebuild(overrides)`
    makes the same model with some configuration fields changed and the same weights wherever their shapes agree; it
    is `None` for a subject without a configuration. Where `model` is a shrunken copy, `full` is what it is a copy of:
    at its full size, without weights (`weightless.py`); flow follows that one.
    """

    spec: str
    model: nn.Module
    vocab_size: int
    seq_len: int
    weights: str
    rebuild: Callable[[Mapping[str, Any]], nn.Module] | None = None
    full: "Subject | None" = None

    @property
    def attention_backends(self) -> tuple[str, ...]:
        """The backends that the model can be switched between; `("default",)` when it has no choice to offer."""
        model = self.model
        if not isinstance(model, PreTrainedModel) or not model._can_set_attn_implementation():
            return ("default",)
        return ("eager", "sdpa") if model._supports_sdpa else ("eager",)

    @property
    def takes_attention_mask(self) -> bool:
        parameters = inspect.signature(self.model.forward).parameters
        return "attention_mask" in parameters

    @property
    def supports_checkpointing(self) -> bool:
        return bool(getattr(self.model, "supports_gradient_checkpointing", False))


def input_embedding(model: nn.Module) -> nn.Module:
    """The module that turns token ids into vectors: `get_input_embeddings()`, else the first `nn.Embedding`.

    Raises:
        SubjectCrash: the model has neither.
    """
    if isinstance(model, PreTrainedModel):
        try:
            return model.get_input_embeddings()
        except NotImplementedError:
            pass
    for module in model.modules():
        if isinstance(module, nn.Embedding):
            return module
    raise SubjectCrash(f"{type(model).__name__} has no input embedding; leakcheck audits models that read token ids")


def logits_of(output: Any) -> torch.Tensor:
    """The logits `[batch, seq, vocab]` in what a forward returned: a tensor, `.logits`, or the first of a tuple.

    Raises:
        SubjectCrash: there is no such tensor.
    """
    if hasattr(output, "logits"):
        output = output.logits
    elif isinstance(output, dict):
        output = output.get("logits")
    elif isinstance(output, (tuple, list)) and output:
        output = output[0]
    if not isinstance(output, torch.Tensor) or output.dim() != 3:
        raise SubjectCrash("the model's forward returned no logits of shape [batch, seq, vocab]")
    return output


@torch.no_grad()
def randomise(model: nn.Module, seed: int) -> None:
    """Draw every parameter anew, so that every path carries signal.

    Default initialisation leaves attention near uniform and gates at zero, which hides leaks. Matrices get unit gain
    (standard deviation `fan_in ** -0.5`), embeddings unit variance, vectors a small spread around their present value
    (so norms stay near one).
    """
    generator = torch.Generator().manual_seed(seed)
    embeddings = {m.weight for m in model.modules() if isinstance(m, nn.Embedding)}
    for parameter in model.parameters():
        if not parameter.is_floating_point():
            continue
        noise = torch.randn(parameter.shape, generator=generator, dtype=torch.float32).to(parameter.dtype)
        if parameter in embeddings:
            parameter.copy_(noise)
        elif parameter.dim() < 2:
            parameter.add_(0.1 * noise)
        else:
            parameter.copy_(noise * parameter[0].numel() ** -0.5)
