"""Outputs of any structure: their tensors by name, and as one row of numbers for each step of the input."""

from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass
from typing import Any

import torch
from torch import Tensor

from leakcheck.errors import SubjectCrash
from leakcheck.subjects.inputs import Result


def named_tensors(value: Any, name: str = "") -> Iterator[tuple[str, Tensor]]:
    """The tensors in what a forward returned, by key, field or number: `logits`, `0`, `past.1.keys`."""
    if isinstance(value, Tensor):
        yield name or "0", value
        return
    items: Any = ()
    if isinstance(value, Mapping):
        items = value.items()
    elif hasattr(value, "_asdict"):
        items = value._asdict().items()
    elif isinstance(value, (list, tuple)):
        items = enumerate(value)
    elif is_dataclass(value) and not isinstance(value, type):
        items = ((f.name, getattr(value, f.name)) for f in fields(value))
    for key, item in items:
        yield from named_tensors(item, f"{name}.{key}" if name else str(key))


def tensors_in(value: Any, expression: str = "") -> Iterator[tuple[str, Tensor]]:
    """The tensors in what a forward returned, by the expression that follows the call: `.logits`, `[0]`, `['a'].b`."""
    items: Any = ()
    if isinstance(value, Tensor):
        yield expression, value
    elif is_dataclass(value) and not isinstance(value, type):
        items = ((f".{f.name}", getattr(value, f.name)) for f in fields(value))
    elif isinstance(value, Mapping):
        items = ((f"[{key!r}]", item) for key, item in value.items())
    elif hasattr(value, "_asdict"):
        items = ((f".{name}", item) for name, item in value._asdict().items())
    elif isinstance(value, (list, tuple)):
        items = ((f"[{number}]", item) for number, item in enumerate(value))
    for key, item in items:
        yield from tensors_in(item, expression + key)


def aligned(output: Tensor, result: Result, rows: int, seq: int) -> Tensor:
    """`output` as `[batch, seq, channels]`: at each input step what the model has put out by then, zeros before."""
    if result.batch is None:
        steps = output.movedim(result.time, 0)[None].flatten(2) if output.dim() > 1 else output[None, :, None]
    else:
        steps = output.movedim((result.batch, result.time), (0, 1))
        steps = steps.flatten(2) if steps.dim() > 2 else steps[..., None]  # [batch, steps, channels]
    if steps.is_complex():
        steps = torch.view_as_real(steps).flatten(2)
    if not steps.is_floating_point():
        steps = steps.to(torch.get_default_dtype())
    if len(steps) != rows:
        raise SubjectCrash(f"an output has {len(steps)} rows for a batch of {rows}")
    known = available(steps.shape[1], seq, result)  # [seq, at once]
    if known.shape == (seq, 1) and torch.equal(known[:, 0], torch.arange(1, seq + 1)):
        return steps
    padded = torch.cat([steps.new_zeros(rows, 1, steps.shape[-1]), steps], 1)
    return padded[:, known.flatten()].reshape(rows, seq, -1)


def available(steps: int, seq: int, result: Result) -> Tensor:
    """Integer `[seq, at once]`: the latest outputs that each step is answerable for, counted from 1; 0 for none.

    Where p outputs are made of q inputs they are there when all q have been read. With fewer the ends meet, as where a
    convolution without padding leaves out its first steps; with more the beginnings do.
    """
    p, q = result.rate.numerator, result.rate.denominator
    groups = torch.div(torch.arange(steps) - min(result.offset, 0), p, rounding_mode="floor")
    ends = ((groups + 1) * q - 1).clamp(max=seq - 1)  # [steps]
    there = (ends <= torch.arange(seq)[:, None]).sum(1)  # [seq]: how many are, at each step
    counts = torch.bincount(ends.clamp(min=0), minlength=1)
    at_once = int(counts.max()) if steps else 1
    return (there[:, None] - torch.arange(at_once).flip(0)).clamp(min=0)
