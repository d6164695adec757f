"""The fused layers of `nn.MultiheadAttention` and `nn.TransformerEncoderLayer` against brute force."""

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from tests.flow.rules.bruteforce import check, tokens, traced

pytestmark = pytest.mark.filterwarnings("ignore")
B, T, D = 2, 5, 4


def causal() -> torch.Tensor:
    return nn.Transformer.generate_square_subsequent_mask(T, dtype=torch.float64)


def attention() -> nn.Module:
    torch.manual_seed(0)
    return nn.MultiheadAttention(D, 2, batch_first=True, dtype=torch.float64).eval()


def encoder(**options) -> nn.Module:
    torch.manual_seed(0)
    return nn.TransformerEncoderLayer(D, 2, 8, batch_first=True, dtype=torch.float64, **options).eval()


class Names(TorchDispatchMode):
    def __init__(self):
        super().__init__()
        self.seen = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.seen.add(func._schema.name)
        return func(*args, **(kwargs or {}))


def test_torch_does_use_them():
    with Names() as names, torch.no_grad():
        x = torch.randn(B, T, D, dtype=torch.float64)
        attention()(x, x, x)
        encoder()(x)
    assert {"aten::_native_multi_head_attention", "aten::_transformer_encoder_layer_fwd"} <= names.seen


@pytest.mark.parametrize("weights", [True, False])
@pytest.mark.parametrize("masked", [True, False])
def test_attention(weights, masked):
    module = attention()
    mask = causal() if masked else None

    def call(x):
        return module(x, x, x, attn_mask=mask, need_weights=weights)[0]

    seen = check(call, tokens(B, T, D))
    seen = traced(call, tokens(B, T, D, along=1))
    assert seen.labels[0][0, :, 0].tolist() == (list(range(T)) if masked else [T - 1] * T)


def test_attention_weights():
    module = attention()
    check(lambda x: module(x, x, x), tokens(B, T, D))
    check(lambda x: module(x, x, x, average_attn_weights=False), tokens(B, T, D))
    check(lambda x: module(x, x, x, attn_mask=causal()), tokens(B, T, D), exact=False)


def test_padding():
    module = attention()
    padding = torch.zeros(B, T, dtype=torch.bool)
    padding[0, 3:] = padding[1, :2] = True
    call = {"key_padding_mask": padding, "need_weights": False}
    check(lambda x: module(x, x, x, **call)[0], tokens(B, T, D))
    check(lambda x: module(x, x, x, attn_mask=causal(), **call)[0][:, 2:], tokens(B, T, D))


def test_a_mask_that_the_tokens_decide():
    module = attention()

    def call(x):
        hidden = x[:, :, 0] > 100
        return module(x, x, x, key_padding_mask=hidden, need_weights=False)[0]

    check(call, tokens(B, T, D, along=1), exact=False)


@pytest.mark.parametrize("options", [{}, {"norm_first": True}, {"activation": "gelu"}])
def test_encoder_layer(options):
    module = encoder(**options)
    check(module, tokens(B, T, D))
    check(lambda x: module(x, src_mask=causal()), tokens(B, T, D))
    seen = traced(lambda x: module(x, src_mask=causal(), is_causal=True), tokens(B, T, D, along=1))
    assert seen.labels[0][1, :, 0].tolist() == list(range(T))


def test_one_position():
    check(encoder(), tokens(1, 1, D), exact=False)
