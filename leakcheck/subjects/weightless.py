"""A model without weights: parameters on the meta device, never allocated; buffers real."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_parameter_registration_hook
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only
from torch.utils.weak import WeakIdKeyDictionary

LARGEST = 1 << 24  # elements of a tensor that is computed while a model is built
_LARGEST_EMPTY = 1 << 16  # of memory that is asked for: it is for a parameter

_META = torch.device("meta")


def weightless(build: Callable[[], nn.Module]) -> nn.Module:
    """The model that `build` makes, in eval mode, with every parameter on the meta device.

    Buffers are computed as their code says. One that is larger than `LARGEST`, or computed from a parameter, has no
    values either: it is on the meta device.

    Raises:
        NotImplementedError: a parameter is copied into a tensor that has values.
    """
    with _without_parameters(), _Small():
        model = build()
    for module in model.modules():  # set without registration
        for name, parameter in module._parameters.items():
            if parameter is not None and not parameter.is_meta:
                module._parameters[name] = _emptied(parameter)
    return model.eval()


@contextmanager
def _without_parameters() -> Iterator[None]:
    """A module's parameter loses its values when it is registered."""
    emptied = WeakIdKeyDictionary()  # one that several modules share stays one

    def hook(module: nn.Module, name: str, parameter: nn.Parameter | None) -> nn.Parameter | None:
        if parameter is None or parameter.is_meta:
            return None
        if parameter not in emptied:
            emptied[parameter] = _emptied(parameter)
        return emptied[parameter]

    register: Callable[..., Any] = register_module_parameter_registration_hook  # its type forgets what hooks return
    handle = register(hook)
    try:
        yield
    finally:
        handle.remove()


def _emptied(parameter: nn.Parameter) -> nn.Parameter:
    return nn.Parameter(parameter.data.to(_META), requires_grad=parameter.requires_grad)


class _Small(TorchDispatchMode):
    """What is large is made on the meta device, and what is computed from what is there."""

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        kwargs = kwargs or {}
        tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        if func.is_view or not (any(tensor.is_meta for tensor in tensors) or _large(func, args, kwargs)):
            return func(*args, **kwargs)
        if func._schema.is_mutable and tensors and not tensors[0].is_meta:
            raise NotImplementedError(f"{func} writes values that are not there into a tensor that has values")
        return _on_meta(func, args, kwargs)


def _large(func: Any, args: tuple, kwargs: dict) -> bool:
    if func._schema.is_mutable:
        return False
    try:
        result = _on_meta(func, args, kwargs)
    except Exception:  # its shape depends on values, or torch has no kernel that tells it
        return False
    largest = _LARGEST_EMPTY if func._schema.name.startswith("aten::empty") else LARGEST
    return any(isinstance(leaf, Tensor) and leaf.numel() > largest for leaf in tree_leaves(result))


def _on_meta(func: Any, args: tuple, kwargs: dict) -> Any:
    args, kwargs = tree_map_only(Tensor, lambda t: t if t.is_meta else t.to(_META), (args, kwargs))
    if any(argument.name == "device" for argument in func._schema.arguments):
        kwargs = {**kwargs, "device": _META}
    return func(*args, **kwargs)
