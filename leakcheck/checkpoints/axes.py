"""Which axis of a tensor is the batch, which the sequence: told apart by sizes that nothing else in the model has."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.utils import _pytree as pytree


@dataclass(frozen=True)
class Axes:
    """Sizes of the batch and of the sequence in one run; both are chosen unlike any size of the model."""

    batch: int
    seq: int

    def rows(self, tensor: torch.Tensor) -> torch.Tensor | None:
        """`tensor` as `[batch, seq, features]`, or `None` where it has no such axes.

        The first sequence axis is the position (the query, for attention weights); what is left is flattened. A batch
        axis of size one is expanded: it is the same for every row. `[batch * seq, features]` is unfolded.
        """
        order = self._axes(tensor)
        if order is None:
            if tensor.dim() >= 1 and tensor.shape[0] == self.batch * self.seq:
                return tensor.reshape(self.batch, self.seq, -1)
            return None
        batch, seq = order
        moved = tensor.movedim((batch, seq), (0, 1))
        return moved.reshape(moved.shape[0], self.seq, -1).expand(self.batch, -1, -1)

    def patch(self, tensor: torch.Tensor, source: torch.Tensor) -> torch.Tensor:
        """`tensor` with each row and position taken from the batch row that `source` `[batch, seq]` names.

        A tensor without both axes comes back as it is.
        """
        order = self._axes(tensor)
        columns = torch.arange(self.seq)
        if order is None:
            if tensor.dim() >= 1 and tensor.shape[0] == self.batch * self.seq:
                return tensor.unflatten(0, (self.batch, self.seq))[source, columns].flatten(0, 1)
            return tensor
        batch, seq = order
        if tensor.shape[batch] != self.batch:
            return tensor
        moved = tensor.movedim((batch, seq), (0, 1))
        return moved[source, columns].movedim((0, 1), (batch, seq))

    def pairwise(self, tensor: torch.Tensor) -> bool:
        """Whether the tensor relates positions to positions, `[..., query, key]`: attention weights and masks."""
        return tensor.dim() >= 4 and tensor.shape[-2:] == (self.seq, self.seq)

    def _axes(self, tensor: torch.Tensor) -> tuple[int, int] | None:
        if tensor.dim() < 2:
            return None
        positions = [i for i, size in enumerate(tensor.shape) if size == self.seq]
        if not positions:
            return None
        seq = tensor.dim() - 2 if self.pairwise(tensor) else positions[0]
        batch = next((i for i, size in enumerate(tensor.shape) if size == self.batch and i != seq), None)
        if batch is None:
            batch = 0 if tensor.shape[0] == 1 and seq != 0 else None
        return None if batch is None else (batch, seq)


def tensors_in(value: Any) -> list[torch.Tensor]:
    """The tensors in a nested result, parameters left out: they are the model's, not the run's."""
    leaves = pytree.tree_leaves(value)
    return [leaf for leaf in leaves if isinstance(leaf, torch.Tensor) and not isinstance(leaf, nn.Parameter)]
