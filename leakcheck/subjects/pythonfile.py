"""A model out of Python code: a factory is called, a causal-LM class is built small."""

import inspect
import typing
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any, TypeGuard

from torch import nn
from transformers import PreTrainedModel

from leakcheck.errors import UsageError
from leakcheck.subjects.inputs import Inputs
from leakcheck.subjects.library import IN_FLOAT32, PreTrainedConfig
from leakcheck.subjects.refusal import refusing
from leakcheck.subjects.shrink import shrink
from leakcheck.subjects.userimport import imported_file, imported_module

FACTORY_NAMES = ("build", "build_model", "make_model", "create_model", "get_model", "factory", "model")


Made = tuple[Callable[..., Any], str, Inputs | None]


def load_file(path: Path, name: str | None) -> Made:
    """The model that `name` in a Python file makes, else its only factory or causal-LM class.

    With it, where its weights come from, and what it reads if a factory returns a pair of a model and `Inputs`.

    Raises:
        UsageError: the file cannot be imported, has no model or several, or the model cannot be made.
    """
    with imported_file(path) as module:
        name = name or _only_candidate(module, path)
        return _make(module, name, str(path))


def candidate(path: Path) -> str:
    """The name that `load_file` takes where none is given; raises UsageError as it does."""
    with imported_file(path) as module:
        return _only_candidate(module, path)


def load_module(dotted: str, name: str) -> Made:
    """What `load_file` gives, of `name` in an importable module.

    Raises:
        UsageError: the module cannot be imported, or the model cannot be made.
    """
    with imported_module(dotted) as module:
        return _make(module, name, dotted)


def _only_candidate(module: ModuleType, path: Path) -> str:
    names = _factories(module) or _causal_lm_classes(module)
    if not names:
        raise UsageError(
            f"{path}: no model in it: neither a function without parameters that is called {' or '.join(FACTORY_NAMES)}"
            " or says that it returns a Module, nor a causal-LM class"
        )
    if len(names) > 1:
        raise UsageError(f"{path}: several models in it ({', '.join(names)}); choose one: {path}:{names[0]}")
    return names[0]


def _factories(module: ModuleType) -> list[str]:
    return [
        name
        for name, value in vars(module).items()
        if inspect.isfunction(value)
        and not name.startswith("_")
        and value.__module__ == module.__name__
        and (name in FACTORY_NAMES or _is_module_class(_annotations(value).get("return")))
        and not any(_is_required(parameter) for parameter in inspect.signature(value).parameters.values())
    ]


def _causal_lm_classes(module: ModuleType) -> list[str]:
    return [
        name
        for name, value in vars(module).items()
        if _is_model_class(value)
        and not name.startswith("_")
        and value.__module__ == module.__name__
        and ("ForCausalLM" in name or value.can_generate())
    ]


def _make(module: ModuleType, name: str, where: str) -> Made:
    if not hasattr(module, name):
        known = ", ".join(_factories(module) + _causal_lm_classes(module)) or "none"
        raise UsageError(f"{where}: nothing in it is called {name!r}; models in it: {known}")
    target = getattr(module, name)
    if _is_model_class(target):
        return _build_small(target, module, where), "random", None
    if not callable(target):
        raise UsageError(f"{where}:{name} is no function that makes a model, it is a {type(target).__name__}")
    with refusing(f"{where}:{name} raised"):
        made = target()
    model, inputs = made if isinstance(made, tuple) and len(made) == 2 else (made, None)
    if not callable(model) or not isinstance(inputs, Inputs | None):
        raise UsageError(
            f"{where}:{name} returned a {type(made).__name__}; a torch.nn.Module is needed, or a pair of a model and "
            "leakcheck.Inputs"
        )
    return model, "as built", inputs


def _build_small(model_class: type[PreTrainedModel], module: ModuleType, where: str) -> nn.Module:
    name = model_class.__name__
    with refusing(f"{where}: {name} could not be built small", advice="; give a factory: file.py:factory"):
        config = shrink(_config_class(model_class, module)())
        return model_class._from_config(config, **IN_FLOAT32)


def _config_class(model_class: type[PreTrainedModel], module: ModuleType) -> type[PreTrainedConfig]:
    """The class of the model's configuration.

    A subclass of a library's model inherits `config_class` with it, so of the class that is set, the one that
    `__init__` asks for and the only one in the user's file, the most derived is taken.
    """
    candidates = [model_class.config_class, _annotations(model_class.__init__).get("config")]
    in_file = _config_classes(module)
    if len(in_file) == 1:
        candidates.append(in_file.pop())
    found = [c for c in candidates if _is_config_class(c) and c is not PreTrainedConfig]
    if not found:
        raise ValueError(f"it names no configuration class (config_class), and {len(in_file)} are in sight")
    best = found[0]
    for candidate in found[1:]:
        if issubclass(candidate, best):
            best = candidate
    return best


def _config_classes(module: ModuleType) -> set[type[PreTrainedConfig]]:
    """The configuration classes in a module and in modules of its package that it imports; none of the library's."""
    values = list(vars(module).values())
    siblings = [v for v in values if inspect.ismodule(v) and v.__package__ == module.__package__]
    values += [value for sibling in siblings for value in vars(sibling).values()]
    return {v for v in values if _is_config_class(v) and not v.__module__.startswith("transformers.")}


def _annotations(function: Callable[..., Any]) -> dict[str, Any]:
    try:
        return typing.get_type_hints(function)
    except Exception:  # a name that exists for type checkers only
        return {}


def _is_module_class(value: Any) -> bool:
    return isinstance(value, type) and issubclass(value, nn.Module)


def _is_model_class(value: Any) -> TypeGuard[type[PreTrainedModel]]:
    return isinstance(value, type) and issubclass(value, PreTrainedModel)


def _is_config_class(value: Any) -> TypeGuard[type[PreTrainedConfig]]:
    return isinstance(value, type) and issubclass(value, PreTrainedConfig)


def _is_required(parameter: inspect.Parameter) -> bool:
    variadic = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    return parameter.default is inspect.Parameter.empty and parameter.kind not in variadic
