"""Norms, quantisation and noise that stay at their position, or look back only."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrizations

from leakcheck.zoo.parts import HEADS, HIDDEN, VOCAB, Mixer, Mixing, Model, so_far
from leakcheck.zoo.registry import control


@control(learned_from="https://arxiv.org/abs/1809.07454")
class CumulativeNorm(Mixer):
    """Mean and variance of all features of all positions so far (cumulative layer norm)."""

    def forward(self, x: Tensor) -> Tensor:
        count = torch.arange(1, x.shape[1] + 1)[:, None] * HIDDEN
        mean = x.sum(2, keepdim=True).cumsum(1) / count
        power = x.square().sum(2, keepdim=True).cumsum(1) / count
        return (x - mean) / (power - mean.square() + 1e-3).clamp(min=1e-3).sqrt()


@control(learned_from="https://arxiv.org/abs/1607.06450")
class NormOfHeads(Mixer):
    """Layer norm over two axes, heads and features, of which neither is time."""

    def __init__(self, leaky: bool = False):
        super().__init__(leaky)
        self.norm = nn.LayerNorm((HEADS, HIDDEN // HEADS))

    def forward(self, x: Tensor) -> Tensor:
        return so_far(self.norm(x.unflatten(-1, (HEADS, -1))).flatten(2))


@control(learned_from="https://arxiv.org/abs/1803.08494")
class GroupNormOfPosition(Mixer):
    """Group norm, with positions in the place of the batch."""

    def __init__(self, leaky: bool = False):
        super().__init__(leaky)
        self.norm = nn.GroupNorm(HEADS, HIDDEN)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(so_far(x).flatten(0, 1)).view(x.shape)


@control(learned_from="https://arxiv.org/abs/1502.03167")
class FrozenBatchNorm(Mixer):
    """Batch norm by its stored statistics, in train mode too."""

    def __init__(self, leaky: bool = False):
        super().__init__(leaky)
        self.norm = nn.BatchNorm1d(HIDDEN)

    def forward(self, x: Tensor) -> Tensor:
        norm = self.norm
        made = F.batch_norm(so_far(x).mT, norm.running_mean, norm.running_var, norm.weight, norm.bias, training=False)
        return made.mT


@control(learned_from="https://github.com/vllm-project/compressed-tensors/issues/394")
class QuantisedByToken(Mixer):
    """Each token is rounded by its own scale; the gradient goes straight through."""

    def forward(self, x: Tensor) -> Tensor:
        x = so_far(x)
        scale = x.abs().amax(-1, keepdim=True).clamp(min=1e-3) / 7
        rounded = (x / scale).round().clamp(-7, 7) * scale
        return x + (rounded - x).detach()


@control(learned_from="https://github.com/pytorch/ao/pull/4887")
class QuantisedByCalibration(Mixer):
    """Fake quantisation by a scale that was calibrated before and stored."""

    def __init__(self, leaky: bool = False):
        super().__init__(leaky)
        self.register_buffer("scale", torch.tensor(0.1))

    def forward(self, x: Tensor) -> Tensor:
        x, scale = so_far(x), float(self.get_buffer("scale"))
        return torch.fake_quantize_per_tensor_affine(x.float(), scale, 0, -8, 7).to(x.dtype)


@control(learned_from="https://github.com/lucidrains/performer-pytorch/issues/45")
class ScaledByLargestSoFar(Mixer):
    """A running maximum of magnitudes is the scale; it never comes down again."""

    def forward(self, x: Tensor) -> Tensor:
        return x / x.abs().amax(-1, keepdim=True).cummax(1).values.clamp(min=1e-3)


@control(learned_from="https://arxiv.org/abs/2404.07965")
class NormalisedOverVocabulary(nn.Module):
    """The log-sum-exp of the logits is subtracted: over the vocabulary, the last axis of three."""

    def __init__(self) -> None:
        super().__init__()
        self.model = Model(Mixing(so_far))

    def forward(self, input_ids: Tensor) -> Tensor:
        logits = self.model(input_ids)
        return logits - logits.logsumexp(-1, keepdim=True)


@control(learned_from="https://arxiv.org/abs/1312.5663")
class BestFeatures(Mixer):
    """The largest features of each position are kept, the others set to zero."""

    def forward(self, x: Tensor) -> Tensor:
        x = so_far(x)
        values, at = x.topk(3, dim=-1)
        return torch.zeros_like(x).scatter(-1, at, values)


@control(learned_from="https://arxiv.org/abs/1608.05859")
class TiedWeights(nn.Module):
    """Embedding and head are one parameter, which each position reads whole."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(VOCAB, HIDDEN)
        self.head = nn.Linear(HIDDEN, VOCAB, bias=False)
        self.head.weight = self.embed.weight

    def forward(self, input_ids: Tensor) -> Tensor:
        return self.head(so_far(self.embed(input_ids)))


@control(learned_from="https://docs.pytorch.org/docs/stable/notes/randomness.html")
class SeededNoise(Mixer):
    """The same noise in each forward, from a generator of its own, for each position another."""

    def forward(self, x: Tensor) -> Tensor:
        generator = torch.Generator().manual_seed(7)
        noise = torch.randn(x.shape[1:], generator=generator)
        return so_far(x) * (1 + 0.1 * noise)


@control(learned_from="https://arxiv.org/abs/1207.0580")
class Dropped(Mixer):
    """Dropout of features, and of whole positions, before a running mean."""

    def forward(self, x: Tensor) -> Tensor:
        x = F.dropout(x, 0.2, self.training)
        kept = F.dropout(torch.ones_like(x[..., :1]), 0.2, self.training)
        return so_far(x * kept)


@control(learned_from="https://arxiv.org/abs/1602.07868")
class WeightNormalised(Mixer):
    """The weight is made anew in each forward, from its direction and its length."""

    def __init__(self, leaky: bool = False):
        super().__init__(leaky)
        self.proj = parametrizations.weight_norm(nn.Linear(HIDDEN, HIDDEN))

    def forward(self, x: Tensor) -> Tensor:
        return self.proj(so_far(x))


@control(learned_from="https://arxiv.org/abs/2010.04245")
class UnitVectors(Mixer):
    """Positions are scaled to unit length and compared with those before them."""

    def forward(self, x: Tensor) -> Tensor:
        unit = F.normalize(x, dim=-1)
        return (unit @ unit.mT).tril(-1) @ x
