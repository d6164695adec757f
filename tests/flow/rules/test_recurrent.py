"""Recurrent layers against brute force, fused (single precision) and not."""

import pytest
import torch
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from tests.flow.rules.bruteforce import check, labelled, tokens, traced, weight

aten = torch.ops.aten
T, B, D, H = 5, 2, 3, 4


def single(*size: int) -> torch.Tensor:
    return torch.randn(*size)


def layer(reverse: bool, biases: bool = True):
    """The fused kernel of one layer, with weights of its own."""
    torch.manual_seed(1)
    w = [single(4 * H, D), single(4 * H, H), single(4 * H), single(4 * H)]

    def call(x, h, c):
        return aten.mkldnn_rnn_layer(x, *w, h, c, reverse, [], 2, H, 1, biases, False, False, False)[:3]

    return call


@pytest.mark.parametrize("reverse", [False, True])
def test_fused_layer(reverse):
    x = tokens(T, B, D, draw=single)
    zero = torch.zeros(B, H)
    check(layer(reverse), x, zero, zero, draws=2)
    check(layer(reverse), x, tokens(B, H, draw=single, start=100), zero, draws=2)
    check(layer(reverse), x, zero, tokens(B, H, draw=single, start=100), draws=2, exact=False)


@pytest.mark.parametrize("reverse", [False, True])
def test_steps_in_order(reverse):
    zero = torch.zeros(B, H)
    seen = traced(layer(reverse), tokens(T, B, D, along=0, draw=single), zero, zero)
    expected = torch.full((T,), T - 1) if reverse else torch.arange(T)
    assert torch.equal(seen.labels[0], expected[:, None, None].expand(T, B, H))
    assert bool((seen.labels[1] == T - 1).all())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU, nn.RNN])
@pytest.mark.parametrize(
    "options", [{}, {"batch_first": True, "num_layers": 2}, {"bidirectional": True}, {"bias": False}]
)
def test_modules(kind, options, dtype):
    torch.manual_seed(2)
    module = kind(D, H, **options).to(dtype)
    length = 1 if options.get("batch_first") else 0
    shape = (B, T, D) if length else (T, B, D)
    seen = check(module, tokens(*shape, along=length, draw=lambda *s: torch.randn(*s, dtype=dtype)), draws=2)
    forward = seen.labels[0][0, :, 0] if length else seen.labels[0][:, 0, 0]
    assert forward.tolist() == list(range(T))
    if options.get("bidirectional"):
        assert seen.labels[0][:, 0, -1].tolist() == [T - 1] * T


@pytest.mark.parametrize("cell", [nn.LSTMCell, nn.GRUCell, nn.RNNCell])
def test_cells(cell):
    module = cell(D, H).double()
    check(module, tokens(B, D))


def test_one_row_of_the_batch_alone():
    labels = torch.tensor([3, 8]).expand(T, B).unsqueeze(-1).expand(T, B, D)
    seen = check(layer(False), labelled(single(T, B, D), labels), torch.zeros(B, H), torch.zeros(B, H))
    assert torch.equal(seen.labels[0], torch.tensor([3, 8])[:, None].expand(T, B, H))


@pytest.mark.parametrize("batch_first", [False, True])
def test_packed_sequences(batch_first):
    lengths = torch.tensor([5, 3])
    module = nn.LSTM(D, H, batch_first=batch_first).double()

    def call(x):
        packed = pack_padded_sequence(x, lengths, batch_first=batch_first)
        return packed.data, pad_packed_sequence(module(packed)[0], batch_first=batch_first)[0]

    shape = (B, T, D) if batch_first else (T, B, D)
    check(call, tokens(*shape, along=1 if batch_first else 0))
    check(lambda x: pack_padded_sequence(x, lengths, batch_first=batch_first).data, tokens(*shape))


def test_lengths_that_the_tokens_decide():
    def call(x, n):
        return torch._pack_padded_sequence(x, n, False)

    seen = traced(call, weight(T, B, D), labelled(torch.tensor([5, 3]), torch.tensor([0, 1])))
    assert [hole.kind for hole in seen.reports.holes] == ["token-dependent control flow"]


def test_one_step():
    check(layer(False), tokens(1, B, D, draw=single), torch.zeros(B, H), torch.zeros(B, H))
