"""A subject that raises, somewhere: what else is true of it is told all the same."""

import pytest
import torch
from torch import nn

from leakcheck import audit
from leakcheck.checkpoints import plan_for
from leakcheck.config import Configuration
from leakcheck.errors import SubjectCrash
from leakcheck.findings import Verdict
from leakcheck.probes import measure
from leakcheck.probes.probe import Prober
from leakcheck.subjects import running

WIDTH, VOCABULARY = 8, 31


class LanguageModel(nn.Module):
    """`is_causal=True` without a mask: refused where gradients are recorded, and no mask at all in inference."""

    def __init__(self, *, masked: bool):
        super().__init__()
        layer = nn.TransformerEncoderLayer(WIDTH, 2, 16, dropout=0.0, batch_first=True)
        self.embed, self.encoder = nn.Embedding(VOCABULARY, WIDTH), nn.TransformerEncoder(layer, 1)
        self.head, self.masked = nn.Linear(WIDTH, VOCABULARY), masked

    def forward(self, ids):
        mask = nn.Transformer.generate_square_subsequent_mask(ids.shape[1]) if self.masked else None
        return self.head(self.encoder(self.embed(ids), mask=mask, is_causal=True))


@pytest.mark.filterwarnings("ignore")
def test_what_leaks_in_inference_and_raises_in_training():
    result = audit(LanguageModel(masked=False))
    assert result.verdict is Verdict.LEAK
    assert {c.mode: c.verdict for c in result.configurations} == {"eval": Verdict.LEAK}
    (crash,) = (finding for finding in result.findings if finding.code == "LC904")
    assert (crash.configuration, "Need attn_mask" in crash.message) == ("default/none/train", True)
    assert audit(LanguageModel(masked=True)).verdict is Verdict.PROVEN


class RaisesInTraining(nn.Module):
    def __init__(self, *, leaky: bool):
        super().__init__()
        self.embed, self.head, self.leaky = nn.Embedding(VOCABULARY, WIDTH), nn.Linear(WIDTH, VOCABULARY), leaky

    def forward(self, ids):
        if self.training:
            raise RuntimeError("not for training")
        x = self.embed(ids).cumsum(1)
        return self.head(x.roll(-1, 1) if self.leaky else x)


def test_a_crash_neither_hides_a_leak_nor_looks_like_a_pass():
    assert audit(RaisesInTraining(leaky=True)).verdict is Verdict.LEAK
    with pytest.raises(SubjectCrash, match="not for training"):
        audit(RaisesInTraining(leaky=False))


class NoBackward(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x * 1

    @staticmethod
    def backward(ctx, gradient):
        raise TypeError("nobody comes back here")


class WithoutGradients(RaisesInTraining):
    def forward(self, ids):
        x = NoBackward.apply(self.embed(ids)).cumsum(1)
        return self.head(x.roll(-1, 1) if self.leaky else x)


def test_without_a_backward_pass_changes_still_speak():
    assert audit(WithoutGradients(leaky=True)).verdict is Verdict.LEAK
    clean = audit(WithoutGradients(leaky=False))
    assert clean.verdict is Verdict.OPEN  # a planted gradient is not seen
    assert "LC901" in {finding.code for finding in clean.findings}


class Uncopyable(RaisesInTraining):
    def __deepcopy__(self, memo):
        raise TypeError("only one of me")

    def forward(self, ids):
        x = self.embed(ids).cumsum(1)
        return self.head(x.roll(-1, 1) if self.leaky else x)


def test_what_cannot_be_copied_is_not_decided_in_float64():
    assert audit(Uncopyable(leaky=False)).verdict is Verdict.PROVEN
    assert audit(Uncopyable(leaky=True)).verdict is Verdict.SUSPECT


class DrawsOnce(nn.Module):
    """Draws its projection at random at the first call, and keeps it."""

    def __init__(self):
        super().__init__()
        self.embed, self.head, self.drawn = nn.Embedding(VOCABULARY, WIDTH), nn.Linear(WIDTH, VOCABULARY), None

    def forward(self, ids):
        if self.drawn is None:
            self.drawn = torch.randn(WIDTH, WIDTH)
        x = self.embed(ids).cumsum(1)
        return self.head(nn.functional.dropout(x @ self.drawn.to(x.dtype), 0.3))


def test_what_is_drawn_once_is_no_difference_between_rows():
    model = DrawsOnce().eval()
    prober = Prober(model, plan_for, seq=13, vocab_size=VOCABULARY, seed=0)
    configuration = Configuration("default", "none", "eval")
    (batch,) = prober.batches(configuration)
    with running.configured(model, configuration):
        assert measure.measure_rows(model, batch, configuration).twin_delta == 0
