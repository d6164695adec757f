"""What torch's own attention modules make of `is_causal` is told as it is, kernel by kernel.

A causal hint is no mask. With the same arguments a module may refuse them, mask by them, or attend to everything: it
depends on train or eval mode, on gradients being recorded, on the layout and on whether weights are asked for. Each
call is held against brute force in float64, which shares no code with flow and runs without it.
"""

from contextlib import nullcontext
from itertools import product

import pytest
import torch
from torch import Tensor, nn

from leakcheck.flow import trace

pytestmark = pytest.mark.filterwarnings("ignore")
B, T, D = 2, 5, 8
CAUSAL, EVERYTHING = [0, 1, 2, 3, 4], [4, 4, 4, 4, 4]
REFUSED = "RuntimeError: Need attn_mask if specifying the is_causal hint. You may use the Transformer module method"
OPTIONS = {"dropout": 0.0, "batch_first": True, "dtype": torch.float64}
MASKS = {
    "none": None,
    "zeros": torch.zeros(T, T, dtype=torch.float64),
    "nothing masked": torch.zeros(T, T, dtype=torch.bool),
    "causal": nn.Transformer.generate_square_subsequent_mask(T, dtype=torch.float64),
}


def brute_force(call) -> list[int]:
    """For each position the latest input that moves it."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(B, T, D, generator=generator, dtype=torch.float64)
    base, horizon = call(x), [-1] * T
    for source in range(T):
        changed = x.clone()
        changed[:, source] += torch.randn(B, D, generator=generator, dtype=torch.float64)
        for position in ((call(changed) - base).abs().amax((0, 2)) > 1e-9).nonzero().flatten().tolist():
            horizon[position] = source
    return horizon


def labels(call) -> list[int]:
    traced = trace(call, torch.zeros(B, T, D, dtype=torch.float64))
    assert not traced.holes
    return traced.horizon[0].tolist()


def told(how, call) -> list[int] | str:
    try:
        return how(call)
    except RuntimeError as error:
        return f"{type(error).__name__}: {error}"[: len(REFUSED)]


def compare(module: nn.Module, forward, *, train: bool, gradients: bool) -> list[int] | str:
    """What flow says of `forward(module, x)`, which is what brute force says."""
    module.train(train)

    def call(x: Tensor) -> Tensor:
        with torch.enable_grad() if gradients else nullcontext():
            return forward(module, x).detach()

    with torch.no_grad():
        seen = told(labels, call)
        assert seen == told(brute_force, call)
    return seen


def made(kind: str, **options) -> tuple[nn.Module, object]:
    """A module and how it is called: with the causal hint and no mask."""
    torch.manual_seed(0)
    options = OPTIONS | options
    layer = nn.TransformerEncoderLayer(D, 2, 16, **options)
    if kind == "encoder layer":
        return layer, lambda module, x: module(x, is_causal=True)
    if kind == "encoder":
        return nn.TransformerEncoder(layer, 2), lambda module, x: module(x, is_causal=True)
    decoder = nn.TransformerDecoderLayer(D, 2, 16, **options)
    memory = torch.randn(B, T, D, dtype=torch.float64)
    if kind == "decoder layer":
        return decoder, lambda module, x: module(x, memory[:, : x.shape[1]], tgt_is_causal=True)
    return nn.TransformerDecoder(decoder, 2), lambda module, x: module(x, memory[:, : x.shape[1]], tgt_is_causal=True)


@pytest.mark.parametrize("norm_first", [False, True])
@pytest.mark.parametrize("gradients", [False, True])
@pytest.mark.parametrize("train", [False, True])
@pytest.mark.parametrize("kind", ["encoder layer", "encoder", "decoder layer", "decoder"])
def test_a_hint_without_a_mask(kind, train, gradients, norm_first):
    module, forward = made(kind, norm_first=norm_first)
    seen = compare(module, forward, train=train, gradients=gradients)
    # Only the fused kernels of eval mode go on without a mask, and then nothing masks.
    assert seen == (REFUSED if train or gradients else EVERYTHING)


@pytest.mark.parametrize("kind", ["encoder layer", "encoder", "decoder layer", "decoder"])
@pytest.mark.parametrize("train", [False, True])
def test_a_hint_without_a_mask_sequence_first(kind, train):
    module, forward = made(kind, batch_first=False)
    seen = compare(module, lambda m, x: forward(m, x.transpose(0, 1)).transpose(0, 1), train=train, gradients=False)
    assert seen == REFUSED


@pytest.mark.parametrize("mask", ["nothing masked", "causal"])
@pytest.mark.parametrize("train", [False, True])
@pytest.mark.parametrize("gradients", [False, True])
def test_an_encoder_with_hint_and_mask(mask, train, gradients):
    module, _ = made("encoder")
    seen = compare(module, lambda m, x: m(x, mask=MASKS[mask], is_causal=True), train=train, gradients=gradients)
    fused = not train and not gradients
    assert seen == (EVERYTHING if mask == "nothing masked" and fused else CAUSAL)


@pytest.mark.parametrize(("weights", "mask", "hint"), list(product([False, True], MASKS, [False, True])))
@pytest.mark.parametrize("train", [False, True])
@pytest.mark.parametrize("gradients", [False, True])
def test_attention(train, gradients, weights, mask, hint):
    torch.manual_seed(0)
    module = nn.MultiheadAttention(D, 2, **OPTIONS)

    def forward(module: nn.Module, x: Tensor) -> Tensor:
        return module(x, x, x, attn_mask=MASKS[mask], is_causal=hint, need_weights=weights)[0]

    seen = compare(module, forward, train=train, gradients=gradients)
    fused = not (train or gradients or mask in ("zeros", "causal"))  # not with a mask that is added
    if mask == "none" and hint and not fused:
        assert seen == REFUSED
    elif mask == "causal" or (hint and not weights and not fused):  # the hint replaces the mask, whatever it holds
        assert seen == CAUSAL
    else:
        assert seen == EVERYTHING
