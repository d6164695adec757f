"""What leaves torch without an op: values (`.tolist()`, `.numpy()`, raw pointers) and sizes that tokens decide.

Labels cannot follow either; both are holes. Declared functions (`declare.py`) are caught here as well: torch's function
protocol hands to a mode every function that asks for it.
"""

import sys
from collections.abc import Callable
from types import FrameType
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

from leakcheck.flow.absent import is_absent, stand_in
from leakcheck.flow.engine import Flow
from leakcheck.flow.reports import CONTROL_FLOW, LEAVES, Place, is_user_code

Handler = Callable[["Escapes", Any, tuple, dict], Any]
HANDLERS: dict[Any, Handler] = {}
_BETWEEN = (torch._tensor.__file__, torch.overrides.__file__, __file__)  # `Tensor.__len__` hands on to a mode


class Escapes(TorchFunctionMode):
    """Reports a token-dependent tensor that leaves for Python."""

    def __init__(self, flow: Flow):
        super().__init__()
        self.flow = flow
        self.declared: dict[Any, str | None] = {}  # of declared functions, what refutes them in this trace

    def __torch_function__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        handler = HANDLERS.get(func)
        if handler is not None:
            return handler(self, func, args, kwargs or {})
        return func(*args, **(kwargs or {}))


def _value_leaves(escapes: Escapes, func: Any, args: tuple, kwargs: dict) -> Any:
    flow = escapes.flow
    with torch._C.DisableTorchFunction():
        labels = flow.mirror.read(args[0])
    if is_absent(args[0]) and func in _READ:
        flow.reports.hole(f"Tensor.{_name(func)}", CONTROL_FLOW, LEAVES)
        with torch._C.DisableTorchFunction():
            args = (stand_in(args[0], labels).clone(), *args[1:])
    elif labels.settled().highest >= 0:
        flow.reports.hole(f"Tensor.{_name(func)}", CONTROL_FLOW, LEAVES)
    return func(*args, **kwargs)


def _made_of_data(escapes: Escapes, func: Any, args: tuple, kwargs: dict) -> Any:
    """A tensor of numbers has values wherever the model is."""
    if escapes.flow.weightless and torch.device(kwargs.get("device") or "cpu").type == "meta":
        kwargs = {**kwargs, "device": "cpu"}
    return func(*args, **kwargs)


def _attention(escapes: Escapes, func: Any, args: tuple, kwargs: dict) -> Any:
    """It wants queries, keys and values on one device."""
    names = ("query", "key", "value")
    given = {**dict(zip(names, args, strict=False)), **{name: kwargs[name] for name in names if name in kwargs}}
    if any(map(is_absent, given.values())):
        given = {name: escapes.flow.without_values(tensor) for name, tensor in given.items()}
        rest = {name: value for name, value in kwargs.items() if name not in names}
        return func(*(given[name] for name in names), *args[3:], **rest)
    return func(*args, **kwargs)


def _like_another(escapes: Escapes, func: Any, args: tuple, kwargs: dict) -> Any:
    """`x.new_tensor(data)`, also where x has no values."""
    if not is_absent(args[0]):
        return func(*args, **kwargs)
    return torch.tensor(*args[1:], **{"dtype": args[0].dtype, **kwargs, "device": "cpu"})


def _size_leaves(escapes: Escapes, func: Any, args: tuple, kwargs: dict) -> Any:
    """Reported where a line of the user's reads it. Torch's own Python reads sizes to handle any size alike."""
    flow = escapes.flow
    if flow.mirror.sized:
        tensor = args[0] if args else next(iter(kwargs.values()))
        if flow.mirror.record(tensor).size >= 0 and (place := _reader(sys._getframe(1))) is not None:
            carries = "how large the tensor is depends on tokens"
            flow.reports.hole_at(place, f"Tensor.{_name(func)}", CONTROL_FLOW, carries)
    return func(*args, **kwargs)


def _pieces_leave(escapes: Escapes, func: Any, args: tuple, kwargs: dict) -> Any:
    """How many pieces there are is a size as well; along the features it is no token's."""
    dim = kwargs.get("dim", args[-1] if len(args) > (1 if "unbind" in _name(func) else 2) else 0)
    along_features = args and args[0].dim() > 1 and dim in (-1, args[0].dim() - 1)
    return func(*args, **kwargs) if along_features else _size_leaves(escapes, func, args, kwargs)


def _one_hot(escapes: Escapes, func: Any, args: tuple, kwargs: dict) -> Any:
    """With a number of classes it reads its largest and smallest value only to raise if they do not fit."""
    classes = args[1] if len(args) > 1 else kwargs.get("num_classes", -1)
    if classes == -1:
        return func(*args, **kwargs)
    with escapes.flow.reports.unheard("aten::_local_scalar_dense"):
        return func(*args, **kwargs)


def _reader(frame: FrameType | None) -> Place | None:
    """The line that reads, if it is the user's."""
    while frame is not None and frame.f_code.co_filename in _BETWEEN:
        frame = frame.f_back
    if frame is None or not is_user_code(frame):
        return None
    return Place(frame.f_code.co_filename, frame.f_lineno, frame.f_code.co_qualname)


def _name(func: Any) -> str:
    name = func.__name__
    return getattr(func.__self__, "__name__", name) if name == "__get__" else name


def _getter(name: str) -> Any:
    """What a mode is given as the function where an attribute is read."""
    return getattr(Tensor, name).__get__


VALUES: tuple[Any, ...] = (
    Tensor.tolist, Tensor.numpy, Tensor.__array__, Tensor.data_ptr, Tensor.untyped_storage, Tensor.__dlpack__,
    Tensor.__reduce_ex__,
)  # fmt: skip
_READ = frozenset({Tensor.tolist, Tensor.numpy, Tensor.__array__, Tensor.__dlpack__})
_SIZES: tuple[Any, ...] = (
    _getter("shape"), _getter("nbytes"), Tensor.size, Tensor.numel, Tensor.nelement, Tensor.__len__, Tensor.stride,
    torch.numel,
)  # fmt: skip
_PIECES: tuple[Any, ...] = (
    Tensor.unbind, Tensor.split, Tensor.chunk, Tensor.tensor_split, torch.unbind, torch.split, torch.chunk,
    torch.tensor_split,
)  # fmt: skip
HANDLERS.update({**dict.fromkeys(VALUES, _value_leaves), **dict.fromkeys(_SIZES, _size_leaves)})
HANDLERS.update(dict.fromkeys(_PIECES, _pieces_leave))
HANDLERS.update({torch.tensor: _made_of_data, torch.as_tensor: _made_of_data, Tensor.new_tensor: _like_another})
HANDLERS.update({F.one_hot: _one_hot, F.scaled_dot_product_attention: _attention})
