"""Kinds of model: what they read, what they return, what they promise, and how they are handed over."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import leakcheck
from leakcheck import Inputs, Settings
from leakcheck.config import Contract
from leakcheck.findings import Verdict

TWINS = [
    pytest.param(False, Verdict.PROVEN, "", id="clean"),
    pytest.param(True, Verdict.LEAK, ", reads what is later", id="leaky"),
]
EAGER = Settings(attention=("eager",), seq_len=9)
FEATURES = Inputs({"x": "float[batch, time, 5]"})


class Mixer(nn.Module):
    """Sums up what came before, or what comes after, between two linear layers."""

    def __init__(self, leak: bool):
        super().__init__()
        torch.manual_seed(0)
        self.into, self.out, self.leak = nn.Linear(5, 8), nn.Linear(8, 7), leak

    def forward(self, x: Tensor) -> Tensor:  # [batch, time, 5]
        x = torch.tanh(self.into(x))
        return self.out(x.flip(1).cumsum(1).flip(1) if self.leak else x.cumsum(1))


class Tokens(nn.Module):
    def __init__(self, leak: bool):
        super().__init__()
        self.embed, self.mix = nn.Embedding(23, 5), Mixer(leak)

    def forward(self, ids: Tensor) -> Tensor:
        return self.mix(self.embed(ids))


class Codec(nn.Module):
    """Frames of 8 samples."""

    def __init__(self, leak: bool):
        super().__init__()
        torch.manual_seed(0)
        self.frames, self.mix, self.leak = nn.Conv1d(1, 4, 8, stride=8), nn.Conv1d(4, 3, 2), leak

    def forward(self, wave: Tensor) -> Tensor:
        return self.mix(F.pad(self.frames(wave), (0, 1) if self.leak else (1, 0)))


class Several(nn.Module):
    def __init__(self, leak: bool):
        super().__init__()
        self.embed, self.clean, self.mix = nn.Embedding(11, 5), Mixer(False), Mixer(leak)

    def forward(self, ids: Tensor, values: Tensor, lengths: Tensor) -> dict[str, Tensor]:
        x = self.embed(ids) + values.transpose(1, 2)
        return {"first": self.clean(x), "second": self.mix(x).transpose(1, 2), "lengths": lengths}


@pytest.mark.parametrize(("leak", "expected", "more"), TWINS)
def test_tokens(cell, leak, expected, more):
    cell(f"nn.Module of token ids{more}", expected, lambda: leakcheck.audit(Tokens(leak)))


@pytest.mark.parametrize(("leak", "expected", "more"), TWINS)
def test_a_function(cell, leak, expected, more):
    mix = Mixer(leak)
    cell(f"function{more}", expected, lambda: leakcheck.audit(lambda x: mix(x), inputs=FEATURES))


@pytest.mark.parametrize(("leak", "expected", "more"), TWINS)
def test_watched(cell, leak, expected, more):
    def watched():
        model = Tokens(leak)
        with leakcheck.watch(model) as watched:
            model(torch.arange(14).reshape(2, 7))
        return watched.verdict

    cell(f"the user's own calls, watched{more}", expected, watched)


@pytest.mark.parametrize(("leak", "expected", "more"), TWINS)
def test_exported(cell, tmp_path, leak, expected, more):
    program = torch.export.export(Tokens(leak), (torch.arange(14).reshape(2, 7),))
    torch.export.save(program, tmp_path / "model.pt2")
    cell(f"exported program, .pt2{more}", expected, lambda: leakcheck.audit(str(tmp_path / "model.pt2")))


@pytest.mark.parametrize(("leak", "expected", "more"), TWINS)
def test_features(cell, leak, expected, more):
    cell(f"features [batch, time, size]{more}", expected, lambda: leakcheck.audit(Mixer(leak)))


@pytest.mark.parametrize(("leak", "expected", "more"), TWINS)
def test_waveform(cell, leak, expected, more):
    cell(f"waveform, an output for each 8 samples{more}", expected, lambda: leakcheck.audit(Codec(leak)))


@pytest.mark.parametrize(("leak", "expected", "more"), TWINS)
def test_several(cell, leak, expected, more):
    arguments = {"ids": "int[batch, time] < 11", "values": "float[batch, 5, time]", "lengths": "length[batch]"}
    cell(
        f"several inputs and outputs{more}", expected, lambda: leakcheck.audit(Several(leak), inputs=Inputs(arguments))
    )


def test_decoder_of_an_encoder_decoder(cell):
    from transformers import BartConfig, BartForConditionalGeneration

    torch.manual_seed(0)
    sizes = {f"{part}_{name}": n for part in ("encoder", "decoder") for name, n in (("layers", 1), ("ffn_dim", 48))}
    heads = {"encoder_attention_heads": 4, "decoder_attention_heads": 4}
    config = BartConfig(vocab_size=61, d_model=32, max_position_embeddings=32, **sizes, **heads)
    model = BartForConditionalGeneration(config)
    result = cell("decoder of an encoder-decoder (bart)", Verdict.PROVEN, lambda: leakcheck.audit(model, EAGER))
    assert result is None or "decoder_input_ids: int[batch, time]" in result.subject.inputs


class Reaching(nn.Module):
    """Position t sees the positions from `first` to `last`, counted from its own."""

    def __init__(self, first: int, last: int):
        super().__init__()
        torch.manual_seed(0)
        self.embed, self.head, self.reach = nn.Embedding(23, 6), nn.Linear(6, 23), (first, last)

    def forward(self, ids: Tensor) -> Tensor:
        away = torch.arange(ids.shape[1]) - torch.arange(ids.shape[1])[:, None]  # [query, key]
        sees = ((away >= self.reach[0]) & (away <= self.reach[1])).float()
        return self.head(torch.tanh(sees @ self.embed(ids)))


@pytest.mark.parametrize(
    ("contract", "reach", "expected", "said"),
    [
        (Contract(lookahead=2), (-99, 2), Verdict.PROVEN, "look-ahead of 2"),
        (Contract(lookahead=2), (-99, 3), Verdict.LEAK, "look-ahead of 2, sees 3"),
        (Contract(window=4), (-3, 0), Verdict.PROVEN, "window of 4"),
        (Contract(window=4), (-4, 0), Verdict.LEAK, "window of 4, sees 5"),
        (Contract(bidirectional=True), (-99, 99), Verdict.PROVEN, "bidirectional"),
        (Contract(bidirectional=True), (-99, 0), Verdict.LEAK, "bidirectional, is causal"),
    ],
)
def test_contract(cell, contract, reach, expected, said):
    cell(f"contract: {said}", expected, lambda: leakcheck.audit(Reaching(*reach), Settings(contract=contract)))
