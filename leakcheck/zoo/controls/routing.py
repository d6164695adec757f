"""Tokens that are sorted, sent away and put back, each by what it is itself or by what came before it."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from leakcheck.zoo.parts import HIDDEN, VOCAB, Mixer, predecessor, so_far
from leakcheck.zoo.registry import control

EXPERTS, ROOM = 3, 2


class Experts(Mixer):
    """Three experts and a router; how tokens get to them is the subclass's."""

    def __init__(self, leaky: bool = False):
        super().__init__(leaky)
        self.router = nn.Linear(HIDDEN, EXPERTS)
        self.experts = nn.ModuleList(nn.Linear(HIDDEN, HIDDEN) for _ in range(EXPERTS))
        self.weight = nn.Parameter(torch.empty(EXPERTS, HIDDEN, HIDDEN))


@control(learned_from="https://arxiv.org/abs/2101.03961")
class MaskedLoop(Experts):
    """All experts see all tokens; each token keeps what its own made."""

    def forward(self, x: Tensor) -> Tensor:
        x = so_far(x)
        weight, chosen = self.router(x).softmax(-1).max(-1)
        made = torch.zeros_like(x)
        for i, expert in enumerate(self.experts):
            made = made + expert(x) * (chosen == i)[..., None]
        return made * weight[..., None]


@control(
    learned_from="https://github.com/huggingface/transformers/blob/main/src/transformers/models/mixtral/modeling_mixtral.py"
)
class GatheredByExpert(Experts):
    """The tokens of an expert are picked out by index, worked on together, and added back."""

    def forward(self, x: Tensor) -> Tensor:
        flat = so_far(x).flatten(0, 1)
        weights, chosen = self.router(flat).softmax(-1).topk(2, dim=-1)
        made = torch.zeros_like(flat)
        mask = F.one_hot(chosen, EXPERTS).permute(2, 1, 0)  # [expert, rank, token]
        for i, expert in enumerate(self.experts):
            rank, token = torch.where(mask[i])
            made.index_add_(0, token, expert(flat[token]) * weights[token, rank, None])
        return made.view(x.shape)


@control(learned_from="https://arxiv.org/abs/2211.15841")
class SortedByExpert(Experts):
    """Tokens are sorted by expert, each row is worked on, and the inverse permutation puts them back."""

    def forward(self, x: Tensor) -> Tensor:
        flat = so_far(x).flatten(0, 1)
        chosen = self.router(flat).argmax(-1)
        order = chosen.argsort()
        rows = flat[order]
        made = torch.tanh(self.experts[0](rows)) * self.weight[:, 0][chosen[order]]
        return made[order.argsort()].view(x.shape)


@control(learned_from="https://github.com/deepseek-ai/DeepSeek-V2/issues/48")
class RoomInOrder(Experts):
    """An expert has room for few tokens; those that come first get it."""

    def forward(self, x: Tensor) -> Tensor:
        scores = self.router(x).softmax(-1)
        chosen = F.one_hot(scores.argmax(-1), EXPERTS)  # [batch, seq, expert]
        place = chosen.cumsum(1) - 1
        kept = chosen * (place < ROOM)
        made = torch.stack([expert(x) for expert in self.experts], -1)
        return (made * (kept * scores)[:, :, None]).sum(-1)


@control(learned_from="https://github.com/sramshetty/mixture-of-depths/pull/4")
class DepthByThreshold(Experts):
    """A token passes through the block if its own score is above a fixed number."""

    def forward(self, x: Tensor) -> Tensor:
        score = self.router(x)[..., :1]
        return torch.where(score > 0, self.experts[0](so_far(x)), x)


@control(learned_from="https://arxiv.org/abs/2106.04426")
class HashedByToken(nn.Module):
    """The expert is told by the token's number: a table of weights is indexed by ids."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(VOCAB, HIDDEN)
        self.experts = nn.Parameter(torch.empty(EXPERTS, HIDDEN, HIDDEN))
        self.head = nn.Linear(HIDDEN, VOCAB)

    def forward(self, input_ids: Tensor) -> Tensor:
        x = so_far(self.embed(input_ids))
        return self.head((x[..., None, :] @ self.experts[input_ids % EXPERTS]).squeeze(-2))


@control(learned_from="https://arxiv.org/abs/2408.15664")
class BalancedByStoredLoad(Experts):
    """The bias against crowded experts is a buffer, of past batches."""

    def __init__(self, leaky: bool = False):
        super().__init__(leaky)
        self.register_buffer("load", torch.tensor([0.2, 0.5, 0.3]))

    def forward(self, x: Tensor) -> Tensor:
        x = so_far(x)
        scores = self.router(x).softmax(-1)
        at = (scores - self.load).topk(2, dim=-1).indices
        gates = torch.zeros_like(scores).scatter(-1, at, scores.gather(-1, at))
        return (torch.stack([expert(x) for expert in self.experts], -1) * gates[:, :, None]).sum(-1)


@control(learned_from="https://docs.pytorch.org/docs/stable/generated/torch.argsort.html")
class SortedByPositionAndBack(Mixer):
    """Positions are put in another order, of their own numbers, and back by a sort of that order."""

    def forward(self, x: Tensor) -> Tensor:
        order = (torch.arange(x.shape[1]) * 7 % x.shape[1]).argsort(stable=True)
        return so_far(x[:, order][:, order.argsort()])


@control(learned_from="https://docs.pytorch.org/docs/stable/generated/torch.roll.html")
class RolledAndMasked(Mixer):
    """A roll brings the last position to the front, where it is multiplied by zero."""

    def forward(self, x: Tensor) -> Tensor:
        inside = (torch.arange(x.shape[1]) >= 2)[:, None]
        return x.roll(2, 1) * inside + so_far(x)


@control(learned_from="https://github.com/pytorch/pytorch/issues/33520")
class FlippedTwice(Mixer):
    """Reversed, shifted the other way, and reversed again."""

    def forward(self, x: Tensor) -> Tensor:
        reversed_ = x.flip(1)
        later = torch.cat([reversed_[:, 1:], torch.zeros_like(x[:, :1])], 1)
        return later.flip(1)


@control(learned_from="https://arxiv.org/abs/2402.13753")
class WayByLength(Mixer):
    """Long sequences go another way through the code than short ones; the length is no token's value."""

    def forward(self, x: Tensor) -> Tensor:
        if x.shape[1] % 2 == 0 or x.shape[1] < 8:
            return so_far(x)
        blocks = x.split(4, 1)
        return torch.cat([block + block.mean(-1, keepdim=True) for block in blocks], 1) + predecessor(x)


@control(learned_from="https://arxiv.org/abs/2412.19437")
class FurtherHeadsApart(nn.Module):
    """Heads for later tokens feed on what the first one knows; the logits of all of them stand side by side."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(VOCAB, HIDDEN)
        self.further = nn.ModuleList(nn.Linear(HIDDEN, HIDDEN) for _ in range(2))
        self.head = nn.Linear(HIDDEN, VOCAB)

    def forward(self, input_ids: Tensor) -> Tensor:
        x = so_far(self.embed(input_ids))
        made = [self.head(x)]
        for layer in self.further:
            x = torch.tanh(layer(x))
            made.append(self.head(x))
        return torch.cat(made, -1)
