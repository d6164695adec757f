"""Flow on models without weights: the same verdicts, masks that stay real, and nothing read that is not there."""

import pytest
import torch
from torch import nn

from leakcheck.config import Configuration
from leakcheck.flow import trace
from leakcheck.flow.absent import stand_in, unassumed
from leakcheck.flow.labels import BLOCKED, GENERIC, KNOWN, ZERO, Labels
from leakcheck.flow.reports import CONTROL_FLOW
from leakcheck.flow.trace import Trace
from leakcheck.subjects import architectures
from leakcheck.subjects.running import configured, forward
from leakcheck.subjects.weightless import weightless

SEQ, WIDTH = 7, 6
TOKENS = torch.arange(2 * SEQ).view(2, SEQ)

# Attention of every kind, state spaces, hybrids, soft and finite masks, biases, tables; the last three leak.
ARCHITECTURES = (
    "llama", "gpt2", "opt", "bloom", "mpt", "openai-gpt", "gpt_neo", "gemma2", "phi", "mixtral",
    "deepseek_v3", "gpt_oss", "mamba2", "falcon_h1", "rwkv", "xlnet", "prophetnet", "cpmant",
)  # fmt: skip
LEAKING = ("xlnet", "prophetnet", "cpmant")


def traced(model: nn.Module, attention: str, tokens: torch.Tensor) -> Trace:
    configuration = Configuration(attention, "none", "eval")

    class Configured(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, token_ids):
            return forward(model, token_ids, configuration)

    with configured(model, configuration):
        return trace(Configured(), tokens)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_the_verdicts_are_those_of_the_model_with_weights(name):
    real = architectures.build(name)
    bare = weightless(lambda: architectures.build(name))
    tokens = torch.arange(26).view(2, 13) + 3
    backends = ("eager", "sdpa") if real._can_set_attn_implementation() and real._supports_sdpa else ("default",)
    for backend in backends:
        with_weights, without = traced(real, backend, tokens), traced(bare, backend, tokens)
        assert (without.proven, bool(without.violations)) == (with_weights.proven, bool(with_weights.violations))
        assert torch.equal(without.horizon, with_weights.horizon)
        assert bool(without.soft_masks) == bool(with_weights.soft_masks)
        assert with_weights.proven == (name not in LEAKING)


class Mixer(nn.Module):
    """Embeds, mixes positions by `mix`, and reads out."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(2 * SEQ, WIDTH)
        self.scale = nn.Parameter(torch.ones(()))
        self.head = nn.Linear(WIDTH, 2 * SEQ)

    def forward(self, token_ids):
        return self.head(self.mix(self.embed(token_ids)))

    def mix(self, x):
        return x


def verdict(mixer: type[Mixer]) -> Trace:
    return trace(weightless(mixer), TOKENS)


def attention(x, mask):
    """Masked by adding."""
    return torch.softmax(x @ x.mT + mask, -1) @ x


def _zeros_and_low(allowed):
    return torch.zeros(allowed.shape, device=allowed.device).masked_fill(~allowed, -torch.inf)


def masks_of(x):
    """A causal mask, made on the device of the model in each of the ways in which masks are made."""
    T, at = x.shape[1], x.device
    yield "tril of ones", _zeros_and_low(torch.ones(T, T, dtype=torch.bool, device=at).tril())
    yield "triu of full", torch.full((T, T), -torch.inf, device=at).triu(1)
    yield "empty that is filled", torch.empty(T, T, device=at).fill_(-torch.inf).triu_(1)
    yield "positions compared", _zeros_and_low(torch.arange(T, device=at)[None] <= torch.arange(T, device=at)[:, None])
    yield "numbers", torch.tensor([[0.0 if j <= i else -1e30 for j in range(T)] for i in range(T)], device=at)
    yield "new_tensor", x.new_tensor([[0.0 if j <= i else -1e30 for j in range(T)] for i in range(T)])
    yield "new_full", x.new_full((T, T), -torch.inf).triu(1)
    yield "moved", torch.full((T, T), -torch.inf).triu(1).to(at)
    yield "times a low number", (1 - torch.ones(T, T, device=at).tril()) * torch.finfo(x.dtype).min
    row = torch.zeros(T, T, device=at)
    for i in range(T):
        row[i, i + 1 :] = -torch.inf
    yield "row by row", row


@pytest.mark.parametrize("number", range(10))
def test_a_mask_made_on_the_device_of_the_model_stays_real(number):
    class Causal(Mixer):
        def mix(self, x):
            return attention(x, list(masks_of(x))[number][1])

    class Transposed(Mixer):
        def mix(self, x):
            return attention(x, list(masks_of(x))[number][1].mT)

    assert verdict(Causal).proven
    assert len(verdict(Transposed).violations) == 2 * (SEQ - 1)


@pytest.mark.parametrize("low", [-1e4, -1e30])
def test_a_mask_that_is_added_to_a_weight_blocks(low):
    class Biased(Mixer):
        def mix(self, x):
            bias = self.head.weight[:SEQ, :1] + torch.full((SEQ, SEQ), low, device=x.device).triu(1)
            return attention(x, bias)

    assert not verdict(Biased).violations
    assert bool(verdict(Biased).soft_masks) == (low == -1e4)


def test_autocast_asked_for_on_the_device_of_the_model():
    """As LLaMA up to 4.57 does it, in its rotary embedding."""

    class Causal(Mixer):
        def mix(self, x):
            with torch.autocast(device_type=x.device.type, enabled=False):
                return x.cumsum(1)

    assert verdict(Causal).proven


def test_scaled_dot_product_attention():
    class Causal(Mixer):
        def mix(self, x):
            keys = torch.empty_like(x, device="cpu")  # a tensor with values, which those of the model come into
            keys[:] = x
            heads = (t.unsqueeze(1) for t in (x, keys, x))
            return nn.functional.scaled_dot_product_attention(*heads, is_causal=True).squeeze(1)

    class Everything(Mixer):
        def mix(self, x):
            return nn.functional.scaled_dot_product_attention(x, x, x)

    assert verdict(Causal).proven
    assert verdict(Everything).violations


def test_what_is_written_into_a_tensor_with_values():
    class Shifted(Mixer):
        def mix(self, x):
            kept = torch.zeros(x.shape)
            kept[:, 1:] = x[:, :-1]
            return kept

    class Ahead(Mixer):
        def mix(self, x):
            kept = torch.zeros(x.shape)
            kept[:, :-1] = x[:, 1:]
            return kept

    assert verdict(Shifted).proven
    assert len(verdict(Ahead).violations) == 2 * (SEQ - 1)


def test_choices_are_invented_and_never_trusted():
    class TopFeature(Mixer):
        def mix(self, x):
            return x * x.argmax(-1, keepdim=True)

    class TopPosition(Mixer):
        def mix(self, x):
            return x.gather(1, x.argmax(1, keepdim=True).expand_as(x))

    assert verdict(TopFeature).proven
    assert verdict(TopPosition).violations


@pytest.mark.parametrize(
    "decides",
    [
        lambda mixer, x: x.sum().item() > 0,
        lambda mixer, x: bool((x > 0).any()),
        lambda mixer, x: len((x > 0).nonzero()) > 3,
        lambda mixer, x: x[0, 0].tolist()[0] > 0,
        lambda mixer, x: mixer.scale.item() > 0,
        lambda mixer, x: mixer.head.weight.tolist() == [],
        lambda mixer, x: bool(torch.zeros(1).copy_(mixer.scale.view(1)) > 0),
    ],
)
def test_a_value_that_is_not_there_and_decides_is_a_hole(decides):
    class Deciding(Mixer):
        def mix(self, x):
            return 2 * x if decides(self, x) else x

    found = verdict(Deciding)
    assert not found.proven
    assert not found.violations
    assert {hole.kind for hole in found.holes} == {CONTROL_FLOW}
    assert all(hole.place.file == __file__ for hole in found.holes)


def test_a_value_that_is_there_decides():
    class Deciding(Mixer):
        def mix(self, x):
            return 2 * x if torch.ones((), device=x.device).item() > 0 else x.flip(1)

    assert verdict(Deciding).proven


def test_a_loop_over_what_tokens_hit_cannot_be_checked():
    class Experts(Mixer):
        def mix(self, x):
            hit = (x > 0).flatten(1).transpose(0, 1).sum(1)  # one label for all
            for _ in (hit.sum().expand(3) > torch.arange(3, device=x.device)).nonzero():
                x = x + 0
            return x

    found = verdict(Experts)
    assert any("without weights it cannot be run to compare" in hole.carries for hole in found.holes)


def test_a_buffer_without_values_is_unknown():
    class Masked(Mixer):
        def __init__(self, at="cpu") -> None:
            super().__init__()
            self.register_buffer("mask", torch.full((SEQ, SEQ), -torch.inf).triu(1).to(at))

        def mix(self, x):
            return attention(x, self.mask)

    assert verdict(Masked).proven
    assert not trace(weightless(lambda: Masked("meta")), TOKENS).proven


def test_stand_ins_have_the_values_that_labels_state():
    labels = Labels(torch.tensor([[ZERO, BLOCKED, GENERIC, 3]], dtype=torch.int16).expand(2, 4))
    tensor = torch.empty(2, 4, device="meta")
    for drawn in (None, torch.Generator().manual_seed(0)):
        values = stand_in(tensor, labels, drawn)
        assert values.shape == tensor.shape
        assert (values[:, 0] == 0).all()
        assert (values[:, 1] <= -1e30).all()
        assert (values[:, 2:] > 0).all()


def test_what_is_constant_has_no_value_to_look_at():
    labels = unassumed(Labels(torch.tensor([ZERO, BLOCKED, KNOWN, GENERIC, 3], dtype=torch.int16)))
    assert labels.plane.tolist() == [ZERO, BLOCKED, GENERIC, GENERIC, 3]
    assert unassumed(Labels.full((2,), KNOWN)).uniform == GENERIC
