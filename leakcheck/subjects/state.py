"""Whatever an audit or the subject itself changes is as before afterwards: of the model and of the process."""

import os
import random
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _device
from transformers.utils import logging

from leakcheck.subjects.library import PreTrainedConfig


@contextmanager
def preserved(model: Any) -> Iterator[None]:
    """On exit, also by an exception, the process and a module's state are as before; see `process` and `modules`.

    Besides, parameters have their values, gradients and `requires_grad` again: the subject's own code may change them.
    Costs a copy of the weights. A model that is no module is left to itself.
    """
    with ExitStack() as stack:
        stack.enter_context(process())
        if isinstance(model, nn.Module):
            for parameter in model.parameters():
                stack.callback(_put_gradient, parameter, parameter.requires_grad, parameter.grad)
                stack.callback(_put_value, *_valued(parameter))
                if parameter.grad is not None:
                    stack.callback(_put_value, *_valued(parameter.grad))
            stack.enter_context(modules(model))
        yield


@contextmanager
def process() -> Iterator[None]:
    """On exit as before: random states, default dtype and device, threads, whether gradients are recorded, environment
    variables, current folder, `sys.path`, the tracer of `sys.settrace`, filters of warnings, the library's verbosity.
    """
    with ExitStack() as stack:
        stack.enter_context(warnings.catch_warnings())
        for get, put in _KEPT:
            stack.callback(put, get())
        yield


@contextmanager
def modules(model: nn.Module) -> Iterator[None]:
    """On exit every module and its configuration have the class and attributes that they had, buffers their values.

    Attributes hold the train flag, hooks, the attention backend, gradient checkpointing and what a forward caches;
    dictionaries and lists among them hold what they held.
    """
    owners = [*model.modules(), *_configurations(model)]
    attributes = [(vars(owner), dict(vars(owner))) for owner in owners]
    values = [value for _, before in attributes for value in before.values()]
    tables = [(value, dict(value)) for value in values if isinstance(value, dict)]
    lists = [(value, list(value)) for value in values if isinstance(value, list)]
    flags = [(module, type(module), module.training) for module in model.modules()]
    buffers = [_valued(buffer) for buffer in model.buffers()]
    try:
        yield
    finally:
        for table, before in (*attributes, *tables):
            table.clear()
            table.update(before)
        for entries, held in lists:
            entries[:] = held
        for module, cls, training in flags:
            if type(module) is not cls:
                module.__class__ = cls
            module.training = training  # scripted modules keep it elsewhere
        for buffer in buffers:
            _put_value(*buffer)


def _configurations(model: nn.Module) -> list[PreTrainedConfig]:
    """The configurations of all modules and those nested in them, each once."""
    found: dict[int, PreTrainedConfig] = {}
    waiting = [vars(module).get("config") for module in model.modules()]
    while waiting:
        config = waiting.pop()
        if isinstance(config, PreTrainedConfig) and id(config) not in found:
            found[id(config)] = config
            waiting += vars(config).values()
    return list(found.values())


def _valued(tensor: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """A tensor, its memory, and what is in there."""
    return tensor, tensor.detach(), tensor.detach().clone()


@torch.no_grad()
def _put_value(tensor: Tensor, memory: Tensor, value: Tensor) -> None:
    tensor.data = memory  # a cast gave it another
    if not tensor.is_meta and not _equal(memory, value):
        memory.copy_(value)


def _put_gradient(parameter: nn.Parameter, required: bool, gradient: Tensor | None) -> None:
    if parameter.requires_grad != required:
        parameter.requires_grad_(required)
    parameter.grad = gradient


def _equal(a: Tensor, b: Tensor) -> bool:
    try:
        return torch.equal(a, b)
    except RuntimeError:  # sparse tensors and some types have no comparison
        return False


def _put_environment(before: dict[str, str]) -> None:
    for name in os.environ.keys() - before.keys():
        del os.environ[name]
    os.environ.update(before)


def _numpy() -> Any:
    numpy = sys.modules.get("numpy")
    return numpy.random.get_state() if numpy else None


def _put_numpy(state: Any) -> None:
    if state is not None:
        sys.modules["numpy"].random.set_state(state)


def _cuda() -> list[Tensor]:
    return torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else []


def _put_progress_bars(enabled: bool) -> None:
    if enabled:
        logging.enable_progress_bar()
    else:
        logging.disable_progress_bar()


def _path() -> tuple[list[str], list[str]]:
    return sys.path, list(sys.path)


def _put_path(kept: tuple[list[str], list[str]]) -> None:
    sys.path, sys.path[:] = kept


def _default_device() -> torch.device | None:
    return _device.CURRENT_DEVICE


def _put_default_device(device: torch.device | None) -> None:
    if device != _device.CURRENT_DEVICE:  # setting one, even the same, enters a mode
        torch.set_default_device(device)


# How to read each setting, and how to set it.
_KEPT: tuple[tuple[Callable[[], Any], Callable[[Any], Any]], ...] = (
    (torch.get_rng_state, torch.set_rng_state),
    (_cuda, torch.cuda.set_rng_state_all),
    (random.getstate, random.setstate),
    (_numpy, _put_numpy),
    (torch.get_default_dtype, torch.set_default_dtype),
    (_default_device, _put_default_device),
    (torch.get_num_threads, torch.set_num_threads),
    (torch.is_grad_enabled, torch.set_grad_enabled),
    (os.environ.copy, _put_environment),
    (os.getcwd, os.chdir),
    (_path, _put_path),
    (sys.gettrace, sys.settrace),
    (logging.get_verbosity, logging.set_verbosity),
    (logging.is_progress_bar_enabled, _put_progress_bars),
)
