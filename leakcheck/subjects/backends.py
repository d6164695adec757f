"""Attention backends: which a model can be switched between, and the switch."""

import copy
import warnings
from collections.abc import Iterator
from types import FunctionType, NoneType
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel

from leakcheck.errors import UsageError
from leakcheck.subjects.library import SWITCHES_ATTENTION, PreTrainedConfig

_PLAIN = (bool, int, float, str, NoneType, FunctionType)
_MISSING = object()


def available(model: nn.Module) -> tuple[str, ...]:
    """The backends that the model can be switched between; `("default",)` when it has no choice to offer."""
    if not isinstance(model, PreTrainedModel):
        return ("default",)
    backends = ("eager", "sdpa") if model._supports_sdpa else ("eager",)
    if SWITCHES_ATTENTION:
        return backends if model._can_set_attn_implementation() else ("default",)
    own = model.config._attn_implementation
    return tuple(backend for backend in backends if backend == own or _can_be_built(model, backend))


def switch(model: PreTrainedModel, backend: str) -> None:
    """Switch a model to a backend. It changes attributes and classes of modules, which `state.modules` puts back.

    Raises:
        UsageError: the model does not take it.
    """
    if SWITCHES_ATTENTION:
        model.set_attn_implementation(backend)
    else:
        for part, name, value in list(_changes(model, backend)):
            setattr(part, name, value)
    if model.config._attn_implementation != backend:
        raise UsageError(f"{type(model).__name__} cannot be switched to attention {backend!r}")


def _changes(model: PreTrainedModel, backend: str) -> Iterator[tuple[Any, str, Any]]:
    """Modules and configurations, attributes and their values: what a constructor would have chosen otherwise.

    They are what differs between two models built from the same configuration, one for each backend. So weights,
    buffers, hooks and the modules themselves stay, and so does every module that was put in after construction.
    """
    own = model.config._attn_implementation
    if backend == own:
        return
    before, after = (dict(_parts(_built(model, name))) for name in (own, backend))
    for path, part in _parts(model):
        old, new = before.get(path), after.get(path)
        if type(part) is not type(old) or new is None:
            continue
        if type(new) is not type(old):
            yield part, "__class__", type(new)
        for name, value in vars(new).items():
            if isinstance(value, _PLAIN) and vars(old).get(name, _MISSING) != value:
                yield part, name, value


def _built(model: PreTrainedModel, backend: str) -> PreTrainedModel:
    with torch.random.fork_rng(devices=[]), torch.device("meta"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return type(model)._from_config(copy.deepcopy(model.config), attn_implementation=backend)


def _can_be_built(model: PreTrainedModel, backend: str) -> bool:
    try:
        _built(model, backend)
    except Exception:  # whatever the model's constructor raises
        return False
    return True


def _parts(model: nn.Module) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Every module and every configuration in reach of one, with the path that leads there."""
    for name, module in model.named_modules():
        yield (name,), module
        yield from _configurations((name,), module)


def _configurations(path: tuple[str, ...], owner: Any) -> Iterator[tuple[tuple[str, ...], PreTrainedConfig]]:
    for name, value in vars(owner).items():
        if isinstance(value, PreTrainedConfig):
            yield (*path, name), value
            yield from _configurations((*path, name), value)
