"""Log the torch functions of one forward, tensors and lines; a mask in words."""

import sys
from collections.abc import Callable
from dataclasses import dataclass
from types import CodeType, FrameType
from typing import Any

import torch
from torch.overrides import TorchFunctionMode
from torch.utils import _pytree as pytree

from leakcheck.checkpoints import source
from leakcheck.checkpoints.recorder import Position, position_in
from leakcheck.findings import Location

LOW = -1e3  # what is added at or below it blocks
_FUSED, _MULTI_HEAD = "scaled_dot_product_attention", "multi_head_attention_forward"
_BY_SHAPE = {"to", "type_as", "expand_as", "view_as", "reshape_as"}  # of what comes second only type or shape matter


@dataclass(frozen=True, eq=False)
class Op:
    """One torch function call: its tensors, the line of the nearest frame outside torch, the recording's clock.

    `is_causal` says that a fused kernel was told to mask by itself.
    """

    name: str
    inputs: tuple[torch.Tensor, ...]
    outputs: tuple[torch.Tensor, ...]
    code: CodeType | None
    position: Position | None
    moment: int = 0
    is_causal: bool = False

    @property
    def location(self) -> Location | None:
        if self.code is None or self.position is None:
            return None
        statement = source.statement_at(self.code, self.position)
        return source.locate(self.code, statement, lines=None if statement else self.position[:2])

    @property
    def values(self) -> tuple[torch.Tensor, ...]:
        """The inputs whose values reach the outputs."""
        if self.name in _BY_SHAPE:
            return self.inputs[:1]
        if self.name.endswith("_like") or self.name.startswith("new_"):
            return ()
        return self.inputs

    @property
    def written(self) -> tuple[torch.Tensor, ...]:
        """The outputs that are new, or were written in place; some ops return what they were given."""
        given = {id(t) for t in self.inputs}
        if self.name == "__setitem__" or self.name.startswith("__i") or self.name.rstrip("_") + "_" == self.name:
            return self.outputs
        return tuple(t for t in self.outputs if id(t) not in given)


class OpLog(TorchFunctionMode):
    """Log every torch function while it is active. The tensors are kept, so that their identities stay unique."""

    def __init__(self, clock: Callable[[], int] = lambda: 0) -> None:
        super().__init__()
        self.ops: list[Op] = []
        self.clock = clock

    def __torch_function__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        name, options = getattr(func, "__name__", ""), kwargs or {}
        result = func(*args, **options)
        outputs = _tensors(args[0] if name == "__setitem__" else result)
        if outputs:
            frame = _user_frame(sys._getframe(1))
            is_causal = _is_causal(name, args, options)
            if is_causal and name == _MULTI_HEAD:  # then it drops the mask that it is given
                options = {**options, "attn_mask": None}
            self.ops.append(
                Op(
                    name=name,
                    inputs=_tensors((args, options)),
                    outputs=outputs,
                    code=frame.f_code if frame else None,
                    position=position_in(frame) if frame else None,
                    moment=self.clock(),
                    is_causal=is_causal,
                )
            )
        return result

    def producer(self, tensor: torch.Tensor) -> Op | None:
        """The op that made `tensor`."""
        return next((op for op in self.ops if any(t is tensor for t in op.outputs)), None)


def describe(mask: torch.Tensor | None) -> str:
    """A mask in words: dtype, shape, how much it blocks and with what value."""
    if mask is None:
        return "None"
    if mask.dtype == torch.bool:
        blocked, value = ~mask, "False"
    elif bool(((mask == 0) | (mask == 1)).all()) and bool((mask == 1).any()):
        blocked, value = mask == 0, "0"
    else:
        blocked = mask < 0 if bool((mask > LOW).all()) else mask <= LOW
        value = f"{mask[blocked].max().item():.3g}" if blocked.any() else "nothing"
    shape = "x".join(str(size) for size in mask.shape[1:])
    if mask.dim() == 2 and mask.shape[0] == mask.shape[1]:  # one for all rows of the batch
        shape = f"{mask.shape[0]}x{shape}"
    else:
        shape, blocked = f"batch x {shape}", blocked[0]
    kind = str(mask.dtype).removeprefix("torch.")
    return f"{kind} [{shape}], blocks {int(blocked.sum())} of {blocked.numel()} entries with {value}"


def _is_causal(name: str, args: tuple, options: dict) -> bool:
    """Whether the kernel masks by itself.

    `scaled_dot_product_attention(query, key, value, attn_mask, dropout_p, is_causal, ...)` does if it is told to;
    `multi_head_attention_forward`, which torch's modules call with names, only without weights and padding.
    """
    if name == _MULTI_HEAD:
        alone = not options.get("need_weights", True) and options.get("key_padding_mask") is None
        return bool(options.get("is_causal")) and alone
    return name == _FUSED and bool(options.get("is_causal", args[5] if len(args) > 5 else False))


def _tensors(value: Any) -> tuple[torch.Tensor, ...]:
    return tuple(leaf for leaf in pytree.tree_leaves(value) if isinstance(leaf, torch.Tensor))


def _user_frame(frame: FrameType | None) -> FrameType | None:
    """The nearest frame that is not torch's own."""
    while frame is not None and frame.f_globals.get("__name__", "").partition(".")[0] == "torch":
        frame = frame.f_back
    return frame
