"""What leaks and controls are made of: a small language model, and mixers of its positions."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

VOCAB, HIDDEN, HEADS = 17, 12, 3
LENGTH = 11  # that is audited, if it shows it: unlike every size of every small model, so that axes are told apart


class Mixer(nn.Module):
    """Hidden states `[batch, seq, hidden]` to hidden states; `leaky` chooses the leak or the clean twin."""

    def __init__(self, leaky: bool = False):
        super().__init__()
        self.leaky = leaky


class Mixing(Mixer):
    """A function of hidden states `[batch, seq, hidden]` as a mixer."""

    def __init__(self, function: Callable[[Tensor], Tensor]):
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


class Model(nn.Module):
    """Embedding, a mixer with a residual around it, a feed-forward layer, logits `[batch, seq, vocab]`."""

    def __init__(self, mixer: nn.Module):
        super().__init__()
        self.embed = nn.Embedding(VOCAB, HIDDEN)
        self.mixer = mixer
        self.ff = nn.Sequential(nn.Linear(HIDDEN, 2 * HIDDEN), nn.GELU(), nn.Linear(2 * HIDDEN, HIDDEN))
        self.head = nn.Linear(HIDDEN, VOCAB)

    def forward(self, input_ids: Tensor) -> Tensor:
        x = self.embed(input_ids)  # [batch, seq, hidden]
        x = x + self.mixer(x)
        x = x + self.ff(x)
        return self.head(x)  # output


class Attention(Mixer):
    """Multi-head attention up to the scores, and from the mixed values on; what is between is the subclass's."""

    def __init__(self, leaky: bool = False):
        super().__init__(leaky)
        self.qkv = nn.Linear(HIDDEN, 3 * HIDDEN)
        self.out = nn.Linear(HIDDEN, HIDDEN)

    def split(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values, each `[batch, heads, seq, features]`."""
        q, k, v = self.qkv(x).view(*x.shape[:2], 3, HEADS, -1).permute(2, 0, 3, 1, 4)
        return q, k, v

    def merge(self, mixed: Tensor) -> Tensor:
        """`[batch, heads, seq, features]` to `[batch, seq, hidden]`."""
        return self.out(mixed.transpose(1, 2).flatten(2))

    def causal(self, x: Tensor, diagonal: int = 0) -> Tensor:
        """bool `[query, key]`, true where the key may be seen."""
        return torch.ones(x.shape[1], x.shape[1], dtype=torch.bool).tril(diagonal)


def so_far(x: Tensor) -> Tensor:
    """The mean of all positions up to each; `x` is `[batch, seq, hidden]`."""
    return x.cumsum(1) / torch.arange(1, x.shape[1] + 1)[:, None]


def successor(x: Tensor) -> Tensor:
    """`[batch, seq, hidden]` read one position ahead; zero at the end."""
    return torch.cat([x[:, 1:], torch.zeros_like(x[:, :1])], 1)


def predecessor(x: Tensor) -> Tensor:
    """`[batch, seq, hidden]` read one position back; zero at the beginning."""
    return torch.cat([torch.zeros_like(x[:, :1]), x[:, :-1]], 1)
