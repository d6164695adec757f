"""A hook on the input embedding: scales it, gives it a gradient, or plants a leak behind it."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from torch import nn

from leakcheck.probes.draws import Plant


@dataclass
class Tap:
    """`leaves` are the embeddings that the run used, `[batch, seq, hidden]`, as leaves of its graph."""

    leaves: list[torch.Tensor] = field(default_factory=list)


@contextmanager
def tapped(embedding: nn.Module, scale: torch.Tensor, *, plant: Plant | None = None) -> Iterator[Tap]:
    """Multiply the embeddings by `scale` `[batch, seq]` and make them leaves.

    What is planted reads a thousandth of its source: the known leak of the positive control.
    """
    tap = Tap()

    def hook(module: nn.Module, args: tuple, output: torch.Tensor) -> torch.Tensor | None:
        if output.shape[:2] != scale.shape:
            return None
        if not output.is_floating_point():  # ids of a model without an embedding: nothing to scale, no gradient
            return output if plant is None else planted(output, plant)
        leaf = (output * scale.to(output.dtype)[..., None]).detach().requires_grad_()
        tap.leaves.append(leaf)
        handed_on = leaf.clone()  # models scale their embeddings in place, which a leaf forbids
        if plant is not None:
            handed_on[:, plant.inputs] += 1e-3 * leaf[:, plant.source, None]
        return handed_on

    def planted(ids: torch.Tensor, plant: Plant) -> torch.Tensor:
        handed_on = ids.clone()
        handed_on[:, plant.inputs] = (ids[:, plant.inputs] + ids[:, plant.source, None]) // 2  # stays in the vocabulary
        return handed_on

    handle = embedding.register_forward_hook(hook)
    try:
        yield tap
    finally:
        handle.remove()
