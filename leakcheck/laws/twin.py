"""A model in float64, where rounding and moving are told apart; and in float32, which shows how it rounds."""

import copy
import warnings
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from leakcheck.errors import LeakcheckError, SubjectCrash
from leakcheck.probes.precision import float64
from leakcheck.subjects.adapter import Adapter
from leakcheck.subjects.function import Function
from leakcheck.subjects.kernels import as_unwatched
from leakcheck.subjects.running import takes
from leakcheck.subjects.subject import logits_of, unwrapped

_SEED = 0


@dataclass(frozen=True, eq=False)
class Runner:
    """Runs one model without gradients, inside `within()`, from the same random state at every call."""

    model: nn.Module
    within: Callable[[], AbstractContextManager]

    def __call__(self, tokens: Tensor, **arguments: Any) -> Any:
        """What the forward returns for token ids `[batch, seq]`; without a cache unless `use_cache` is given.

        Raises:
            SubjectCrash: it raised.
        """
        arguments.setdefault("use_cache", False)
        if not takes(self.model, "use_cache"):
            del arguments["use_cache"]
        try:
            with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
                warnings.simplefilter("ignore")
                torch.default_generator.manual_seed(_SEED)  # torch.manual_seed formats a stack, slower than a model
                with torch.no_grad(), as_unwatched(), self.within():
                    return self.model(tokens, **arguments)
        except LeakcheckError:
            raise
        except Exception as error:
            reason = (str(error).splitlines() or ["no message"])[0]
            name = type(unwrapped(self.model)).__name__
            raise SubjectCrash(
                f"{name}.forward raised on tokens of shape {list(tokens.shape)}: {type(error).__name__}: {reason}"
            ) from error

    def logits(self, tokens: Tensor, **arguments: Any) -> Tensor:
        """The logits `[batch, seq, vocab]`; raises SubjectCrash as the call does, or if there are none."""
        return logits_of(self(tokens, **arguments))


class Twin:
    """Two copies of a model, which is left alone: `double` and `single`, in the mode (train, eval) that it is in.

    Every law makes one of the model that it is given; to try many inputs make it once, and hand it over in its place.
    """

    def __init__(self, model: Any):
        self.original: nn.Module = model if isinstance(model, nn.Module) else Function(model)

    @property
    def name(self) -> str:
        return type(unwrapped(self.original)).__name__

    @cached_property
    def double(self) -> Runner:
        return Runner(copy.deepcopy(self.original).double(), float64)

    @cached_property
    def single(self) -> Runner:
        return Runner(copy.deepcopy(self.original).float(), nullcontext)

    def takes(self, argument: str) -> bool:
        """Whether the forward takes an argument of this name."""
        if isinstance(self.original, Adapter) and argument == "attention_mask":
            return self.original.mask_argument is not None
        return takes(self.original, argument)


def twin(model: Any) -> Twin:
    """The twin of a model, or the one that is given."""
    return model if isinstance(model, Twin) else Twin(model)
