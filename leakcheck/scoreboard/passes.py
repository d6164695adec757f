"""What a detector costs, in plain forwards of one sequence and in backward passes."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from unittest import mock

from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_hook


@dataclass
class Passes:
    """`elements` came out of modules without parts; divided by those of one plain forward, that many forwards ran.

    So a batch of five sequences is five forwards, and a stage that runs once more is its part of one.
    """

    elements: int = 0
    backwards: int = 0


@contextmanager
def counted() -> Iterator[Passes]:
    """Counts what runs inside, whoever owns the model: a detector may work on a copy."""
    import torch.autograd

    passes, run = Passes(), torch.autograd._engine_run_backward  # what both `backward` and `grad` end in

    def forwards(module: nn.Module, args: tuple, output: Any) -> None:
        if isinstance(output, Tensor) and next(module.children(), None) is None:
            passes.elements += output.numel()

    def backwards(*args: Any, **kwargs: Any) -> Any:
        passes.backwards += 1
        return run(*args, **kwargs)

    handle = register_module_forward_hook(forwards)
    try:
        with mock.patch.object(torch.autograd, "_engine_run_backward", backwards):
            yield passes
    finally:
        handle.remove()
