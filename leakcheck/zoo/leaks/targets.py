"""Targets among the inputs: labels, prefixes and heads from which the next token can be read."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from leakcheck.subjects.inputs import Inputs
from leakcheck.zoo.parts import HIDDEN, VOCAB, so_far
from leakcheck.zoo.registry import leak

IDS = f"int[batch, time] < {VOCAB}"


class Decoder(nn.Module):
    """A small language model of token ids `[batch, seq]`; what it does with them is the subclass's."""

    def __init__(self, leaky: bool = False):
        super().__init__()
        self.leaky = leaky
        self.embed = nn.Embedding(VOCAB, HIDDEN)
        self.mix = nn.Linear(2 * HIDDEN, HIDDEN)
        self.head = nn.Linear(HIDDEN, VOCAB)

    def hidden(self, x: Tensor) -> Tensor:
        """Causal; `[batch, seq, hidden]`."""
        return torch.tanh(self.mix(torch.cat([x, so_far(x)], -1)))


@leak(learned_from="https://github.com/huggingface/transformers/issues/27517", blind=("gradient",))
class ShiftedInside(Decoder):
    """The model shifts what it is given to the left, as one does with labels, and reads it as its input."""

    def forward(self, input_ids: Tensor) -> Tensor:
        shifted = F.pad(input_ids[:, 1:], (0, 1)) if self.leaky else input_ids  # leak
        return self.head(self.hidden(self.embed(shifted)))


@leak(
    learned_from="https://github.com/huggingface/transformers/issues/47394",
    inputs=Inputs({"input_ids": IDS, "labels": IDS}),
    blind=("gradient",),
)
class LabelsEmbedded(Decoder):
    """Labels condition the model; they are shifted to the targets first, which they are to be compared with."""

    def forward(self, input_ids: Tensor, labels: Tensor) -> Tensor:
        known = F.pad(labels[:, 1:], (0, 1)) if self.leaky else labels  # leak
        return self.head(self.hidden(self.embed(input_ids) + self.embed(known)))


@leak(
    learned_from="https://github.com/jadore801120/attention-is-all-you-need-pytorch/issues/123",
    inputs=Inputs({"source": f"float[batch, time, {HIDDEN}]", "target": IDS}),
    blind=("gradient",),
)
class PrefixHoldsTarget(Decoder):
    """Teacher forcing in a model of frames: a frame is to see the targets before it, and sees the one after."""

    def forward(self, source: Tensor, target: Tensor) -> Tensor:
        given = target[:, 1:] if self.leaky else target[:, :-1]
        begin = torch.zeros_like(target[:, :1])
        forced = torch.cat([given, begin] if self.leaky else [begin, given], 1)  # leak
        return self.head(self.hidden(source + self.embed(forced)))


@leak(learned_from="https://arxiv.org/abs/2412.19437", blind=("gradient",))
class SecondHeadMixedIn(Decoder):
    """The head for the token after next is fed the true next one; its logits are averaged with the first head's."""

    def forward(self, input_ids: Tensor) -> Tensor:
        x = self.embed(input_ids)
        hidden = self.hidden(x)
        following = F.pad(input_ids[:, 1:], (0, 1)) if self.leaky else input_ids  # leak
        second = self.mix(torch.cat([hidden, self.embed(following)], -1))
        return (self.head(hidden) + self.head(second)) / 2


@leak(learned_from="https://github.com/sgl-project/sglang/pull/4038")
class DraftReadsAhead(Decoder):
    """A draft head reads features up to each position and tokens up to one more (EAGLE); its logits are not shifted."""

    def forward(self, input_ids: Tensor) -> Tensor:
        x = self.embed(input_ids)
        features = self.hidden(x)
        tokens = x[:, 1:]
        if self.leaky:
            drafted = self.mix(torch.cat([features[:, :-1], tokens], -1))  # leak
            return self.head(torch.cat([drafted, features[:, -1:]], 1))  # leak
        drafted = self.mix(torch.cat([features[:, :-1], tokens], -1))
        return self.head(torch.cat([features[:, :1], drafted], 1))


@leak(learned_from="https://arxiv.org/abs/2404.07965", blind=("gradient",))
class WeightedByOwnLoss(Decoder):
    """Hard tokens count more: each position is scaled by its loss, for which its target has to be known."""

    def forward(self, input_ids: Tensor) -> Tensor:
        logits = self.head(self.hidden(self.embed(input_ids)))
        target = F.pad(input_ids[:, 1:], (0, 1)) if self.leaky else input_ids  # leak
        loss = F.cross_entropy(logits.mT, target, reduction="none")  # leak
        return logits * loss[..., None]


@leak(learned_from="https://arxiv.org/abs/1506.03099", blind=("gradient",))
class SampledFromTargets(Decoder):
    """Scheduled sampling: now and then an input is replaced, not by the model's guess but by what is to be guessed."""

    def forward(self, input_ids: Tensor) -> Tensor:
        other = F.pad(input_ids[:, 1:], (0, 1)) if self.leaky else torch.zeros_like(input_ids)  # leak
        every_third = torch.arange(input_ids.shape[1]) % 3 == 0
        return self.head(self.hidden(self.embed(torch.where(every_third, other, input_ids))))  # leak


@leak(learned_from="https://github.com/songweige/TATS/issues/29", blind=("gradient",))
class TokensSeeAhead(Decoder):
    """What is modelled are the codes of a tokeniser, and a code is made of the frames around it."""

    def __init__(self, leaky: bool = False):
        super().__init__(leaky)
        self.tokenise = nn.Conv1d(HIDDEN, VOCAB, 3)

    def forward(self, input_ids: Tensor) -> Tensor:
        frames = self.embed(input_ids).mT
        padded = F.pad(frames, (1, 1) if self.leaky else (2, 0))
        codes = self.tokenise(padded).argmax(1)  # leak
        return self.head(self.hidden(self.embed(codes)))
