"""Experts: what each token chooses for itself is PROVEN in every style of code, what looks across tokens is flagged.

Each layer is a function of `x`, `[tokens, HIDDEN]`, and the experts' weights. Brute force over single tokens and
suffixes decides what it does.
"""

import copy
import random
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import MixtralConfig
from transformers.models.mixtral.modeling_mixtral import MixtralSparseMoeBlock

from leakcheck import flow
from leakcheck.flow.engine import Flow
from leakcheck.probes.precision import float64
from leakcheck.subjects.subject import randomise

VOCAB, HIDDEN, EXPERTS, TOP = 19, 8, 5, 2
BATCH, SEQ = 2, 7


class Model(nn.Module):
    """Embedding, one layer of experts with a residual around it, logits."""

    def __init__(self, layer: Callable[["Model", Tensor], Tensor]):
        super().__init__()
        torch.manual_seed(0)
        self.layer = layer
        self.embed = nn.Embedding(VOCAB, HIDDEN)
        self.router = nn.Linear(HIDDEN, EXPERTS)
        self.experts = nn.Parameter(torch.empty(EXPERTS, HIDDEN, HIDDEN))
        self.bias = nn.Parameter(torch.empty(EXPERTS, HIDDEN))
        self.head = nn.Linear(HIDDEN, VOCAB)
        randomise(self, 0)

    def forward(self, input_ids: Tensor) -> Tensor:
        x = self.embed(input_ids)  # [batch, seq, hidden]
        y = self.layer(self, x.reshape(-1, HIDDEN))
        return self.head(x + y.view_as(x))

    def route(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Weights and experts of each token, `[tokens, TOP]`."""
        weights, chosen = self.router(x).softmax(-1).topk(TOP, -1)
        return weights, chosen


@pytest.fixture(autouse=True)
def _strict(monkeypatch):
    monkeypatch.setattr(Flow, "strict", True)


def examined(model: nn.Module, *, apart: bool = False) -> tuple[flow.Trace, Tensor]:
    """The trace; and the latest input that moves each output, `[batch, seq]`."""
    model.eval()
    ids = torch.randint(VOCAB, (BATCH, SEQ), generator=torch.Generator().manual_seed(0))
    return flow.trace(model, ids), horizon(model, ids, apart)


@torch.no_grad()
def horizon(model: nn.Module, ids: Tensor, apart: bool) -> Tensor:
    """`[batch, seq]`, by brute force in float64: tokens are changed one by one, and every suffix.

    `apart`: the sequences of the batch have nothing to do with each other, and can be changed at once.
    """
    model = copy.deepcopy(model).double()
    draw = torch.Generator().manual_seed(1)
    latest = torch.full(ids.shape, -1)
    rows = [[0, 1]] if apart else [[0], [1]]
    with float64():
        before = model(ids)
        for j in range(SEQ):
            one = [(slice(j, j + 1), torch.tensor([[by]])) for by in range(1, VOCAB, 5 if apart else 1)]
            many = [(slice(j, SEQ), torch.randint(1, VOCAB, (1, SEQ - j), generator=draw)) for _ in range(3)]
            for changed, by in one + many:
                for row in rows:
                    after = ids.clone()
                    after[row, changed] = (ids[row, changed] + by) % VOCAB
                    moved = (model(after) - before)[row].abs().amax(-1) > 1e-10
                    latest[row] = torch.where(moved, j, latest[row])
    return latest


def loop_over_hit(model: Model, x: Tensor) -> Tensor:
    weights, chosen = model.route(x)
    mask = F.one_hot(chosen, EXPERTS).permute(2, 1, 0)  # [experts, top, tokens]
    out = torch.zeros_like(x)
    for expert in mask.sum((-1, -2)).gt(0).nonzero():
        slot, token = torch.where(mask[expert[0]])
        out.index_add_(0, token, x[token] @ model.experts[expert[0]] * weights[token, slot, None])
    return out


def loop_with_a_class_nobody_chooses(model: Model, x: Tensor) -> Tensor:
    weights, chosen = model.route(x)
    mask = F.one_hot(chosen, EXPERTS + 1).permute(2, 1, 0)
    out = torch.zeros_like(x)
    for expert in mask.sum((-1, -2)).gt(0).nonzero():
        slot, token = torch.where(mask[expert[0]])
        out.index_add_(0, token, x[token] @ model.experts[expert[0]] * weights[token, slot, None])
    return out


def loop_over_all(model: Model, x: Tensor) -> Tensor:
    weights, chosen = model.route(x)
    out = torch.zeros_like(x)
    for expert in range(EXPERTS):
        token, slot = torch.where(chosen == expert)
        out[token] += x[token] @ model.experts[expert] * weights[token, slot, None]
    return out


def dense(model: Model, x: Tensor) -> Tensor:
    weights, chosen = model.route(x)
    gates = torch.zeros(len(x), EXPERTS).scatter(1, chosen, weights)
    return torch.einsum("te,eij,ti->tj", gates, model.experts, x)


def weights_of_each_token(model: Model, x: Tensor) -> Tensor:
    weights, chosen = model.route(x)
    y = torch.einsum("ti,tkij->tkj", x, model.experts[chosen])
    return (y * weights[..., None]).sum(1)


def sorted_then_added(model: Model, x: Tensor) -> Tensor:
    weights, chosen = model.route(x)
    order = chosen.reshape(-1).argsort()
    token = order // TOP
    y = torch.bmm(x[token].unsqueeze(1), model.experts[chosen.reshape(-1)[order]]).squeeze(1)
    return torch.zeros_like(x).index_add(0, token, y * weights.reshape(-1)[order, None])


def sorted_then_scattered(model: Model, x: Tensor) -> Tensor:
    weights, chosen = model.route(x)
    _, order = chosen.reshape(-1).sort(stable=True)
    rows = x.repeat_interleave(TOP, 0)[order]
    y = torch.bmm(rows.unsqueeze(1), model.experts[chosen.reshape(-1)[order]]).squeeze(1)
    back = torch.zeros_like(y)
    back[order] = y
    return (back.view(-1, TOP, HIDDEN) * weights[..., None]).sum(1)


def sorted_then_gathered(model: Model, x: Tensor) -> Tensor:
    weights, chosen = model.route(x)
    order = chosen.reshape(-1).argsort()
    rows = x.repeat_interleave(TOP, 0)[order]
    y = torch.bmm(rows.unsqueeze(1), model.experts[chosen.reshape(-1)[order]]).squeeze(1)
    return (y[order.argsort()].view(-1, TOP, HIDDEN) * weights[..., None]).sum(1)


def in_groups(model: Model, x: Tensor, chosen_too: Callable[[Tensor], Tensor] = lambda chosen: chosen) -> Tensor:
    weights, chosen = model.route(x)
    flat = chosen.reshape(-1)
    order = flat.argsort()
    counted = torch.histc(chosen_too(flat).float(), EXPERTS, 0, EXPERTS - 1)
    ends = counted.cumsum(0).to(torch.int32)
    y = _grouped(x.repeat_interleave(TOP, 0)[order], model.experts, ends)
    inverse = torch.empty_like(order)
    inverse[order] = torch.arange(len(order))
    return (y[inverse].view(-1, TOP, HIDDEN) * weights[..., None]).sum(1)


def _grouped(rows: Tensor, experts: Tensor, ends: Tensor) -> Tensor:
    from transformers.integrations.moe import _grouped_mm

    return _grouped_mm(rows, experts, ends)


CAUSAL = [
    loop_over_hit, loop_with_a_class_nobody_chooses, loop_over_all, dense, weights_of_each_token, sorted_then_added,
    sorted_then_scattered, sorted_then_gathered, in_groups,
]  # fmt: skip


def expert_choice(model: Model, x: Tensor) -> Tensor:
    scores = model.router(x).softmax(-1).T  # [experts, tokens]
    weights, token = scores.topk(3, -1)
    y = torch.einsum("eki,eij->ekj", x[token], model.experts) * weights[..., None]
    return torch.zeros_like(x).index_add(0, token.reshape(-1), y.reshape(-1, HIDDEN))


def mixture_of_depths(model: Model, x: Tensor) -> Tensor:
    scores = model.router(x)[:, 0]
    _, token = scores.topk(5)
    return torch.zeros_like(x).index_add(0, token, (x[token] @ model.experts[0]).relu())


def capacity_by_score(model: Model, x: Tensor) -> Tensor:
    weights, chosen = model.route(x)
    rank = weights[:, 0].argsort(descending=True).argsort()
    y = torch.einsum("ti,tij->tj", x, model.experts[chosen[:, 0]])
    return y.masked_fill((rank >= len(x) // 2)[:, None], 0)


def capacity_by_order_of_score(model: Model, x: Tensor) -> Tensor:
    order = model.route(x)[0][:, 0].argsort()
    keep = torch.zeros(len(x)).index_copy(0, order, (torch.arange(len(x)) < len(x) // 2).float())
    return x @ model.experts[0] * keep[:, None]


def capacity_by_count(model: Model, x: Tensor) -> Tensor:
    _, chosen = model.route(x)
    full = F.one_hot(chosen[:, 0], EXPERTS).sum(0) > 3
    return (x @ model.experts[0]).masked_fill(full[chosen[:, 0]][:, None], 0)


def groups_of_other_counts(model: Model, x: Tensor) -> Tensor:
    return in_groups(model, x, lambda chosen: (chosen + 1) % EXPERTS)


def first_slot_for_all(model: Model, x: Tensor) -> Tensor:
    order = model.route(x)[1].reshape(-1).argsort()
    rows = x.repeat_interleave(TOP, 0)[order]
    return x * rows[0]


def mean_over_slots(model: Model, x: Tensor) -> Tensor:
    order = model.route(x)[1][:, 0].argsort()
    rows = x[order]
    return torch.zeros_like(x).index_add(0, order, rows - rows.mean(0))


def number_of_the_slot(model: Model, x: Tensor) -> Tensor:
    order = model.route(x)[1][:, 0].argsort()
    rows = x[order] + torch.arange(len(x))[:, None]
    return torch.zeros_like(x).index_add(0, order, rows)


def next_slot(model: Model, x: Tensor) -> Tensor:
    order = model.route(x)[1][:, 0].argsort()
    return torch.zeros_like(x).index_add(0, order, x[order].roll(1, 0))


def not_put_back(model: Model, x: Tensor) -> Tensor:
    return x[model.route(x)[1][:, 0].argsort()]


def half_of_the_slots(model: Model, x: Tensor) -> Tensor:
    order = model.route(x)[1][:, 0].argsort()
    half = order[: len(x) // 2]
    return torch.zeros_like(x).index_add(0, half, x[half] @ model.experts[0])


def weights_of_the_slot(model: Model, x: Tensor) -> Tensor:
    order = model.route(x)[1][:, 0].argsort()
    pattern = torch.linspace(0, 1, len(x))[:, None]
    back = torch.zeros_like(x)
    back[order] = x[order] * pattern
    return back


def how_many_chose(model: Model, x: Tensor) -> Tensor:
    _, chosen = model.route(x)
    token = torch.where(chosen[:, 0] == 0)[0]
    return x * len(x[token])


def how_many_chose_in_torch(model: Model, x: Tensor) -> Tensor:
    _, chosen = model.route(x)
    token = torch.where(chosen[:, 0] == 0)[0]
    return x * torch.ones_like(x[token][:, 0]).sum()


def the_first_that_chose(model: Model, x: Tensor) -> Tensor:
    _, chosen = model.route(x)
    token = torch.where(chosen[:, 0] == chosen[-1, 0])[0]
    return x * x[token][0]


LEAKY = [
    expert_choice, mixture_of_depths, capacity_by_score, capacity_by_order_of_score, capacity_by_count,
    groups_of_other_counts, first_slot_for_all, mean_over_slots, number_of_the_slot, next_slot, not_put_back,
    half_of_the_slots, weights_of_the_slot, how_many_chose, how_many_chose_in_torch, the_first_that_chose,
]  # fmt: skip


@pytest.mark.parametrize("layer", CAUSAL, ids=lambda f: f.__name__)
def test_token_choice_is_proven(layer):
    traced, truth = examined(Model(layer))
    assert truth.tolist() == [list(range(SEQ))] * BATCH
    assert traced.holes == ()
    assert traced.proven
    assert traced.horizon.tolist() == truth.tolist()


@pytest.mark.parametrize("layer", LEAKY, ids=lambda f: f.__name__)
def test_choice_among_tokens_is_flagged(layer):
    traced, truth = examined(Model(layer))
    assert bool((truth > torch.arange(SEQ)).any())
    assert not traced.proven
    assert traced.holes or bool((truth <= traced.horizon).all())


@pytest.mark.parametrize("experts", ["eager", "grouped_mm", "batched_mm"])
def test_every_way_of_the_library_to_run_experts(experts):
    config = MixtralConfig(
        hidden_size=HIDDEN,
        intermediate_size=12,
        num_local_experts=EXPERTS,
        num_experts_per_tok=TOP,
        num_attention_heads=1,
    )
    config._experts_implementation = experts
    model = Model(lambda model, x: model.block(x.view(-1, SEQ, HIDDEN)))
    model.block = MixtralSparseMoeBlock(config)
    randomise(model, 0)
    traced, truth = examined(model)
    assert traced.proven, traced.holes
    assert traced.horizon.tolist() == truth.tolist()


def test_loop_that_does_something_for_every_expert_hit_is_a_hole():
    def layer(model: Model, x: Tensor) -> Tensor:
        chosen = model.route(x)[1][:, :1]
        mask = F.one_hot(chosen, EXPERTS).permute(2, 1, 0)
        out = torch.zeros_like(x)
        for expert in mask.sum((-1, -2)).gt(0).nonzero():
            _, token = torch.where(mask[expert[0]])
            out.index_add_(0, token, x[token] @ model.experts[expert[0]])
            out = out + model.bias[expert[0]]  # for every token, if any chose the expert
        return out

    traced, truth = examined(Model(layer))
    assert bool((truth > torch.arange(SEQ)).any())
    assert not traced.proven
    assert {hole.op for hole in traced.holes} == {"aten::nonzero"}


STEPS: dict[str, Callable[[Any], Tensor]] = {
    "double": lambda s: s.h * 2,
    "gate of the row": lambda s: s.h * s.gate[s.order][:, None],
    "weight": lambda s: s.h @ s.model.experts[0],
    "weight of the row's expert": lambda s: torch.bmm(s.h.unsqueeze(1), s.model.experts[s.key[s.order]]).squeeze(1),
    "relu": lambda s: s.h.relu(),
    "softmax over features": lambda s: s.h.softmax(-1),
    "beside the row": lambda s: torch.cat([s.h, s.x[s.order]], -1)[:, 1 : HIDDEN + 1],
    "centred row": lambda s: s.h - s.h.mean(-1, keepdim=True),
    "number of the slot": lambda s: s.h + torch.arange(len(s.h))[:, None],
    "row of the same number": lambda s: s.h + s.x,
    "row number": lambda s: s.h + s.order[:, None],
    "turned": lambda s: s.h.flip(0),
    "shifted": lambda s: s.h.roll(1, 0),
    "sum so far": lambda s: s.h.cumsum(0),
    "mean of slots": lambda s: s.h - s.h.mean(0),
    "second half kept": lambda s: torch.cat([s.h[: len(s.h) // 2] * 0, s.h[len(s.h) // 2 :]]),
    "first half changed": lambda s: torch.cat([s.h[: len(s.h) // 2].tanh(), s.h[len(s.h) // 2 :]]),
    "halves joined": lambda s: torch.cat([s.h[: len(s.h) // 2], s.h[len(s.h) // 2 :]]),
    "every other slot": lambda s: s.h.masked_fill((torch.arange(len(s.h)) % 2 == 0)[:, None], 0),
    "first slot": lambda s: s.h * s.h[:1],
    "largest gate": lambda s: s.h * s.gate[s.order].max(),
    "written to a slot": lambda s: s.h.index_fill(0, torch.tensor([1]), 0.5),
    "seen as another shape": lambda s: s.h.reshape(HIDDEN, -1).relu().reshape(s.h.shape),
    "mixed as another shape": lambda s: s.h.reshape(HIDDEN, -1).cumsum(-1).reshape(s.h.shape),
    "sorted once more": lambda s: s.h[s.gate[s.order].argsort()],
    "transposed": lambda s: (s.h.T * 3).T,
    "slot against slot": lambda s: (s.h @ s.h.T) @ s.h,
}
BACK: dict[str, Callable[[Any], Tensor]] = {
    "added": lambda s: torch.zeros_like(s.x).index_add(0, s.order, s.h),
    "added twice": lambda s: torch.zeros_like(s.x).index_add(0, s.order, s.h).index_add(0, s.order, s.h),
    "placed": lambda s: torch.zeros_like(s.x).index_put((s.order,), s.h),
    "placed over rows": lambda s: s.x.index_put((s.order,), s.h),
    "scattered": lambda s: torch.zeros_like(s.x).scatter(0, s.order[:, None].expand_as(s.h), s.h),
    "gathered": lambda s: s.h[s.order.argsort()] if len(s.order) == len(s.x) else s.h,
    "gathered by the order": lambda s: s.h[s.order] if len(s.order) == len(s.x) else torch.zeros_like(s.x),
    "added by number": lambda s: torch.zeros_like(s.x).index_add(0, torch.arange(len(s.h)), s.h),
    "added in overlapping pairs": lambda s: torch.zeros_like(s.x).index_add(0, pairs(s.order), pairs(s.h)),
    "placed in twos": lambda s: torch.zeros_like(s.x).index_put((s.order // 2,), s.h),
    "numbers in twos": lambda s: s.x + torch.zeros(len(s.x)).index_put((s.order // 2,), s.order * 0.1)[:, None],
    "by the row's expert": lambda s: torch.zeros_like(s.x).index_add(0, s.key[s.order], s.h),
}
SLOTS: dict[str, Callable[[Any], Tensor]] = {
    "sorted": lambda s: s.key.argsort(),
    "sorted by gate": lambda s: s.gate.argsort(),
    "chosen": lambda s: torch.where(s.key == 1)[0],
    "rarely chosen": lambda s: torch.where(s.gate > 0.75)[0],
    "highest": lambda s: s.gate.topk(5).indices,
}


def pairs(slots: Tensor) -> Tensor:
    """All slots but the first and the last twice."""
    return slots.unfold(0, 2, 1).movedim(-1, 1).reshape(-1, *slots.shape[1:])


class Slots:
    """Rows put into slots, and what a random program does to them."""

    def __init__(self, model: Model, x: Tensor, program: tuple[str, tuple[str, ...], str]):
        weights, chosen = model.route(x)
        self.model, self.x, self.gate, self.key = model, x, weights[:, 0], chosen[:, 0]
        slots, steps, back = program
        self.order = SLOTS[slots](self)
        self.h = x[self.order]
        for step in steps:
            self.h = STEPS[step](self)
        self.out = BACK[back](self)


def programs() -> list[tuple[str, tuple[str, ...], str]]:
    draw = random.Random(0)
    single = [(slots, (step,), draw.choice(list(BACK))) for slots in SLOTS for step in STEPS]
    single += [("sorted", (step,), back) for step in STEPS for back in ("placed", "gathered")]
    back = [(slots, (), back) for slots in SLOTS for back in BACK]
    several = [
        (draw.choice(list(SLOTS)), tuple(draw.choices(list(STEPS), k=draw.randint(2, 3))), draw.choice(list(BACK)))
        for _ in range(60)
    ]
    return back + single + several


@pytest.mark.parametrize("program", programs(), ids=str)
def test_whatever_is_done_to_slots_flow_misses_nothing(program):
    def layer(model: Model, x: Tensor) -> Tensor:
        return torch.cat([Slots(model, sequence, program).out for sequence in x.split(SEQ)])

    model = Model(layer)
    try:
        traced, truth = examined(model, apart=True)
    except (RuntimeError, IndexError):
        pytest.skip("the program does not fit some number of rows")
    assert traced.holes or bool((truth <= traced.horizon).all()), (truth.tolist(), traced.horizon.tolist())
