"""Run a model under one configuration: attention backend, padding, train or eval; and put everything back."""

import inspect
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from torch import nn
from torch.utils import checkpoint
from transformers import PreTrainedModel
from transformers.utils import logging

from leakcheck.config import Configuration
from leakcheck.errors import LeakcheckError, SubjectCrash
from leakcheck.subjects import backends, state
from leakcheck.subjects.kernels import as_unwatched
from leakcheck.subjects.subject import logits_of, unwrapped

_SMALL = 2_000_000  # parameters


def spare_threads(model: nn.Module) -> None:
    """To hand the operations of a small model to several threads costs more than they do."""
    if sum(parameter.numel() for parameter in model.parameters()) < _SMALL:
        torch.set_num_threads(1)


@contextmanager
def configured(
    model: nn.Module,
    configuration: Configuration,
    recompute_context: Callable[[], AbstractContextManager] = nullcontext,
) -> Iterator[None]:
    """Switch the model to `configuration`, with gradients and in float32, whatever the caller has set.

    On exit model and process are as before; only its weights are not looked after, they are the caller's.

    Under gradient checkpointing the backward pass runs layers again, inside `recompute_context()`.

    Raises:
        UsageError: the model does not take the attention backend.
    """
    # Gradients are on, whoever calls.
    with state.process(), state.modules(model), torch.inference_mode(False), _not_reentrant(), as_unwatched():
        torch.set_default_dtype(torch.float32)
        logging.set_verbosity_error()
        switchable: Any = unwrapped(model)  # nn.Module types every attribute as a tensor or a module
        if isinstance(switchable, PreTrainedModel) and configuration.attention != "default":
            backends.switch(switchable, configuration.attention)
        model.train(configuration.mode != "eval")
        for name in configuration.accepted:
            switchable.get_submodule(name).eval()
        _set_checkpointing(switchable, recompute_context if configuration.mode == "train+checkpointing" else None)
        yield


def _set_checkpointing(model: Any, recompute_context: Callable[[], AbstractContextManager] | None) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # the older name works in every version of the library
        if recompute_context is not None:
            # Reentrant checkpointing drops the graph of tensors inside containers, which layer records are.
            model.gradient_checkpointing_enable(
                {"use_reentrant": False, "context_fn": lambda: (nullcontext(), recompute_context())}
            )
        elif getattr(model, "is_gradient_checkpointing", False):  # the user's own
            model.gradient_checkpointing_disable()


class _NotReentrant:
    """Stands in for torch's reentrant checkpointing, whose graph refuses gradients of chosen tensors."""

    @staticmethod
    def apply(function: Callable[..., Any], preserve_rng_state: bool, *args: Any) -> Any:
        return checkpoint.checkpoint(function, *args, use_reentrant=False, preserve_rng_state=preserve_rng_state)


@contextmanager
def _not_reentrant() -> Iterator[None]:
    module: Any = checkpoint  # a class is no variable for type checkers
    reentrant = module.CheckpointFunction
    module.CheckpointFunction = _NotReentrant
    try:
        yield
    finally:
        module.CheckpointFunction = reentrant


def valid_positions(configuration: Configuration, seq: int) -> torch.Tensor:
    """Boolean `[seq]`: false where the configuration pads; a quarter of the positions, at least one."""
    valid = torch.ones(seq, dtype=torch.bool)
    padded = max(1, seq // 4)
    if configuration.mask == "left-padded":
        valid[:padded] = False
    elif configuration.mask == "right-padded":
        valid[seq - padded :] = False
    return valid


def takes(model: nn.Module, option: str) -> bool:
    """Whether the forward takes `option`: by name, or as a keyword whose default its configuration holds."""
    parameters = inspect.signature(model.forward).parameters
    keywords = any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters.values())
    return option in parameters or (keywords and hasattr(getattr(model, "config", None), option))


def forward(
    model: nn.Module, token_ids: torch.Tensor, configuration: Configuration, arguments: Mapping[str, Any] | None = None
) -> torch.Tensor:
    """Logits `[batch, seq, vocab]` for `token_ids` `[batch, seq]`, with the padding of `configuration` and no cache.

    `arguments` go beside the tokens.

    Raises:
        SubjectCrash: the forward raised, or returned no logits.
    """
    kwargs: dict[str, Any] = {}
    if configuration.mask != "none":
        kwargs["attention_mask"] = valid_positions(configuration, token_ids.shape[1]).long().repeat(len(token_ids), 1)
    if takes(model, "use_cache"):
        kwargs["use_cache"] = False
    return logits_of(called(model, token_ids, {**kwargs, **(arguments or {})}, configuration))


def called(
    model: nn.Module, token_ids: torch.Tensor, arguments: Mapping[str, Any], configuration: Configuration
) -> Any:
    """What the forward returns.

    Raises:
        SubjectCrash: it raised.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return model(token_ids, **arguments)
    except LeakcheckError:
        raise
    except Exception as error:
        lines = str(error).splitlines()
        reason = lines[0] if lines else "no message"
        who = f"{type(unwrapped(model)).__name__}.forward"
        raise SubjectCrash(f"{who} raised under {configuration.id}: {type(error).__name__}: {reason}") from error
