"""What models of other packages do, in the small: blocks, turned axes, reentrant checkpointing, experts in a loop."""

import pytest
import torch
from torch import nn
from torch.utils import checkpoint

from leakcheck import audit
from leakcheck.findings import Verdict
from leakcheck.subjects.load import prepared

WIDTH, VOCABULARY = 8, 31


class Mixing(nn.Module):
    """Means over the past; a leaky one also over the next position."""

    def __init__(self, leaky: bool = False):
        super().__init__()
        self.leaky = leaky
        self.inner = nn.Linear(WIDTH, WIDTH)

    def forward(self, x):
        x = self.inner(x)
        seen = x.cumsum(1) / torch.arange(1, x.shape[1] + 1)[:, None]
        return seen + x.roll(-1, 1) if self.leaky else seen


class LanguageModel(nn.Module):
    def __init__(self, layer: nn.Module):
        super().__init__()
        self.embed, self.layer, self.head = nn.Embedding(VOCABULARY, WIDTH), layer, nn.Linear(WIDTH, VOCABULARY)

    def forward(self, ids):
        return self.head(self.layer(self.embed(ids)))


class Checkpointed(Mixing):
    def forward(self, x):
        return checkpoint.checkpoint(super().forward, x, use_reentrant=True)


class Blocks(Mixing):
    """Takes multiples of its block alone."""

    def forward(self, x):
        assert x.shape[1] % 16 == 0, "the length must be divisible by 16"
        return super().forward(x)


class Experts(nn.Module):
    """Each token goes to the expert that its router likes best; the tokens of one are gathered, and put back."""

    def __init__(self, leaky: bool = False):
        super().__init__()
        self.mixing, self.router = Mixing(leaky), nn.Linear(WIDTH, 3)
        self.experts = nn.ModuleList(nn.Linear(WIDTH, WIDTH) for _ in range(3))

    def forward(self, x):
        rows = self.mixing(x).flatten(0, 1)
        chosen, out = self.router(rows).argmax(-1), torch.zeros_like(rows)
        for number, expert in enumerate(self.experts):
            (at,) = torch.where(chosen == number)
            out[at] = expert(rows[at])
        return out.view(x.shape)


@pytest.mark.parametrize("layer", [Mixing, Checkpointed, Blocks, Experts])
def test_language_model(layer):
    assert audit(LanguageModel(layer())).verdict is Verdict.PROVEN
    assert audit(LanguageModel(layer(leaky=True))).verdict is Verdict.LEAK


def test_checkpointing_is_reentrant_again():
    before = checkpoint.CheckpointFunction
    audit(LanguageModel(Checkpointed()))
    assert checkpoint.CheckpointFunction is before


class Recurrent(nn.Module):
    """An LSTM that takes the time first, in a model that may turn the axes for it."""

    def __init__(self, turned: bool):
        super().__init__()
        self.turned, self.rnn = turned, nn.LSTM(WIDTH, WIDTH)

    def forward(self, features):
        if self.turned:
            return self.rnn(features.transpose(0, 1))[0].transpose(0, 1)
        return self.rnn(features)[0]


@pytest.mark.parametrize(("turned", "axes"), [(True, "batch, time"), (False, "time, batch")])
def test_which_axis_is_the_time(turned, axes):
    subject = prepared("recurrent", Recurrent(turned), "as built")
    assert subject.inputs == f"features: float[{axes}, {WIDTH}]"
    assert audit(Recurrent(turned)).verdict is Verdict.PROVEN


def test_length_is_a_multiple_of_a_block():
    subject = prepared("blocks", LanguageModel(Blocks()), "as built")
    assert subject.seq_len % 16 == 0
