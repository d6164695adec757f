"""Attention written out: masks that block, are added, scaled, multiplied or chosen, on their way through several ops."""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from tests.flow.conformance.spec import Sample, finite, flags, ints, program, sound

KEEP = torch.ones(3, 3, dtype=torch.bool).tril()
ITSELF = torch.eye(3, dtype=torch.bool)
LOWEST = torch.finfo(torch.float64).min


def additive(value: float) -> Tensor:
    return torch.zeros(3, 3, dtype=torch.float64).masked_fill(~KEEP, value)


def by_hand(scores: Tensor) -> Tensor:
    """Softmax as older code has it."""
    weights = (scores - scores.amax(-1, keepdim=True)).exp()
    return weights / weights.sum(-1, keepdim=True)


def by_max_and_indices(scores: Tensor) -> Tensor:
    weights = (scores - scores.max(-1, keepdim=True).values).exp()
    return weights / weights.sum(-1, keepdim=True)


def by_logs(scores: Tensor) -> Tensor:
    return (scores - scores.logsumexp(-1, keepdim=True)).exp()


def masked(
    mask: Callable[[Tensor], Tensor], normalise: Callable[[Tensor], Tensor] | None = None
) -> Callable[..., Tensor]:
    """`normalise(mask(q k^T)) v`, all `[3 positions, 2]`."""

    def attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return (normalise or (lambda scores: scores.softmax(-1)))(mask(q @ k.mT)) @ v

    return attention


MASKS: list[Callable[[Tensor], Tensor]] = [
    lambda s: s + additive(-math.inf),
    lambda s: s + additive(LOWEST),
    lambda s: s + additive(-1e9),
    lambda s: s - 1e9 * (~KEEP).double(),
    lambda s: s - 1e30 * (~KEEP).double(),
    lambda s: torch.add(s, (~KEEP).double(), alpha=-1e9),
    lambda s: (s + additive(-1e9)) * 0.5,
    lambda s: (s + additive(LOWEST)) * 0.5,
    lambda s: (s + additive(-1e9)) / 2.0,
    lambda s: s.masked_fill(~KEEP, -1e9),
    lambda s: s.masked_fill(~KEEP, -math.inf) + additive(-1e9),
    lambda s: torch.where(KEEP, s, -1e4),
    lambda s: torch.where(KEEP, s, torch.tensor(LOWEST, dtype=s.dtype)) * torch.ones(3, 1, dtype=s.dtype),
    lambda s: torch.minimum(s, additive(-math.inf) + 1e9),
    lambda s: torch.max(s + additive(-1e9), torch.tensor(LOWEST, dtype=s.dtype)),
    lambda s: (s + additive(-1e9)).clamp(min=LOWEST),
    lambda s: (s + additive(-1e9)).to(torch.float32).to(s.dtype),
    lambda s: s * KEEP - 1e9 * (1 - KEEP.double()),
    lambda s: torch.baddbmm(additive(-1e9)[None], s[None], torch.eye(3, dtype=s.dtype)[None])[0],
    lambda s: s.clone().masked_fill_(~KEEP, -1e9),
    lambda s: s.clone().add_(additive(-math.inf)),
]  # fmt: skip


# Causal, and no key that is padding by its id, which is an input like the key. A query always sees itself: where tokens
# can mask all that a query sees, softmax gives it everything, and flow takes it that this is a padded query, never used.


def _padded(q: Tensor, k: Tensor, v: Tensor, ids: Tensor, value: float, first: bool) -> Tensor:
    padding = (ids == 0) & ~ITSELF
    masks = (padding, ~KEEP) if first else (~KEEP, padding)
    return (q @ k.mT).masked_fill(masks[0], value).masked_fill(masks[1], value).softmax(-1) @ v


def _combined(q: Tensor, k: Tensor, v: Tensor, ids: Tensor) -> Tensor:
    keep = KEEP & ((ids != 0) | ITSELF)
    return (q @ k.mT + torch.where(keep, 0.0, -1e9).double()).softmax(-1) @ v


def _either(q: Tensor, k: Tensor, v: Tensor, hidden: Tensor) -> Tensor:
    return (q @ k.mT).masked_fill(~KEEP | (hidden & ~ITSELF), LOWEST).softmax(-1) @ v


def _inverted(q: Tensor, k: Tensor, v: Tensor, keep: Tensor) -> Tensor:
    """The extended mask of older libraries."""
    mask = (1.0 - (KEEP & (keep | ITSELF)).double()) * LOWEST
    return (q @ k.mT + mask).softmax(-1) @ v


_QKV = (finite(3, 2), finite(3, 2), finite(3, 2))

# By rows that hold no live score at all, where everything comes through again.
_NO_LIVE_SCORE = [
    lambda s: s + torch.full((3, 3), -1e9, dtype=s.dtype),
    lambda s: s + additive(-1e9) + additive(-1e9).flip(-1),
    lambda s: s.masked_fill(~KEEP, -math.inf) + torch.full((3, 3), -1e9, dtype=s.dtype),
]

PROGRAMS: list[Sample] = [
    *(sound(program("aten::_softmax", masked(mask), *_QKV)) for mask in MASKS),
    *(sound(program("aten::exp", masked(mask, by_hand), *_QKV)) for mask in (*MASKS[::4], *_NO_LIVE_SCORE)),
    *(sound(program("aten::max", masked(mask, by_max_and_indices), *_QKV)) for mask in (*MASKS[::4], *_NO_LIVE_SCORE)),
    *(sound(program("aten::logsumexp", masked(mask, by_logs), *_QKV)) for mask in (*MASKS[::4], *_NO_LIVE_SCORE)),
    *(sound(program("aten::_log_softmax", masked(mask, lambda s: s.log_softmax(-1).exp()), *_QKV))
      for mask in (*MASKS[::4], *_NO_LIVE_SCORE)),
    *(sound(program("aten::_softmax", masked(mask), *_QKV)) for mask in _NO_LIVE_SCORE),
    *(sound(program("aten::masked_fill", lambda q, k, v, ids, n=value, f=first: _padded(q, k, v, ids, n, f),
                    *_QKV, ints(3, high=3)))
      for value in (-1e9, LOWEST) for first in (True, False)),
    sound(program("aten::where", _combined, *_QKV, ints(3, high=3))),
    sound(program("aten::bitwise_or", _either, *_QKV, flags(3))),
    sound(program("aten::mul", _inverted, *_QKV, flags(3))),
]  # fmt: skip
