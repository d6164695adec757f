"""Random small networks: no output moves that flow says cannot, and on generic weights every one that it says can does.

A network is an embedding, a few mixing layers with residual connections, and a head. Brute force runs in float64: each
token in turn is replaced, several times, and whatever moves beyond rounding reads it.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from hypothesis import given, note
from hypothesis import strategies as st
from torch import Tensor, nn

from leakcheck import flow

SEQ, WIDTH, HEADS, VOCAB, EXPERTS = 6, 8, 2, 13, 3
ROUNDING = 1e-9  # of the largest logit: float64 stays far below, a dependence of these networks far above

# Which keys a query sees, `[query, key]`; all but the first three let some position see a later one.
MASKS: dict[str, Callable[[], Tensor]] = {
    "causal": lambda: torch.ones(SEQ, SEQ).tril() > 0,
    "window": lambda: torch.ones(SEQ, SEQ).tril().triu(-2) > 0,
    "chunked": lambda: torch.block_diag(*[torch.ones(2, 2).tril()] * 3) > 0,
    "one pair": lambda: _also(torch.ones(SEQ, SEQ).tril() > 0, 1, 4),
    "off by one": lambda: torch.ones(SEQ, SEQ).tril(1) > 0,
    "none": lambda: torch.ones(SEQ, SEQ) > 0,
}
CLEAN = {"causal", "window", "chunked"}


def _also(mask: Tensor, query: int, key: int) -> Tensor:
    mask[query, key] = True
    return mask


class Attention(nn.Module):
    """`leaky_heads` see by `mask`, the others are causal."""

    def __init__(self, mask: str, leaky_heads: int, fused: bool):
        super().__init__()
        self.qkv = nn.Linear(WIDTH, 3 * WIDTH)
        causal = MASKS["causal"]()
        self.register_buffer("mask", torch.stack([MASKS[mask]() if h < leaky_heads else causal for h in range(HEADS)]))
        self.fused = fused

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (t.unflatten(-1, (HEADS, -1)).transpose(1, 2) for t in self.qkv(x).chunk(3, -1))
        if self.fused:
            y = F.scaled_dot_product_attention(q, k, v, attn_mask=self.mask)
        else:
            scores = (q @ k.mT).masked_fill(~self.mask, torch.finfo(x.dtype).min)  # [batch, heads, query, key]
            y = scores.softmax(-1) @ v
        return y.transpose(1, 2).flatten(2)


class Convolution(nn.Module):
    """Sees `ahead` steps too far."""

    def __init__(self, kernel: int, ahead: int):
        super().__init__()
        self.kernel = nn.Conv1d(WIDTH, WIDTH, kernel, groups=2)
        self.padding = (kernel - 1 - ahead, ahead)

    def forward(self, x: Tensor) -> Tensor:
        return self.kernel(F.pad(x.mT, self.padding)).mT


class Recurrence(nn.Module):
    def __init__(self, backward: bool):
        super().__init__()
        self.decay, self.backward = nn.Parameter(torch.zeros(WIDTH)), backward

    def forward(self, x: Tensor) -> Tensor:
        x = x.flip(1) if self.backward else x
        state, out = torch.zeros_like(x[:, 0]), torch.empty_like(x)
        for t in range(x.shape[1]):
            state = self.decay.sigmoid() * state + x[:, t]
            out[:, t] = state
        return out.flip(1) if self.backward else out


class Experts(nn.Module):
    """Tokens choose experts, in a loop or sorted; or experts choose tokens, which sees them all."""

    def __init__(self, how: str):
        super().__init__()
        self.router, self.how = nn.Linear(WIDTH, EXPERTS), how
        self.weights = nn.Parameter(torch.randn(EXPERTS, WIDTH, WIDTH))

    def forward(self, x: Tensor) -> Tensor:
        rows = x.flatten(0, 1)
        gate, chosen = self.router(rows).softmax(-1).max(-1)
        out = torch.zeros_like(rows)
        if self.how == "loop":
            for e in range(EXPERTS):
                (here,) = torch.where(chosen == e)
                out.index_add_(0, here, rows[here] @ self.weights[e] * gate[here, None])
        elif self.how == "sorted":
            order = chosen.argsort(stable=True)
            moved = torch.tanh(rows[order] * gate[order, None])
            out = moved[order.argsort()] @ self.weights[0]
        else:
            top = gate.topk(2).indices
            out = out.index_add(0, top, rows[top] @ self.weights[0])
        return out.view_as(x)


class Statistic(nn.Module):
    """Mean of the past, or of everything."""

    def __init__(self, whole: bool):
        super().__init__()
        self.whole = whole

    def forward(self, x: Tensor) -> Tensor:
        if self.whole:
            return x.mean(1, keepdim=True).expand_as(x)
        return x.cumsum(1) / torch.arange(1, x.shape[1] + 1)[:, None]


class Network(nn.Module):
    def __init__(self, layers: list[nn.Module]):
        super().__init__()
        self.embedding = nn.Embedding(VOCAB, WIDTH)
        self.layers = nn.ModuleList(layers)
        self.norms = nn.ModuleList(nn.LayerNorm(WIDTH) for _ in layers)
        self.head = nn.Linear(WIDTH, VOCAB)

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.embedding(tokens)  # [batch, seq, features]
        for norm, layer in zip(self.norms, self.layers, strict=True):
            x = x + layer(norm(x))
        return self.head(x)


_masks = st.sampled_from(sorted(MASKS))
SMOOTH = st.one_of(
    st.builds(lambda m, h, f: (f"{h} heads {m}, {f=}", lambda: Attention(m, h, f), m in CLEAN or not h), _masks,
              st.integers(0, HEADS), st.booleans()),
    st.builds(lambda k, a: (f"conv {k}+{a}", lambda: Convolution(k, min(a, k - 1)), min(a, k - 1) == 0),
              st.integers(1, 4), st.sampled_from([0, 0, 1, 2])),
    st.builds(lambda b: (f"scan {b=}", lambda: Recurrence(b), not b), st.booleans()),
    st.builds(lambda w: (f"mean {w=}", lambda: Statistic(w), not w), st.booleans()),
)  # fmt: skip
ROUTED = st.builds(
    lambda how: (f"experts {how}", lambda: Experts(how), how != "expert choice"),
    st.sampled_from(["loop", "sorted", "expert choice"]),
)


def built(layers: list, seed: int) -> Network:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = Network([make() for _, make, _ in layers]).double()
        for parameter in network.parameters():
            nn.init.normal_(parameter, std=0.7)
    return network


@torch.no_grad()
def reach(network: Network, tokens: Tensor) -> Tensor:
    """For each output position the latest input position that moves it; -1 for none."""
    base = network(tokens)[0]
    latest = torch.full((SEQ,), -1)
    for position in range(SEQ):
        others = tokens.repeat(VOCAB - 1, 1)
        others[:, position] = (tokens[0, position] + torch.arange(1, VOCAB)) % VOCAB
        for row in others:  # one by one: experts must not see the rows of a batch together
            moved = (network(row[None])[0] - base).abs().amax(-1) > ROUNDING * base.abs().max()
            latest[moved] = position
    return latest


@given(st.lists(SMOOTH, min_size=1, max_size=3), st.integers(0, 2**20))
def test_horizon_is_what_moves(layers, seed):
    note([name for name, _, _ in layers])
    network, tokens = (
        built(layers, seed),
        torch.randint(0, VOCAB, (1, SEQ), generator=torch.Generator().manual_seed(seed)),
    )
    traced = flow.trace(network, tokens)
    assert not traced.holes
    assert traced.horizon[0].tolist() == reach(network, tokens).tolist()
    if all(clean for _, _, clean in layers):
        assert traced.proven


@given(st.lists(st.one_of(SMOOTH, ROUTED), max_size=2), ROUTED, st.integers(0, 2**20))
def test_nothing_moves_beyond_the_horizon_of_routed_tokens(layers, routed, seed):
    layers = [*layers, routed]
    note([name for name, _, _ in layers])
    network, tokens = (
        built(layers, seed),
        torch.randint(0, VOCAB, (1, SEQ), generator=torch.Generator().manual_seed(seed)),
    )
    traced = flow.trace(network, tokens)
    assert bool((traced.horizon[0] >= reach(network, tokens)).all())
    assert traced.proven is all(clean for _, _, clean in layers)
