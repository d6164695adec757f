"""A callable as a module, and how a forward is called."""

import copy
import functools
import inspect
from collections.abc import Callable, Mapping
from types import CellType, FunctionType, MethodType
from typing import Any

from torch import nn


class Function(nn.Module):
    """A callable as a module; the modules that it is bound to, closes over or names become its parts."""

    def __init__(self, function: Callable[..., Any]):
        super().__init__()
        self.function = function
        self.parts = nn.ModuleList(_modules_in(function))

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return self.function(*args, **kwargs)

    def __deepcopy__(self, memo: dict) -> "Function":
        """With copies of its modules, and a function that uses them."""
        copies = {part: copy.deepcopy(part, memo) for part in self.parts}
        return Function(_rebound(self.function, copies)).train(self.training)


def class_name(model: nn.Module) -> str:
    """Of a function its own name."""
    if isinstance(model, Function):
        return getattr(model.function, "__qualname__", type(model.function).__name__)
    return type(model).__name__


_EMPTY = CellType()


def _modules_in(function: Any) -> list[nn.Module]:
    held: list[Any] = []
    if isinstance(function, functools.partial):
        held = [*function.args, *function.keywords.values()]
        return list(dict.fromkeys([*filter(_is_module, held), *_modules_in(function.func)]))
    if isinstance(function, MethodType):
        held = [function.__self__]
    elif isinstance(function, FunctionType):
        held = [function.__globals__.get(name) for name in function.__code__.co_names]
        held += [cell.cell_contents for cell in function.__closure__ or () if cell != _EMPTY]
    elif _is_module(function):
        held = [function]
    return list(dict.fromkeys(filter(_is_module, held)))


def _is_module(value: Any) -> bool:
    return isinstance(value, nn.Module)


def _rebound(function: Any, copies: Mapping[nn.Module, nn.Module]) -> Any:
    """The same function on other modules."""

    def other(value: Any) -> Any:
        return copies.get(value, value) if _is_module(value) else value

    if isinstance(function, functools.partial):
        keywords = {name: other(value) for name, value in function.keywords.items()}
        return functools.partial(_rebound(function.func, copies), *map(other, function.args), **keywords)
    if isinstance(function, MethodType):
        return MethodType(function.__func__, other(function.__self__))
    if not isinstance(function, FunctionType):
        return other(function)
    names = {
        name: other(function.__globals__[name]) for name in function.__code__.co_names if name in function.__globals__
    }
    cells = tuple(c if c == _EMPTY else CellType(other(c.cell_contents)) for c in function.__closure__ or ())
    rebound = FunctionType(
        function.__code__, {**function.__globals__, **names}, function.__name__, function.__defaults__, cells or None
    )
    rebound.__kwdefaults__ = function.__kwdefaults__
    return rebound


def forward_parameters(model: nn.Module) -> Mapping[str, inspect.Parameter]:
    try:
        return inspect.signature(model.function if isinstance(model, Function) else model.forward).parameters
    except (ValueError, TypeError):  # of a builtin nothing is known
        return {"args": inspect.Parameter("args", inspect.Parameter.VAR_POSITIONAL)}


def bound(model: nn.Module, args: tuple, kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of a call by name; those that a forward takes as `*args` by number."""
    signature = inspect.Signature(list(forward_parameters(model).values()))
    arguments: dict[str, Any] = {}
    for name, value in signature.bind(*args, **kwargs).arguments.items():
        kind = signature.parameters[name].kind
        if kind is inspect.Parameter.VAR_KEYWORD:
            arguments |= value
        elif kind is inspect.Parameter.VAR_POSITIONAL:
            arguments |= {str(number): item for number, item in enumerate(value)}
        else:
            arguments[name] = value
    return arguments


def called(model: nn.Module, arguments: Mapping[str, Any]) -> Any:
    """Call with arguments by position where the forward takes them so, else by name."""
    parameters = forward_parameters(model)
    positional: list[Any] = []
    rest = dict(arguments)
    by_position = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    if not rest.keys() <= parameters.keys() and not any(
        p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters.values()
    ):
        return model(*rest.values())  # names that are ours, of a forward(*args)
    for name, parameter in parameters.items():
        if parameter.kind not in by_position or name not in rest:
            break
        positional.append(rest.pop(name))
    return model(*positional, **rest)
