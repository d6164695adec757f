"""Documents that are packed into one row do not reach each other."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from leakcheck import codes
from leakcheck.auditing.policies.question import Order, Question
from leakcheck.auditing.policies.registry import policy
from leakcheck.auditing.policies.running import ROWS, drawn, forward, steps_alone, usable
from leakcheck.config import Configuration
from leakcheck.probes.probe import Prober
from leakcheck.subjects.function import forward_parameters
from leakcheck.subjects.subject import unwrapped

_NUMBERS = ("document_ids", "doc_ids", "segment_ids", "seq_idx")  # arguments that number the documents
_BORDERS = "cu_seqlens"
_POSITIONS = "position_ids"
_DOCUMENTS = 3


@policy("document", needs=f"an argument that tells documents apart: {', '.join((_POSITIONS, *_NUMBERS, _BORDERS))}")
def document(prober: Prober, configuration: Configuration) -> Sequence[Question]:
    """Labels are documents: no position sees a token of another one, earlier or later in its row.

    Positions that begin anew are a sign of packing only where no mask is given: an all-ones mask says that all may be
    seen.
    """
    taken = _taken(prober.model)
    masks = ("none", "ones") if set(taken) - {_POSITIONS} else ("none",)
    if not taken or configuration.mask not in masks or not steps_alone(prober) or prober.seq < 2 * _DOCUMENTS:
        return ()
    rows = 1 if _BORDERS in taken else ROWS
    lengths = _lengths(prober.seq)
    index = torch.stack([_numbered(lengths[row:] + lengths[:row]) for row in range(rows)])
    return [
        Question(
            code=codes.DOCUMENT_DEPENDENCE,
            what=f"another document of its row, told by {' and '.join(taken)}",
            run=forward(configuration, {name: _told(name, index) for name in taken}),
            tokens=drawn(prober, rows),
            valid=usable(prober, configuration, rows),
            orders=Order.both_ways(index),
            groups=tuple((f"document {number + 1}", index == number) for number in range(_DOCUMENTS)),
        )
    ]


def _taken(model: nn.Module) -> list[str]:
    """The arguments of the forward that tell documents apart."""
    parameters = forward_parameters(unwrapped(model))
    return [name for name in (*_NUMBERS, _BORDERS, _POSITIONS) if name in parameters]


def _lengths(seq: int) -> list[int]:
    """Lengths of the documents of a row, no two of them the same where there is room."""
    first = max(1, seq // 3 - 1)
    second = seq // 3
    return [first, second, seq - first - second]


def _numbered(lengths: Sequence[int]) -> Tensor:
    return torch.repeat_interleave(torch.arange(len(lengths)), torch.tensor(lengths))  # [seq]


def _told(name: str, index: Tensor) -> Any:
    """The value of an argument for documents `index` `[rows, seq]`, which count from 0."""
    begins = torch.ones_like(index, dtype=torch.bool)
    begins[:, 1:] = index[:, 1:] != index[:, :-1]
    if name == _BORDERS:
        return torch.cat([begins[0].nonzero()[:, 0], torch.tensor([index.shape[1]])]).int()  # [documents + 1]
    if name == _POSITIONS:
        at = torch.arange(index.shape[1]).expand_as(index)
        return at - torch.where(begins, at, 0).cummax(1).values
    return index + 1  # 0 is padding to some
