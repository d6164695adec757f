"""What leaves torch without an op: `.tolist()`, `.numpy()`, raw pointers. Labels cannot follow; it is a hole."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

from leakcheck.flow.engine import Flow

_LEAVING = {
    Tensor.tolist,
    Tensor.numpy,
    Tensor.__array__,
    Tensor.data_ptr,
    Tensor.untyped_storage,
    Tensor.__dlpack__,
    Tensor.__reduce_ex__,
}


class Escapes(TorchFunctionMode):
    """Reports a token-dependent tensor that leaves for Python, unless an op does it inside itself."""

    def __init__(self, flow: Flow):
        super().__init__()
        self.flow = flow

    def __torch_function__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        if func in _LEAVING and not self.flow.busy:
            with torch._C.DisableTorchFunction():
                labels = self.flow.mirror.read(args[0])
            if labels.settled().highest >= 0:
                name = getattr(func, "__name__", str(func))
                self.flow.reports.hole(
                    f"Tensor.{name}", "token-dependent control flow", "the values go on in Python, where no label follows"
                )
        if func is F.one_hot and _validates_only(args, kwargs or {}):
            with self.flow.reports.unheard("aten::_local_scalar_dense"):
                return func(*args, **(kwargs or {}))
        return func(*args, **(kwargs or {}))


def _validates_only(args: tuple, kwargs: dict) -> bool:
    """With a number of classes, `one_hot` reads its largest and smallest value to raise if they do not fit, no more."""
    classes = args[1] if len(args) > 1 else kwargs.get("num_classes", -1)
    return classes != -1
