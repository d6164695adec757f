"""Follow a mask through the ops of one forward: what is derived from it, and where it acts on something else."""

import sys
from collections.abc import Iterable
from dataclasses import dataclass
from types import CodeType, FrameType
from typing import Any

import torch
from torch.overrides import TorchFunctionMode
from torch.utils import _pytree as pytree

from leakcheck.checkpoints import source
from leakcheck.checkpoints.recorder import Position, position_in
from leakcheck.findings import Location


@dataclass(frozen=True, eq=False)
class Op:
    """One torch function call: its tensors and the line of the nearest frame outside torch."""

    inputs: tuple[torch.Tensor, ...]
    outputs: tuple[torch.Tensor, ...]
    code: CodeType | None
    position: Position | None

    @property
    def location(self) -> Location | None:
        if self.code is None or self.position is None:
            return None
        statement = source.statement_at(self.code, self.position)
        return source.locate(self.code, statement, lines=None if statement else self.position[:2])


class OpLog(TorchFunctionMode):
    """Log every torch function while it is active. The tensors are kept, so that their identities stay unique."""

    def __init__(self) -> None:
        super().__init__()
        self.ops: list[Op] = []

    def __torch_function__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        result = func(*args, **(kwargs or {}))
        outputs = _tensors(result)
        if outputs:
            frame = _user_frame(sys._getframe(1))
            self.ops.append(
                Op(
                    inputs=_tensors((args, kwargs)),
                    outputs=outputs,
                    code=frame.f_code if frame else None,
                    position=position_in(frame) if frame else None,
                )
            )
        return result

    def family(self, masks: Iterable[torch.Tensor]) -> set[int]:
        """Identities of `masks` and of everything computed from them alone: slices, casts, broadcasts, inversions."""
        family = {id(mask) for mask in masks}
        for op in self.ops:
            arrays = [t for t in op.inputs if t.dim() > 0]
            if arrays and all(id(t) in family for t in arrays):
                family.update(id(t) for t in op.outputs)
        return family

    def applications(self, family: set[int]) -> list[tuple[Op, torch.Tensor]]:
        """The ops in which a mask meets a tensor that is none, with that mask: where it acts."""
        found = []
        for op in self.ops:
            masks = [t for t in op.inputs if id(t) in family]
            others = [t for t in op.inputs if id(t) not in family and t.dim() > 1]
            if masks and others:
                found.append((op, masks[0]))
        return found

    def producer(self, tensor: torch.Tensor) -> Op | None:
        """The op that made `tensor`."""
        return next((op for op in self.ops if any(t is tensor for t in op.outputs)), None)


def describe(mask: torch.Tensor | None) -> str:
    """A mask in words: dtype, shape, how much it blocks and with what value."""
    if mask is None:
        return "None"
    if mask.dtype == torch.bool:
        blocked, value = ~mask, "False"
    else:
        blocked = mask < 0
        value = f"{mask[blocked].max().item():.3g}" if blocked.any() else "nothing"
    shape = "x".join(str(size) for size in mask.shape[1:])
    kind = str(mask.dtype).removeprefix("torch.")
    return f"{kind} [batch x {shape}], blocks {int(blocked[0].sum())} of {blocked[0].numel()} entries with {value}"


def _tensors(value: Any) -> tuple[torch.Tensor, ...]:
    return tuple(leaf for leaf in pytree.tree_leaves(value) if isinstance(leaf, torch.Tensor))


def _user_frame(frame: FrameType | None) -> FrameType | None:
    """The nearest frame that is not torch's own."""
    while frame is not None and frame.f_globals.get("__name__", "").partition(".")[0] == "torch":
        frame = frame.f_back
    return frame
