"""Leaks that probes or gradients miss, each beside a clean twin: flow flags the one and proves the other.

That every leak is one is shown by brute force, on weights drawn anew: does a position move when one token is replaced?
"""

from collections.abc import Callable

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from leakcheck.flow import Trace, trace
from leakcheck.flow.engine import Flow
from leakcheck.subjects.load import load
from leakcheck.subjects.subject import randomise

BATCH, SEQ, HIDDEN, HEADS, VOCAB = 2, 9, 6, 3, 13


@pytest.fixture(autouse=True)
def _strict(monkeypatch):
    monkeypatch.setattr(Flow, "strict", True)


class Model(nn.Module):
    """Embedding, a function of hidden states `[batch, seq, hidden]` beside a residual, head."""

    def __init__(self, mix: Callable[["Model", Tensor], Tensor]):
        super().__init__()
        torch.manual_seed(0)
        self.embed = nn.Embedding(VOCAB, HIDDEN)
        self.query, self.key = nn.Linear(HIDDEN, HIDDEN), nn.Linear(HIDDEN, HIDDEN)
        self.score = nn.Linear(HIDDEN, 1)
        self.head = nn.Linear(HIDDEN, VOCAB)
        self.gate = nn.Parameter(torch.zeros(HIDDEN))
        self.mix = mix

    def forward(self, input_ids: Tensor) -> Tensor:
        x = self.embed(input_ids)
        return self.head(x + self.mix(self, x))

    def attend(self, x: Tensor, blocked: Tensor, low: float = -torch.inf) -> Tensor:
        """`blocked` broadcasts to `[batch, heads, query, key]`."""
        q, k, v = (t.unflatten(-1, (HEADS, -1)).transpose(1, 2) for t in (self.query(x), self.key(x), x))
        scores = q @ k.mT + torch.zeros(blocked.shape).masked_fill(blocked, low)
        return (scores.softmax(-1) @ v).transpose(1, 2).flatten(-2)


def tokens() -> Tensor:
    return torch.randint(VOCAB, (BATCH, SEQ), generator=torch.Generator().manual_seed(2))


def own() -> list[list[int]]:
    return [list(range(SEQ))] * BATCH


@torch.no_grad()
def seen(model: nn.Module, draws: int = 12) -> Tensor:
    """`[seq]`: by brute force in float64, the latest token that moves each position."""
    latest = torch.full((SEQ,), -1)
    generator = torch.Generator().manual_seed(4)
    for draw in range(draws):
        randomise(model, draw)
        model = model.double().eval()
        base = torch.randint(VOCAB, (1, SEQ), generator=generator)
        before = model(base)
        for t in range(SEQ):
            other = base.clone()
            other[0, t] = (base[0, t] + 1 + torch.randint(VOCAB - 1, (), generator=generator)) % VOCAB
            moved = (model(other) - before).abs().amax((0, 2)) > 1e-12
            latest = torch.where(moved, latest.clamp(min=t), latest)
    return latest


def ahead(x: Tensor) -> Tensor:
    """The next position's values, zero at the end."""
    return F.pad(x[:, 1:], (0, 0, 0, 1))


def behind(x: Tensor) -> Tensor:
    return F.pad(x[:, :-1], (0, 0, 1, 0))


FUTURE = torch.ones(SEQ, SEQ, dtype=torch.bool).triu(1)


# --- discrete, gated and tiny leaks -----------------------------------------------------------------------------------

Shift = Callable[[Tensor], Tensor]  # `ahead` makes it a leak, `behind` the twin


def zero_gate(model: Model, x: Tensor, shift: Shift) -> Tensor:
    return model.gate * shift(x)


def zero_gate_twice(model: Model, x: Tensor, shift: Shift) -> Tensor:
    return x * (model.gate * (model.gate * shift(x)).sum(-1, keepdim=True)).tanh()


def detached(model: Model, x: Tensor, shift: Shift) -> Tensor:
    return shift(x.detach())


def rounded(model: Model, x: Tensor, shift: Shift) -> Tensor:
    return shift(x).round()


def winner(model: Model, x: Tensor, shift: Shift) -> Tensor:
    return F.one_hot(shift(x).argmax(-1), HIDDEN).to(x.dtype)


def looked_up(model: Model, x: Tensor, shift: Shift) -> Tensor:
    return model.embed((shift(x)[..., 0] * 3).long().clamp(0, VOCAB - 1))


def straight_through(model: Model, x: Tensor, shift: Shift) -> Tensor:
    soft = shift(x).softmax(-1)
    hard = F.one_hot(soft.argmax(-1), HIDDEN)
    return hard + soft - soft.detach()


def compared(model: Model, x: Tensor, shift: Shift) -> Tensor:
    return torch.where(shift(x).sum(-1, keepdim=True) > 0, x, -x)


def by_boolean(model: Model, x: Tensor, shift: Shift) -> Tensor:
    return x.masked_fill((shift(x) > 0) & (x > 0), 0)


def bits(model: Model, x: Tensor, shift: Shift) -> Tensor:
    return x * ((shift(x) * 10).int() & 3)


def in_place(model: Model, x: Tensor, shift: Shift) -> Tensor:
    out = torch.zeros_like(x)
    out[:, 2:5] = shift(x)[:, 2:5]
    out[..., 1].mul_(2).add_(1)
    return out


def through_a_view(model: Model, x: Tensor, shift: Shift) -> Tensor:
    buffer = torch.zeros(x.shape[0], x.shape[2], x.shape[1], dtype=x.dtype).transpose(1, 2)
    view = buffer[..., ::2]
    view.copy_(shift(x)[..., ::2])
    return buffer


def reused_storage(model: Model, x: Tensor, shift: Shift) -> Tensor:
    out = x
    for _ in range(6):  # memory that one step frees is what the next one gets
        out = shift(x).tanh() * 0.5
        del out
        out = x.tanh()
        out = out + shift(x).exp().log()
    return out


def rotated(model: Model, x: Tensor, shift: Shift) -> Tensor:
    """As RoPE with complex numbers."""
    pairs = torch.view_as_complex(shift(x).unflatten(-1, (-1, 2)).contiguous())
    angles = torch.arange(SEQ, dtype=x.dtype)[:, None].expand(-1, HIDDEN // 2)
    return torch.view_as_real(pairs * torch.polar(torch.ones_like(angles), angles)).flatten(-2)


def one_channel(model: Model, x: Tensor, shift: Shift) -> Tensor:
    return torch.cat([behind(x)[..., :-1], shift(x)[..., -1:]], -1)


def one_pair(model: Model, x: Tensor, shift: Shift) -> Tensor:
    row = (torch.arange(SEQ) == 3)[:, None]
    return behind(x) + row * shift(shift(x))


def one_pair_in_one_head(model: Model, x: Tensor, shift: Shift) -> Tensor:
    blocked = FUTURE.repeat(HEADS, 1, 1)
    blocked[1, 2, 5] &= shift is behind
    return model.attend(x, blocked)


def one_head(model: Model, x: Tensor, shift: Shift) -> Tensor:
    blocked = torch.stack([FUTURE, FUTURE, FUTURE if shift is behind else FUTURE.triu(2)])
    return model.attend(x, blocked)


def faint(model: Model, x: Tensor, shift: Shift) -> Tensor:
    return 1e-9 * shift(x)


def normalised(model: Model, x: Tensor, shift: Shift) -> Tensor:
    return F.layer_norm(x, [HIDDEN]) if shift is behind else F.layer_norm(x.mT, [SEQ]).mT


def over_tokens(model: Model, x: Tensor, shift: Shift) -> Tensor:
    """The best four positions of all, or what exceeds a fixed score."""
    scores = model.score(x).squeeze(-1)  # [batch, seq]
    chosen = scores > 0.3 if shift is behind else scores >= scores.topk(4, dim=1).values[:, -1:]
    return x.detach() * chosen[..., None]


def over_tokens_by_index(model: Model, x: Tensor, shift: Shift) -> Tensor:
    """A mixture of depths: the chosen positions take another way. The twin chooses among features."""
    if shift is behind:
        index = x.topk(2, dim=-1).indices
        return torch.zeros_like(x).scatter(-1, index, 1.0)
    index = model.score(x).topk(3, dim=1).indices.expand(-1, -1, HIDDEN)
    return torch.zeros_like(x).scatter(1, index, x.gather(1, index).tanh())


PLANTED = [
    zero_gate, zero_gate_twice, detached, rounded, winner, looked_up, straight_through, compared, by_boolean, bits,
    in_place, through_a_view, reused_storage, rotated, one_channel, one_pair, one_pair_in_one_head, one_head, faint,
    normalised, over_tokens, over_tokens_by_index,
]  # fmt: skip


@pytest.mark.parametrize("plant", PLANTED, ids=lambda plant: plant.__name__)
def test_a_leak_is_flagged_where_brute_force_sees_one(plant):
    model = Model(lambda model, x: plant(model, x, ahead))
    traced = trace(model, tokens())
    truth = seen(model)
    assert bool((truth > torch.arange(SEQ)).any()), "the planted leak is none"
    assert not traced.holes
    assert bool((traced.horizon >= truth).all())
    leaking = {(b, t) for b in range(BATCH) for t in range(SEQ) if truth[t] > t}
    assert leaking <= {(v.batch, v.position) for v in traced.violations}


@pytest.mark.parametrize("plant", PLANTED, ids=lambda plant: plant.__name__)
def test_its_clean_twin_is_proven(plant):
    model = Model(lambda model, x: plant(model, x, behind))
    traced = trace(model, tokens())
    assert traced.proven, traced.holes
    assert traced.horizon.tolist() == own()
    assert not bool((seen(model, draws=3) > torch.arange(SEQ)).any())


def test_a_single_pair_is_told_from_its_neighbours():
    def mix(model: Model, x: Tensor) -> Tensor:
        return one_pair_in_one_head(model, x, ahead)

    traced = trace(Model(mix), tokens())
    assert [(v.batch, v.position, v.source) for v in traced.violations] == [(b, 2, 5) for b in range(BATCH)]


def into_an_expanded_view(x: Tensor, mask: Tensor) -> Tensor:
    """All positions share the memory of the first, so that what is written at any of them is read at all."""
    shared = x[:, :1].clone().expand(x.shape)
    shared.masked_fill_(mask, 0.5)
    return shared


@pytest.mark.filterwarnings("ignore:Use of masked_fill_ on expanded tensors")
def test_writing_into_an_expanded_view_reaches_every_place_that_shows_it():
    leak = trace(Model(lambda model, x: into_an_expanded_view(x, x > 0)), tokens())
    assert leak.horizon.tolist() == [[SEQ - 1] * SEQ] * BATCH
    assert trace(Model(lambda model, x: into_an_expanded_view(x, x[:, :1] > 0)), tokens()).proven


@pytest.mark.filterwarnings("ignore:Use of masked_fill_ on expanded tensors")
def test_writing_into_an_expanded_view_leaves_the_rest_of_its_memory_alone():
    def mix(model: Model, x: Tensor) -> Tensor:
        rest = ahead(x)[..., 0].contiguous()  # [batch, seq], as many elements as the view below shows
        rest[0, :1].expand(BATCH * SEQ).masked_fill_(torch.ones(1, dtype=torch.bool), 0.0)
        return rest[..., None]

    traced = trace(Model(mix), tokens())
    leaking = {(b, t) for b in range(BATCH) for t in range(SEQ - 1)} - {(0, 0)}
    assert {(v.batch, v.position) for v in traced.violations} == leaking


# --- beyond a boundary ------------------------------------------------------------------------------------------------

CHUNKED = """
import torch
from torch import nn
from transformers import PreTrainedModel, PreTrainedConfig

class ChunkedConfig(PreTrainedConfig):
    model_type = "chunked_for_a_test"
    def __init__(self, vocab_size=31, hidden_size=10, {size}=4, **kwargs):
        super().__init__(**kwargs)
        self.vocab_size, self.hidden_size, self.{size} = vocab_size, hidden_size, {size}

class ChunkedForCausalLM(PreTrainedModel):
    config_class = ChunkedConfig
    def __init__(self, config):
        super().__init__(config)
        self.embed = nn.Embedding(config.vocab_size, config.hidden_size)
        self.head = nn.Linear(config.hidden_size, config.vocab_size)
        self.post_init()
    def get_input_embeddings(self):
        return self.embed
    def forward(self, input_ids, **kwargs):
        x = self.embed(input_ids)
        size, length = self.config.{size}, x.shape[1]
        padded = nn.functional.pad(x, (0, 0, 0, -length % size)).unflatten(1, (-1, size))  # [batch, chunks, size, ...]
        {carry}
        return self.head((padded.cumsum(2) + carried).flatten(1, 2)[:, :length])
"""
EARLIER = (
    "carried = padded.sum(2, keepdim=True).cumsum(1).roll(1, 1) * (torch.arange(padded.shape[1]) > 0)[:, None, None]"
)
WRONG_CHUNK = EARLIER.replace("cumsum(1).roll(1, 1)", "roll(-1, 1)")
NO_MASK = (
    "carried = padded.sum(2, keepdim=True).flip(1).cumsum(1).flip(1).roll(-1, 1)"
    " * (torch.arange(padded.shape[1]) < padded.shape[1] - 1)[:, None, None]"
)


@pytest.mark.parametrize("size", ["chunk_size", "sliding_window", "attention_chunk_size"])
def test_a_leak_beyond_a_boundary_is_seen_at_the_length_of_the_configuration(tmp_path, size):
    def traced(carry: str, length: int | None = None) -> tuple[Trace, int]:
        path = tmp_path / f"modeling_{len(list(tmp_path.iterdir()))}.py"
        path.write_text(CHUNKED.format(size=size, carry=carry))
        subject = load(str(path))
        ids = torch.randint(subject.vocab_size, (1, length or subject.seq_len))
        return trace(subject.model, ids), getattr(subject.model.config, size)

    for leak in (WRONG_CHUNK, NO_MASK):
        result, chunk = traced(leak)
        assert result.violations, leak
        assert traced(leak, chunk)[0].proven  # not within one chunk
    assert traced(EARLIER)[0].proven


# --- convolutions by FFT ----------------------------------------------------------------------------------------------


def fourier(x: Tensor, size: int) -> Tensor:
    kernel = torch.arange(1.0, SEQ + 1, dtype=x.dtype)[:, None]
    return torch.fft.irfft(torch.fft.rfft(x, size, dim=1) * torch.fft.rfft(kernel, size, dim=0), size, dim=1)[:, :SEQ]


def test_fourier_convolutions_are_open_whether_they_leak_or_not():
    for size, leaks in ((2 * SEQ, False), (SEQ, True)):
        model = Model(lambda model, x, size=size: fourier(x, size))
        traced = trace(model, tokens())
        assert bool((seen(model, draws=2) > torch.arange(SEQ)).any()) is leaks
        assert not traced.proven
        assert not traced.violations
        assert not traced.covered.any()
        (line,) = {hole.place.line for hole in traced.holes}
        assert line == fourier.__code__.co_firstlineno + 2


# --- soft masks -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [-1e4, -1e9])
def test_a_finite_mask_blocks_and_is_reported_with_value_and_margin(value):
    model = Model(lambda model, x: model.attend(x, FUTURE, low=value))
    with torch.no_grad():
        scores = torch.cat([model.query(e) @ model.key(e).T for e in model.embed.weight.split(1)]).abs().max().item()
    traced = trace(model, tokens())
    assert traced.proven
    (mask,) = traced.soft_masks
    assert mask.value == pytest.approx(value, rel=1e-3, abs=4 * scores)
    assert 0 < mask.margin == pytest.approx(-value, rel=1e-2)
    assert mask.place.function.endswith("attend")


def test_a_hard_mask_is_no_soft_one():
    for low in (-torch.inf, torch.finfo(torch.float32).min):
        assert not trace(Model(lambda model, x, low=low: model.attend(x, FUTURE, low=low)), tokens()).soft_masks


def test_scores_above_a_soft_mask_show_as_a_small_margin():
    model = Model(lambda model, x: model.attend(50 * x, FUTURE, low=-1e3))
    (mask,) = trace(model, tokens()).soft_masks
    assert mask.margin < 1e3


# --- control flow -----------------------------------------------------------------------------------------------------


def item(x: Tensor) -> Tensor:
    return x * x.sum().item()


def branch(x: Tensor) -> Tensor:
    if x.sum() > 0:
        return x
    return -x


def as_list(x: Tensor) -> Tensor:
    return x * x[0, :, 0].tolist()[-1]


def as_array(x: Tensor) -> Tensor:
    return x * float(np.asarray(x.numpy()).sum())


def equal(x: Tensor) -> Tensor:
    return x if torch.equal(x[:, 0], x[:, -1]) else -x


def all_close(x: Tensor) -> Tensor:
    return x if torch.allclose(x[:, 0], x[:, -1]) else -x


def count_by_shape(x: Tensor) -> Tensor:
    return x * (x[..., 0] > 0).nonzero().shape[0]


def count_by_size(x: Tensor) -> Tensor:
    return x * x[x > 0].size(0)


def count_by_len(x: Tensor) -> Tensor:
    return x * len(torch.masked_select(x, x > 0))


def count_by_numel(x: Tensor) -> Tensor:
    return x * x[0, :, 0].round().unique().numel()


def count_by_loop(x: Tensor) -> Tensor:
    for _ in x[x > 1]:
        x = x + 1
    return x


def count_after_work(x: Tensor) -> Tensor:
    return x * len((x[x.sum(-1) > 0] * 2).tanh().sum(-1))


def count_by_pieces(x: Tensor) -> Tensor:
    return x * len((x[0, :, 0] > 0).nonzero().split(1))


def count_after_words(x: Tensor) -> Tensor:
    words = torch.zeros(len(x), SEQ)
    words[:, : len(f"{x.sum():.0f}")] = 1
    return x * words[..., None]


@pytest.mark.parametrize(
    "escape",
    [
        item, branch, as_list, as_array, equal, all_close, count_by_shape, count_by_size, count_by_len, count_by_numel,
        count_by_loop, count_after_work, count_by_pieces, count_after_words,
    ],
)  # fmt: skip
def test_token_dependent_control_flow_is_a_hole_with_its_line(escape):
    traced = trace(Model(lambda model, x: escape(x)), tokens())
    assert not traced.proven
    assert not traced.violations
    found = [hole for hole in traced.holes if hole.kind == "token-dependent control flow"]
    first = escape.__code__.co_firstlineno
    assert any(hole.place.file == __file__ and first < hole.place.line <= first + 4 for hole in found), traced.holes


def static_sizes(x: Tensor) -> Tensor:
    """Sizes that no token decides are no hole, and neither is a slot tensor whose size nobody reads."""
    x = x * x.shape[1] * len(x) * x.numel() * x[:, 1:].size(-1)
    batch, token = torch.where(x[..., 0] > 0)
    gate, up = (x[batch, token] * 2).repeat(1, 2).chunk(2, dim=-1)
    return torch.zeros_like(x).index_put((batch, token), F.linear(gate * up, torch.ones(HIDDEN, HIDDEN)))


def test_sizes_that_no_token_decides_are_no_hole():
    traced = trace(Model(lambda model, x: static_sizes(x)), tokens())
    assert traced.proven, traced.holes


@pytest.mark.parametrize(
    "count",
    [
        lambda x: torch.ones_like(x[x > 0]).sum(),
        lambda x: x[x > 1e9].sum(),  # empty here, not for other tokens
        lambda x: x[x > 0].mean(),
        lambda x: torch.ones_like(x[..., 0][x[..., 0] > 0].nonzero()).sum(),
        lambda x: torch.ones_like((x * 3).long().unique()).sum(),
        lambda x: torch.zeros(SEQ, dtype=torch.long).index_add(0, *_ones_at((x[0, :, 0] > 1e9).nonzero()[:, 0])).sum(),
    ],
)
def test_a_size_that_reaches_values_is_no_hole_but_a_dependence(count):
    traced = trace(Model(lambda model, x: x * count(x)), tokens())
    horizon = torch.where(traced.covered, traced.horizon, SEQ)
    assert bool((horizon >= SEQ - 1).all())


def _ones_at(index: Tensor) -> tuple[Tensor, Tensor]:
    return index, torch.ones_like(index)


@torch.library.custom_op("leakcheck_tests::opaque", mutates_args=())
def opaque(x: Tensor) -> Tensor:
    return torch.from_numpy(x.numpy().copy())


def test_an_unknown_op_is_a_hole_with_its_line():
    def mix(model: Model, x: Tensor) -> Tensor:
        return opaque(x)

    traced = trace(Model(mix), tokens())
    (hole,) = traced.holes
    assert (hole.kind, hole.op) == ("op without a rule", "leakcheck_tests::opaque")
    assert (hole.place.file, hole.place.line) == (__file__, mix.__code__.co_firstlineno + 1)
    assert not traced.violations
    assert not traced.covered.any()


def test_an_unknown_op_off_the_path_to_an_output_still_is_one():
    """What it did is unknown."""

    def mix(model: Model, x: Tensor) -> Tensor:
        opaque(x)
        return x

    traced = trace(Model(mix), tokens())
    assert traced.covered.all()
    assert not traced.proven


# --- batch rows -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("reverse", [False, True])
def test_batch_labels_tell_rows_apart(reverse):
    rows = torch.arange(BATCH).flip(0) if reverse else torch.arange(BATCH)
    labels = rows[:, None].expand(BATCH, SEQ)

    def batch_norm(model: Model, x: Tensor) -> Tensor:
        return F.batch_norm(x.mT, None, None, training=True).mT

    def own_rows(model: Model, x: Tensor) -> Tensor:
        return F.instance_norm(x.mT).mT + model.attend(x, torch.zeros(SEQ, SEQ, dtype=torch.bool))

    leaking = trace(Model(batch_norm), tokens(), labels)
    first = int(rows.argmin())
    assert {(v.batch, v.source) for v in leaking.violations} == {(first, BATCH - 1)}
    assert trace(Model(own_rows), tokens(), labels).proven
    assert not trace(Model(own_rows), tokens()).proven  # it looks ahead, within the row
