"""Run a model under one configuration: attention backend, padding, train or eval; and put everything back."""

import inspect
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from torch import nn
from torch.utils import checkpoint
from transformers import PreTrainedModel
from transformers.utils import logging

from leakcheck.config import Configuration
from leakcheck.errors import LeakcheckError, SubjectCrash, UsageError
from leakcheck.subjects.kernels import as_unwatched
from leakcheck.subjects.subject import logits_of


@contextmanager
def configured(
    model: nn.Module,
    configuration: Configuration,
    recompute_context: Callable[[], AbstractContextManager] = nullcontext,
) -> Iterator[None]:
    """Switch the model to `configuration`; on exit backend, mode, buffers, hooks and random state are as before.

    Under gradient checkpointing the backward pass runs layers again, inside `recompute_context()`.

    Raises:
        UsageError: the model does not take the attention backend.
    """
    training, backend = model.training, None
    checkpointing = configuration.mode == "train+checkpointing"
    random_state = torch.get_rng_state()
    buffers = [(module, name, buffer, buffer.clone()) for module, name, buffer in _buffers(model)]
    verbosity = logging.get_verbosity()
    logging.set_verbosity_error()
    switchable: Any = model  # nn.Module types every attribute as a tensor or a module
    if isinstance(model, PreTrainedModel) and configuration.attention != "default":
        backend = model.config._attn_implementation
        switchable.set_attn_implementation(configuration.attention)
        if model.config._attn_implementation != configuration.attention:
            raise UsageError(f"{type(model).__name__} cannot be switched to attention {configuration.attention!r}")
    model.train(configuration.mode != "eval")
    if checkpointing:
        _set_checkpointing(model, recompute_context)
    try:
        with _not_reentrant(), as_unwatched():
            yield
    finally:
        if checkpointing:
            _set_checkpointing(model, None)
        model.train(training)
        if backend is not None:
            switchable.set_attn_implementation(backend)
        for module, name, buffer, value in buffers:  # batch statistics, caches of position tables
            module._buffers[name] = buffer.copy_(value)
        logging.set_verbosity(verbosity)
        torch.set_rng_state(random_state)


def _buffers(model: nn.Module) -> Iterator[tuple[nn.Module, str, torch.Tensor]]:
    for module in model.modules():
        for name, buffer in module._buffers.items():
            if buffer is not None:
                yield module, name, buffer


def _set_checkpointing(model: Any, recompute_context: Callable[[], AbstractContextManager] | None) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # the older name works in every version of the library
        if recompute_context is None:
            model.gradient_checkpointing_disable()
            model.disable_input_require_grads()  # a hook that enabling leaves on the embedding
        else:
            # Reentrant checkpointing drops the graph of tensors inside containers, which layer records are.
            model.gradient_checkpointing_enable(
                {"use_reentrant": False, "context_fn": lambda: (nullcontext(), recompute_context())}
            )


class _NotReentrant:
    """Stands in for torch's reentrant checkpointing, whose graph refuses gradients of chosen tensors."""

    @staticmethod
    def apply(function: Callable[..., Any], preserve_rng_state: bool, *args: Any) -> Any:
        return checkpoint.checkpoint(function, *args, use_reentrant=False, preserve_rng_state=preserve_rng_state)


@contextmanager
def _not_reentrant() -> Iterator[None]:
    reentrant = checkpoint.CheckpointFunction
    checkpoint.CheckpointFunction = _NotReentrant
    try:
        yield
    finally:
        checkpoint.CheckpointFunction = reentrant


def valid_positions(configuration: Configuration, seq: int) -> torch.Tensor:
    """Boolean `[seq]`: false where the configuration pads; a quarter of the positions, at least one."""
    valid = torch.ones(seq, dtype=torch.bool)
    padded = max(1, seq // 4)
    if configuration.mask == "left-padded":
        valid[:padded] = False
    elif configuration.mask == "right-padded":
        valid[seq - padded :] = False
    return valid


def _takes(model: nn.Module, option: str) -> bool:
    """Whether the forward takes `option`: by name, or as a keyword whose default its configuration holds."""
    parameters = inspect.signature(model.forward).parameters
    keywords = any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters.values())
    return option in parameters or (keywords and hasattr(getattr(model, "config", None), option))


def forward(model: nn.Module, token_ids: torch.Tensor, configuration: Configuration) -> torch.Tensor:
    """Logits `[batch, seq, vocab]` for `token_ids` `[batch, seq]`, with the padding of `configuration` and no cache.

    Raises:
        SubjectCrash: the forward raised, or returned no logits.
    """
    kwargs: dict[str, Any] = {}
    if configuration.mask != "none":
        kwargs["attention_mask"] = valid_positions(configuration, token_ids.shape[1]).long().repeat(len(token_ids), 1)
    if _takes(model, "use_cache"):
        kwargs["use_cache"] = False
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return logits_of(model(token_ids, **kwargs))
    except LeakcheckError:
        raise
    except Exception as error:
        lines = str(error).splitlines()
        reason = lines[0] if lines else "no message"
        raise SubjectCrash(
            f"{type(model).__name__}.forward raised under {configuration.id}: {type(error).__name__}: {reason}"
        ) from error
