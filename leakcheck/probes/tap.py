"""A hook on the input embedding: scales it, gives it a gradient, or plants a leak behind it."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from torch import nn


@dataclass
class Tap:
    """`leaves` are the embeddings that the run used, `[batch, seq, hidden]`, as leaves of its graph."""

    leaves: list[torch.Tensor] = field(default_factory=list)


@contextmanager
def tapped(embedding: nn.Module, scale: torch.Tensor, *, plant_at: int | None = None) -> Iterator[Tap]:
    """Multiply the embeddings by `scale` `[batch, seq]` and make them leaves.

    With `plant_at=p`, position `p` also reads a thousandth of its successor: the known leak of the positive control.
    """
    tap = Tap()

    def hook(module: nn.Module, args: tuple, output: torch.Tensor) -> torch.Tensor | None:
        if output.shape[:2] != scale.shape:
            return None
        leaf = (output * scale.to(output.dtype)[..., None]).detach().requires_grad_()
        tap.leaves.append(leaf)
        handed_on = leaf.clone()  # models scale their embeddings in place, which a leaf forbids
        if plant_at is not None:
            handed_on[:, plant_at] += 1e-3 * leaf[:, plant_at + 1]
        return handed_on

    handle = embedding.register_forward_hook(hook)
    try:
        yield tap
    finally:
        handle.remove()
