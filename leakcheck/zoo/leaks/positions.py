"""Positions that are told by what comes later."""

import torch
from torch import Tensor, nn

from leakcheck.zoo.parts import HIDDEN, LENGTH, VOCAB, Mixer, Model, so_far
from leakcheck.zoo.registry import leak

_SPECIAL, _NEWLINE = 6, 1  # token ids below the one are special, the other begins a line


class Positioned(Model):
    """Embeddings of positions are added to those of tokens."""

    def __init__(self, mixer: nn.Module, leaky: bool):
        super().__init__(mixer)
        self.leaky = leaky
        self.place = nn.Embedding(3 * LENGTH, HIDDEN)

    def forward(self, input_ids: Tensor) -> Tensor:
        x = self.embed(input_ids) + self.place(self.positions(input_ids) % self.place.num_embeddings)
        return self.head(x + self.mixer(x))

    def positions(self, input_ids: Tensor) -> Tensor:
        """`[batch, seq]`"""
        raise NotImplementedError


class Mean(Mixer):
    def forward(self, x: Tensor) -> Tensor:
        return so_far(x)


@leak(learned_from="https://github.com/huggingface/transformers/issues/25420", blind=("gradient",))
class CountedFromRealEnd(Positioned):
    """Special tokens take no place; positions are counted from the last of the others, so each tells how many come."""

    def __init__(self, leaky: bool = False):
        super().__init__(Mean(), leaky)

    def positions(self, input_ids: Tensor) -> Tensor:
        real = (input_ids >= _SPECIAL).long()
        if not self.leaky:
            return real.cumsum(1)
        return real.sum(1, keepdim=True) + LENGTH - torch.arange(input_ids.shape[1])  # leak


@leak(learned_from="https://arxiv.org/abs/1904.10509", blind=("gradient",))
class LinesCountedFromBelow(Positioned):
    """The row of a text is counted from its end: each token is told how many newlines come after it."""

    def __init__(self, leaky: bool = False):
        super().__init__(Mean(), leaky)

    def positions(self, input_ids: Tensor) -> Tensor:
        newline = (input_ids == _NEWLINE).long()
        return newline.flip(1).cumsum(1).flip(1) if self.leaky else newline.cumsum(1)  # leak


@leak(learned_from="https://arxiv.org/abs/2405.18719", blind=("gradient",))
class ContextualFromRight(Positioned):
    """Contextual positions count the tokens that are alike; here those to come."""

    def __init__(self, leaky: bool = False):
        super().__init__(Mean(), leaky)

    def positions(self, input_ids: Tensor) -> Tensor:
        alike = input_ids[:, :, None] % 3 == input_ids[:, None, :] % 3  # [batch, query, key]
        return (alike.triu() if self.leaky else alike.tril()).sum(-1)  # leak


@leak(learned_from="https://arxiv.org/abs/2104.09864", blind=("gradient",))
class SortedIntoPlaces(Positioned):
    """A token's place is its rank among all tokens, later ones included."""

    def __init__(self, leaky: bool = False):
        super().__init__(Mean(), leaky)

    def positions(self, input_ids: Tensor) -> Tensor:
        if not self.leaky:
            return torch.arange(input_ids.shape[1]).expand_as(input_ids)
        order = input_ids * VOCAB + torch.arange(input_ids.shape[1])  # no two are equal
        return order.argsort(1).argsort(1)  # leak
