"""The uniform subject: what every SPEC is turned into before anything is measured."""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel

from leakcheck.config import MODES
from leakcheck.errors import SubjectCrash
from leakcheck.subjects import backends
from leakcheck.subjects.adapter import Adapter


@dataclass(frozen=True)
class Subject:
    """A model that reads token ids, with what is needed to run it under any configuration.

    `model` is in float32 and in eval mode. `seq_len` crosses at least two of the model's chunk, window or block
    boundaries and leaves a partial tail. `weights` says whether they are "random" or "given". `rebuild(overrides)`
    makes the same model with some configuration fields changed and the same weights wherever their shapes agree; it
    is `None` for a subject without a configuration. Where `model` is a shrunken copy, `full` is what it is a copy of:
    at its full size, without weights (`weightless.py`); flow follows that one. A model that reads something else than
    token ids, or returns something else than logits, is in an `Adapter`.
    """

    spec: str
    model: nn.Module
    vocab_size: int
    seq_len: int
    weights: str
    rebuild: Callable[[Mapping[str, Any]], nn.Module] | None = None
    full: "Subject | None" = None
    live: bool = False  # handed over in Python: no command line names it

    @property
    def inputs(self) -> str:
        """What the model reads, in words."""
        return str(self.model.inputs) if isinstance(self.model, Adapter) else f"int[batch, time] < {self.vocab_size}"

    @property
    def outputs(self) -> str:
        """Which outputs are audited, in words; nothing where they are logits."""
        if not isinstance(self.model, Adapter):
            return ""
        return ", ".join(f"{name}: {result}" for name, result in self.model.results.items())

    @property
    def modes(self) -> tuple[str, ...]:
        """The modes that it can be put into, of `config.MODES`."""
        if isinstance(self.model, Adapter) and not self.model.has_modes:
            return MODES[:1]
        checkpoints = bool(getattr(unwrapped(self.model), "supports_gradient_checkpointing", False))
        return MODES if checkpoints else MODES[:2]

    @property
    def attention_backends(self) -> tuple[str, ...]:
        """The backends that the model can be switched between; `("default",)` when it has no choice to offer."""
        return backends.available(unwrapped(self.model))

    @property
    def takes_attention_mask(self) -> bool:
        if isinstance(self.model, Adapter):
            return self.model.mask_argument is not None
        return "attention_mask" in inspect.signature(self.model.forward).parameters


def unwrapped(model: nn.Module) -> nn.Module:
    """The user's own model."""
    return model.audited if isinstance(model, Adapter) else model


def input_embedding(model: nn.Module) -> nn.Module:
    """The module that turns token ids into vectors: `get_input_embeddings()`, else the first `nn.Embedding`.

    Of an adapted model that reads ids without an embedding, one that returns the ids.

    Raises:
        SubjectCrash: the model has neither.
    """
    if isinstance(model, Adapter):
        return model.tap
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
