"""Flow on random small networks: its horizon is never below what brute force shows; for most layers it is the same."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from hypothesis import given, note, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from leakcheck.flow import trace
from leakcheck.subjects.subject import randomise

BATCH, HEADS, HIDDEN, EXPERTS, VOCAB = 2, 2, 6, 3, 11
LOW = torch.finfo(torch.float64).min


@dataclass(frozen=True)
class Spec:
    """One layer: the mixer, what pattern it follows, whether and where it leaks."""

    mixer: str
    pattern: str = "causal"
    style: str = "filled"
    size: int = 2
    leak: str = "none"
    at: tuple[int, int] = (0, 1)  # reader, read


Mixer = Callable[["Layer", Tensor], Tensor]
MIXERS: dict[str, Mixer] = {}
COARSE = {
    "token_choice",
    "token_choice_sorted",
    "expert_choice",
}  # what was not chosen in a draw shows in no brute force


def mixer(function: Mixer) -> Mixer:
    MIXERS[function.__name__] = function
    return function


class Layer(nn.Module):
    def __init__(self, spec: Spec):
        super().__init__()
        self.spec = spec
        self.qkv = nn.Linear(HIDDEN, 3 * HIDDEN)
        self.out = nn.Linear(HIDDEN, HIDDEN)
        self.router = nn.Linear(HIDDEN, EXPERTS)
        self.experts = nn.Parameter(torch.empty(EXPERTS, HIDDEN, HIDDEN))
        self.gate = nn.Parameter(torch.zeros(HIDDEN))
        self.conv = nn.Conv1d(HIDDEN, HIDDEN, 3)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.out(MIXERS[self.spec.mixer](self, x))

    def blocked(self, seq: int) -> Tensor:
        """`[heads, query, key]`, true where a head may not look."""
        q, k = torch.arange(seq)[:, None], torch.arange(seq)
        size = self.spec.size
        blocked = {
            "causal": k > q,
            "window": (k > q) | (k <= q - size),
            "chunk": (k > q) | (k // size != q // size),
            "strided": (k > q) | ((q - k) % size != 0),
            "before": k >= q,  # the first row has nothing to look at
        }[self.spec.pattern].repeat(HEADS, 1, 1)
        reader, read = (i % seq for i in self.spec.at)
        if self.spec.leak == "pair":
            blocked[:, reader, read] = False
        elif self.spec.leak == "pair in one head":
            blocked[1, reader, read] = False
        elif self.spec.leak == "head":
            blocked[1] = False
        elif self.spec.leak == "lost":
            blocked[:] = False
        elif self.spec.leak == "off by one":
            blocked = F.pad(blocked[..., :-1], (1, 0), value=False)
        return blocked


@mixer
def attention(layer: Layer, x: Tensor) -> Tensor:
    q, k, v = layer.qkv(x).unflatten(-1, (3, HEADS, -1)).permute(2, 0, 3, 1, 4)  # each [batch, heads, seq, features]
    blocked, style = layer.blocked(x.shape[1]), layer.spec.style
    if style in ("fused", "fused additive"):
        bias = torch.zeros(blocked.shape, dtype=x.dtype).masked_fill(blocked, LOW)
        mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=~blocked if style == "fused" else bias)
    else:
        scores = q @ k.mT
        if style == "filled":
            weights = scores.masked_fill(blocked, LOW).softmax(-1)
        elif style == "added":
            weights = (scores + torch.zeros(blocked.shape, dtype=x.dtype).masked_fill(blocked, LOW)).softmax(-1)
        elif style == "zeroed":
            weights = scores.sigmoid() * ~blocked
        else:
            weights = scores.tanh().where(~blocked, 0)
        mixed = weights @ v
    return mixed.transpose(1, 2).flatten(-2)


@mixer
def wrong_axis(layer: Layer, x: Tensor) -> Tensor:
    q, k, v = layer.qkv(x).chunk(3, -1)
    return (q @ k.mT).masked_fill(layer.blocked(x.shape[1])[0], LOW).softmax(-2) @ v


@mixer
def convolution(layer: Layer, x: Tensor) -> Tensor:
    right = {"none": 0, "off by one": 1}.get(layer.spec.leak, 2)
    return layer.conv(F.pad(x.mT, (2 - right, right))).mT


@mixer
def scan(layer: Layer, x: Tensor) -> Tensor:
    decay = layer.gate.sigmoid()
    state, states = torch.zeros_like(x[:, 0]), []
    for step in x.flip(1).unbind(1) if layer.spec.leak == "lost" else x.unbind(1):
        state = decay * state + step
        states.append(state)
    return torch.stack(states, 1)


@mixer
def sums(layer: Layer, x: Tensor) -> Tensor:
    size = layer.spec.size
    if layer.spec.pattern == "chunk":
        padded = F.pad(x, (0, 0, 0, -x.shape[1] % size)).unflatten(1, (-1, size))
        return padded.cumsum(1 if layer.spec.leak == "lost" else 2).flatten(1, 2)[:, : x.shape[1]]
    return x.cumsum(1) if layer.spec.leak == "none" else x.flip(1).cumsum(1).flip(1)


@mixer
def shift(layer: Layer, x: Tensor) -> Tensor:
    moved = x.roll(layer.spec.size, 1)
    if layer.spec.leak != "none":
        return moved  # circular
    moved[:, : layer.spec.size] = 0
    return moved


@mixer
def channel(layer: Layer, x: Tensor) -> Tensor:
    out = x.clone()
    if layer.spec.leak != "none":
        reader, read = (i % x.shape[1] for i in layer.spec.at)
        out[:, reader, 2] += x[:, read, 3]
    return out


@mixer
def gated(layer: Layer, x: Tensor) -> Tensor:
    """What a gate that starts at zero lets through later."""
    return x + layer.gate * shift(layer, x)


@mixer
def normalised(layer: Layer, x: Tensor) -> Tensor:
    if layer.spec.leak != "none":
        return F.layer_norm(x.mT, [x.shape[1]]).mT
    return F.layer_norm(x, [HIDDEN])


@mixer
def token_choice(layer: Layer, x: Tensor) -> Tensor:
    flat = x.flatten(0, 1)
    weights, chosen = layer.router(flat).softmax(-1).topk(2, -1)
    hit = F.one_hot(chosen, EXPERTS).permute(2, 1, 0)  # [experts, choice, token]
    out = torch.zeros_like(flat)
    for expert in range(EXPERTS):
        choice, token = torch.where(hit[expert])
        out.index_add_(0, token, flat[token] @ layer.experts[expert] * weights[token, choice, None])
    return out.view_as(x)


@mixer
def token_choice_sorted(layer: Layer, x: Tensor) -> Tensor:
    flat = x.flatten(0, 1)
    expert = layer.router(flat).argmax(-1)
    order = expert.argsort(stable=True)
    rows = (flat[order][:, None] @ layer.experts[expert[order]]).squeeze(1)
    out = torch.empty_like(rows)
    out[order] = rows
    return out.view_as(x)


@mixer
def expert_choice(layer: Layer, x: Tensor) -> Tensor:
    scores = layer.router(x)  # [batch, seq, experts]
    index = scores.topk(min(2, x.shape[1]), dim=1).indices[..., 0, None].expand(-1, -1, HIDDEN)
    return torch.zeros_like(x).scatter_add(1, index, x.gather(1, index) @ layer.experts[0])


class Network(nn.Module):
    def __init__(self, specs: list[Spec]):
        super().__init__()
        self.embed = nn.Embedding(VOCAB, HIDDEN)
        self.layers = nn.ModuleList(Layer(spec) for spec in specs)
        self.head = nn.Linear(HIDDEN, VOCAB)

    def forward(self, input_ids: Tensor) -> Tensor:
        x = self.embed(input_ids)
        for layer in self.layers:
            x = layer(x)
        return self.head(x)


def specs(*leaks: str) -> st.SearchStrategy[Spec]:
    pair = st.tuples(st.integers(0, 6), st.integers(0, 6))
    return st.builds(
        Spec,
        mixer=st.sampled_from(["attention", *MIXERS]),
        pattern=st.sampled_from(["causal", "window", "chunk", "strided", "before"]),
        style=st.sampled_from(["filled", "added", "fused", "fused additive", "zeroed", "where"]),
        size=st.integers(1, 3),
        leak=st.sampled_from(leaks),
        at=pair,
    )


leaky = specs("none", "pair", "pair in one head", "head", "lost", "off by one")
clean = specs("none").filter(lambda spec: spec.mixer not in ("wrong_axis", "expert_choice") and not _uniform_row(spec))


def _uniform_row(spec: Spec) -> bool:
    """A row with nothing to look at looks everywhere, unless its weights are zeros."""
    return spec.mixer == "attention" and spec.pattern == "before" and spec.style not in ("zeroed", "where")


@torch.no_grad()
def horizon(network: nn.Module, seq: int, seed: int) -> Tensor:
    """`[seq]`: by brute force in float64, the latest token that moves each position; -1 for none."""
    latest = torch.full((seq,), -1)
    generator = torch.Generator().manual_seed(seed)
    network = network.double()
    for draw in range(3):
        randomise(network, seed + draw)
        base = torch.randint(VOCAB, (BATCH, seq), generator=generator)
        others = (base + torch.randint(1, VOCAB, (3, BATCH, seq), generator=generator)) % VOCAB
        before = network(base)
        for t in range(seq):
            for other in others:
                changed = base.clone()
                changed[:, t] = other[:, t]
                moved = (network(changed) != before).any(-1).any(0)
                latest = torch.where(moved, latest.clamp(min=t), latest)
    return latest


def compare(layers: list[Spec], seq: int, seed: int) -> tuple[Tensor, Tensor, bool]:
    """Horizons `[seq]` by flow and by brute force, and whether flow covered everything."""
    torch.manual_seed(seed)
    network = Network(layers).double()
    for parameter in network.parameters():
        if parameter.dim() == 3:
            nn.init.normal_(parameter)
    traced = trace(network, torch.randint(VOCAB, (BATCH, seq)))
    flow = torch.where(traced.covered, traced.horizon, seq).amax(0)
    return flow, horizon(network, seq, seed), traced.proven


@settings(max_examples=6 * settings().max_examples)
@given(st.lists(leaky, min_size=1, max_size=3), st.integers(1, 7), st.integers(0, 99))
def test_flow_sees_at_least_what_brute_force_sees(layers: list[Spec], seq: int, seed: int) -> None:
    flow, truth, proven = compare(layers, seq, seed)
    note(f"flow {flow.tolist()}, brute force {truth.tolist()}")
    assert bool((flow >= truth).all())
    assert not proven or not bool((truth > torch.arange(seq)).any())
    if not COARSE & {spec.mixer for spec in layers}:
        assert torch.equal(flow, truth)


@settings(max_examples=3 * settings().max_examples)
@given(st.lists(clean, min_size=1, max_size=3), st.integers(2, 7), st.integers(0, 99))
def test_a_causal_network_is_proven(layers: list[Spec], seq: int, seed: int) -> None:
    flow, truth, proven = compare(layers, seq, seed)
    note(f"flow {flow.tolist()}, brute force {truth.tolist()}")
    assert proven
    assert bool((flow >= truth).all())
