"""Routing in which tokens compete with later ones: for experts, for room, for being worked on at all."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from leakcheck.zoo.parts import HIDDEN, Mixer, so_far
from leakcheck.zoo.registry import leak

EXPERTS, ROOM = 2, 2


class Experts(Mixer):
    """Two experts and a router; which tokens go where is the subclass's."""

    def __init__(self, leaky: bool = False):
        super().__init__(leaky)
        self.router = nn.Linear(HIDDEN, EXPERTS)
        self.experts = nn.ModuleList(nn.Linear(HIDDEN, HIDDEN) for _ in range(EXPERTS))

    def outputs(self, x: Tensor) -> Tensor:
        """What each expert makes of each token, `[batch, seq, hidden, expert]`."""
        return torch.stack([expert(x) for expert in self.experts], -1)

    def mixed(self, x: Tensor, gates: Tensor) -> Tensor:
        """The experts' outputs weighted by gates, `[batch, seq or 1, expert]`."""
        return (self.outputs(x) * gates[:, :, None]).sum(-1)


@leak(learned_from="https://github.com/Shwai-He/MEO/issues/2")
class RoutedByMean(Experts):
    """The router reads the mean of the sequence, so that all of its tokens go to one mixture of experts."""

    def forward(self, x: Tensor) -> Tensor:
        read = x.mean(1, keepdim=True) if self.leaky else so_far(x)  # leak
        return self.mixed(x, self.router(read).softmax(-1))


@leak(learned_from="https://github.com/piotrpiekos/MoSA/issues/3", shortest=ROOM + 1, blind=("gradient",))
class ExpertsChoose(Experts):
    """Each expert takes the tokens that score highest for it (expert choice)."""

    def forward(self, x: Tensor) -> Tensor:
        scores = self.router(x).softmax(-1)
        if not self.leaky:
            return self.mixed(x, scores)
        chosen = scores.topk(ROOM, dim=1).indices  # leak
        taken = torch.zeros_like(scores).scatter(1, chosen, 1)
        return self.mixed(x, scores * taken)


@leak(learned_from="https://github.com/sramshetty/mixture-of-depths/pull/4", shortest=ROOM + 1, blind=("gradient",))
class DepthByRank(Experts):
    """Only the tokens with the highest weights of the sequence pass through the block (mixture of depths)."""

    def forward(self, x: Tensor) -> Tensor:
        weight = self.router(x)[..., 0]
        if not self.leaky:
            return self.experts[0](x) * (weight > 0)[..., None] * weight[..., None]
        weight, chosen = weight.topk(ROOM, dim=1)  # leak
        chosen = chosen[..., None].expand(-1, -1, HIDDEN)
        return torch.zeros_like(x).scatter(1, chosen, self.experts[0](x.gather(1, chosen)) * weight[..., None])


@leak(learned_from="https://github.com/deepseek-ai/DeepSeek-V2/issues/48", shortest=ROOM + 1, blind=("gradient",))
class RoomByScore(Mixer):
    """An expert has room for few tokens and drops those with the lowest scores, not those that came last."""

    def __init__(self, leaky: bool = False):
        super().__init__(leaky)
        self.router = nn.Linear(HIDDEN, HIDDEN)  # each feature is an expert

    def forward(self, x: Tensor) -> Tensor:
        scores = self.router(x).sigmoid()
        if self.leaky:
            ahead = (scores[:, None] > scores[:, :, None]).sum(2)  # leak
        else:
            ahead = (scores > 0.5).cumsum(1)
        return so_far(x * scores * (ahead < ROOM))


@leak(learned_from="https://github.com/michaelsdr/sinkformers/issues/1")
class SinkhornRouted(Experts):
    """The scores are normalised over tokens and over experts in turn, so that every expert gets its share."""

    def forward(self, x: Tensor) -> Tensor:
        gates = self.router(x).exp()
        for _ in range(2):
            if self.leaky:
                gates = gates / gates.sum(1, keepdim=True)  # leak
            gates = gates / gates.sum(2, keepdim=True)
        return self.mixed(x, gates)


@leak(learned_from="https://arxiv.org/abs/2308.00951")
class SlotsOfAllTokens(Experts):
    """Each expert works on a slot, a mixture of all tokens, that is handed back to all of them (soft experts)."""

    def forward(self, x: Tensor) -> Tensor:
        scores = self.router(x)
        if not self.leaky:
            return self.mixed(so_far(x), scores.softmax(-1))
        slots = scores.softmax(1).mT @ x  # leak
        made = torch.stack([expert(slots[:, i]) for i, expert in enumerate(self.experts)], 1)
        return scores.softmax(-1) @ made


@leak(learned_from="https://arxiv.org/abs/2408.15664", blind=("gradient",))
class BalancedByOwnLoad(Experts):
    """A bias against crowded experts is taken from the load of this very sequence, not from past batches."""

    def forward(self, x: Tensor) -> Tensor:
        scores = self.router(x)
        chosen = F.one_hot(scores.argmax(-1), EXPERTS).to(x.dtype)
        load = chosen.mean(1, keepdim=True) if self.leaky else torch.full((1, 1, EXPERTS), 0.5)  # leak
        picked = F.one_hot((scores - 4 * load).argmax(-1), EXPERTS)
        return self.mixed(x, picked * scores.softmax(-1).detach() + 0 * scores)


@leak(learned_from="https://arxiv.org/abs/1611.01144", blind=("gradient",))
class HardPickOverTime(Mixer):
    """Each feature picks one position by straight-through Gumbel softmax, and all positions read what it picked."""

    def __init__(self, leaky: bool = False):
        super().__init__(leaky)
        self.scores = nn.Linear(HIDDEN, HIDDEN)

    def forward(self, x: Tensor) -> Tensor:
        picked = F.gumbel_softmax(self.scores(x), hard=True, dim=1 if self.leaky else 2)  # leak
        read = (picked * x).sum(1, keepdim=True) if self.leaky else so_far(picked * x)
        return x + read


@leak(learned_from="https://arxiv.org/abs/1807.03819", blind=("flow", "gradient"))
class HaltedTogether(Experts):
    """How often a block is applied depends on how hard the whole sequence is, not on each position."""

    def forward(self, x: Tensor) -> Tensor:
        effort = 8 * self.router(x)[..., 0].sigmoid()  # [batch, seq]
        state = so_far(x)
        if not self.leaky:
            for step in range(8):
                state = torch.where((step < effort)[..., None], torch.tanh(self.experts[0](state)), state)
            return state
        for _ in range(int(effort.mean())):  # leak
            state = torch.tanh(self.experts[0](state))
        return state


@leak(learned_from="https://arxiv.org/abs/2210.09461", shortest=3)
class SimilarMerged(Mixer):
    """Every second token is merged into the most similar one of the others, wherever it stands (token merging)."""

    def forward(self, x: Tensor) -> Tensor:
        similar = F.normalize(x, dim=-1) @ F.normalize(x, dim=-1).mT
        if not self.leaky:
            later = torch.ones(x.shape[1], x.shape[1], dtype=torch.bool).triu(1)
            return similar.masked_fill(later, 0) @ x
        nearest = similar[:, ::2, 1::2].argmax(-1)
        merged = x.clone()
        return merged.index_put((torch.arange(len(x))[:, None], 2 * nearest + 1), x[:, ::2], accumulate=True)  # leak


@leak(learned_from="https://arxiv.org/abs/2003.05997")
class ClusteredByCentroids(Experts):
    """Tokens read the centroid of their cluster, which is made of all of its tokens (routing attention)."""

    def forward(self, x: Tensor) -> Tensor:
        cluster = F.one_hot(self.router(x).argmax(-1), EXPERTS).to(x.dtype)  # [batch, seq, cluster]
        if self.leaky:
            sums, sizes = cluster.mT @ x, cluster.sum(1)[..., None]  # leak
            return cluster @ (sums / sizes.clamp(min=1))
        sums, sizes = (cluster[..., None] * x[:, :, None]).cumsum(1), cluster.cumsum(1)[..., None]
        return (cluster[..., None] * sums / sizes.clamp(min=1)).sum(2)


@leak(learned_from="https://arxiv.org/abs/2001.04451")
class BucketsUnmasked(Experts):
    """Positions see those whose hash falls into their bucket, later ones too (locality-sensitive hashing)."""

    def forward(self, x: Tensor) -> Tensor:
        bucket = self.router(x).argmax(-1)  # [batch, seq]
        same = bucket[:, :, None] == bucket[:, None]
        if not self.leaky:
            same = same & torch.ones(x.shape[1], x.shape[1], dtype=torch.bool).tril()
        scores = (x @ x.mT).masked_fill(~same, -torch.inf)
        return scores.softmax(-1) @ x  # leak
