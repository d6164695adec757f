"""Flow on random straight-line programs: it never claims less than brute force shows.

A program is Python source, a line an op, over `x` `[2, 4, 3]` whose positions are labelled, parameters, and constants.
A failure prints the program that is left after shrinking.
"""

import functools
import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from hypothesis import given, note, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from leakcheck.flow.labels import BLOCKED, GENERIC, KNOWN, ZERO
from leakcheck.flow.trace import traced

BATCH, SEQ, HIDDEN = SHAPE = (2, 4, 3)
PARAMETERS = {"w": (HIDDEN, HIDDEN), "v": (HIDDEN,), "g": (SEQ, SEQ), "table": (5, HIDDEN), "gate": (HIDDEN,)}
LARGEST = 300  # elements of a value
STEPS = (1.0, -30.0, 0.01, 3.0)  # how far a position is moved
BASES = 2


# --- what a program may say -------------------------------------------------------------------------------------------


def drawn_from(choices: Sequence[Any], shape: Sequence[int], seed: int) -> Tensor:
    """Not drawn by torch: what an op draws inside a trace counts as unknown."""
    return torch.tensor(random.Random(seed).choices(choices, k=math.prod(shape))).reshape(tuple(shape))


def mask(rows: int, columns: int, kind: str, seed: int) -> Tensor:
    """A known boolean mask; true is blocked."""
    ones = torch.ones(rows, columns, dtype=torch.bool)
    made = {
        "future": lambda: ones.triu(1),
        "past": lambda: ones.tril(-1),
        "window": lambda: ones.triu(1) | ones.tril(-2),
        "random": lambda: drawn_from([True, False], (rows, columns), seed),
        "nothing": lambda: ~ones,
        "all": lambda: ones,
    }
    return made[kind]()


def known(*shape: int, seed: int) -> Tensor:
    """Known numbers, some of them zero."""
    return drawn_from([-1.0, 0.0, 1.0, 2.0], shape, seed).double()


def places(count: int, below: int, seed: int) -> Tensor:
    """Known indices."""
    return drawn_from(range(below), (count,), seed)


@dataclass
class Pick:
    """Choices from the values that a program has so far."""

    draw: st.DrawFn
    values: dict[str, Tensor]

    def of(self, *options: Any) -> Any:
        return self.draw(st.sampled_from(options))

    def tensor(self, fits: Callable[[Tensor], bool]) -> str | None:
        names = [name for name, value in self.values.items() if fits(value) and name not in PARAMETERS]
        return self.draw(st.sampled_from(names[::-1])) if names else None

    def numbers(self, dims: int = 1) -> str | None:
        return self.tensor(lambda t: t.is_floating_point() and t.dim() >= dims)

    def like(self, name: str) -> str:
        shape = self.values[name].shape
        return self.tensor(lambda t: t.is_floating_point() and t.shape == shape) or name

    def dim(self, name: str) -> int:
        return self.draw(st.integers(-self.values[name].dim(), self.values[name].dim() - 1))

    def size(self, name: str, dim: int) -> int:
        return self.values[name].shape[dim]

    @property
    def seed(self) -> int:
        return self.draw(st.integers(0, 5))

    def mask(self, name: str) -> str:
        """A boolean expression that broadcasts to a tensor of two or more dimensions."""
        shape = self.values[name].shape
        labelled = self.tensor(lambda t: t.dtype == torch.bool and _broadcasts(t.shape, shape))
        kind = self.of("future", "random", "past", "window", "nothing", "all", "labelled")
        if kind == "labelled" and labelled:
            return labelled
        kind = "random" if kind == "labelled" else kind
        return f"mask({shape[-2]}, {shape[-1]}, {kind!r}, {self.seed})"

    def low(self) -> str:
        return self.of("-torch.inf", "-1e30", "torch.finfo(torch.float64).min")


def _broadcasts(shape: torch.Size, to: torch.Size) -> bool:
    return len(shape) <= len(to) and all(n in (1, m) for n, m in zip(reversed(shape), reversed(to), strict=False))


Move = Callable[[Pick], str | None]


def elementwise(p: Pick) -> str | None:
    a = p.numbers()
    b = p.like(a) if a else None
    return a and p.of(
        f"{a}.tanh()", f"{a}.neg()", f"{a}.relu()", f"{a}.round()", f"{a}.sign()", f"{a}.sigmoid()", f"{a} * 0",
        f"{a}.abs().sqrt()", f"{a}.clamp(-1, 1)", f"{a} + {b}", f"{a} * {b}", f"{a} - 2 * {b}",
        f"torch.maximum({a}, {b})", f"torch.minimum({a}, {b}.detach())", f"{a} / (1 + {b}.abs())",
        f"torch.lerp({a}, {b}, 0.3)", f"torch.addcmul({a}, {a}, {b})", f"torch.where({a} > {b}, {a}, {b})",
        f"torch.atan2({a}, {b})", f"{a}.to(torch.float32).double()", f"{a}.pow(2)", f"torch.nn.functional.gelu({a})",
        f"torch.fmod({a}, 2.0)", f"torch.heaviside({a}, {b})", f"{a}.nan_to_num()",
        f"torch.addcdiv({a}, {b}, 1 + {b}**2)",
    )  # fmt: skip


def with_constants(p: Pick) -> str | None:
    a = p.numbers()
    if not a:
        return None
    shape, seed = tuple(p.values[a].shape), p.seed
    constant = f"known({', '.join(map(str, shape))}, seed={seed})"
    return p.of(
        f"{a} * {constant}", f"{a} + {constant}", f"torch.where({constant} > 0, {a}, {constant})",
        f"{constant} / (1 + {a}.abs())", f"{a}.masked_fill({constant} == 0, 0.0)", f"torch.maximum({a}, {constant})",
        constant, f"{constant}.mul_({a} > 0)", f"({a} > 0) & ({constant} > 0)", f"({a} > {constant}).double()",
    )  # fmt: skip


def parameters(p: Pick) -> str | None:
    a = p.tensor(lambda t: t.is_floating_point() and t.dim() > 1 and t.shape[-1] == HIDDEN)
    return a and p.of(
        f"{a} @ w", f"{a} * v", f"{a} * gate", f"torch.nn.functional.linear({a}, w, v)", f"{a} @ w.tril()",
        f"torch.nn.functional.layer_norm({a}, [{HIDDEN}], v)", f"torch.nn.functional.rms_norm({a}, [{HIDDEN}], v)",
        f"torch.einsum('...i,ij->...j', {a}, w)", f"torch.nn.functional.normalize({a}, dim=-2)", f"{a} + gate",
    )  # fmt: skip


def mixing(p: Pick) -> str | None:
    a = p.tensor(lambda t: t.is_floating_point() and t.dim() > 1 and t.shape[-2] == SEQ)
    b = a and p.like(a)
    blocked = f"mask({SEQ}, {SEQ}, {p.of('future', 'random', 'past', 'window')!r}, {p.seed})"
    return a and p.of(
        f"(~{blocked}).double() @ {a}", f"g @ {a}", f"g.tril() @ {a}", f"g.masked_fill({blocked}, 0) @ {a}",
        f"{a} @ {b}.mT", f"{a}.mT @ {b}", f"g.masked_fill({blocked}, -torch.inf).exp() @ {a}",
        f"torch.einsum('st,...tj->...sj', (~{blocked}).double(), {a})",
    )  # fmt: skip


def attention(p: Pick) -> str | None:
    scores = p.numbers(2)
    if not scores:
        return None
    m, low, dim = p.mask(scores), p.low(), p.of(-1, -2)
    return p.of(
        f"{scores}.masked_fill({m}, {low}).softmax({dim})", f"torch.where({m}, {low}, {scores}).softmax({dim})",
        f"({scores} + torch.zeros(()).double().masked_fill({m}, {low})).softmax({dim})",
        f"{scores}.softmax({dim}) * ~{m}", f"{scores}.masked_fill({m}, {low}).log_softmax({dim})",
        f"{scores}.masked_fill({m}, {low}).logsumexp({dim})", f"{scores}.masked_fill({m}, {low})",
        f"{scores}.masked_fill({m}, {low}).amax({dim}, keepdim=True)", f"{scores}.masked_fill({m}, {low}).exp()",
        f"torch.where({m}, {scores}, 0.0)", f"{scores}.masked_fill({m}, {low}).argmax({dim})",
        f"{scores}.masked_fill({m}, {low}).logcumsumexp({dim})",
    )  # fmt: skip


def apply_weights(p: Pick) -> str | None:
    weights = p.numbers(2)
    if not weights:
        return None
    inner, rank = p.size(weights, -1), p.values[weights].dim()
    values = p.tensor(lambda t: t.is_floating_point() and t.dim() in (2, rank) and t.shape[-2] == inner)
    return values and f"{weights} @ {values}"


def fused_attention(p: Pick) -> str | None:
    q, k, v = (p.tensor(lambda t: t.is_floating_point() and t.shape == SHAPE) for _ in range(3))
    blocked = f"mask({SEQ}, {SEQ}, {p.of('future', 'random', 'window')!r}, {p.seed})"
    call = "torch.nn.functional.scaled_dot_product_attention"
    return (q and k and v) and p.of(
        f"{call}({q}, {k}, {v}, is_causal=True)", f"{call}({q}, {k}, {v})",
        f"{call}({q}, {k}, {v}, attn_mask=~{blocked})",
        f"{call}({q}[:, None], {k}[:, None], {v}[:, None], "
        f"attn_mask=torch.zeros(()).double().masked_fill({blocked}, -torch.inf))[:, 0]",
        f"{call}({q}[:, :2], {k}, {v}, is_causal=True)",
    )  # fmt: skip


def folding(p: Pick) -> str | None:
    a = p.numbers()
    if not a:
        return None
    d, keep = p.dim(a), p.of(True, False)
    return p.of(
        f"{a}.sum({d}, keepdim={keep})", f"{a}.mean({d}, keepdim={keep})", f"{a}.amax({d}, keepdim={keep})",
        f"{a}.prod({d}, keepdim={keep})", f"{a}.logsumexp({d})", f"{a}.var({d}, correction=0, keepdim={keep})",
        f"{a}.max({d}).values", f"{a}.argmin({d})", f"{a}.median({d}).values", f"{a}.norm(dim={d}, keepdim={keep})",
        f"({a} > 0).any({d}, keepdim={keep})", f"{a}.cumsum({d})", f"{a}.cumprod({d})", f"{a}.cummax({d}).values",
        f"{a}.flip({d}).cumsum({d}).flip({d})", f"{a}.diff(dim={d})", f"{a}.sum()",
        f"torch.std_mean({a}, {d}, correction=0)[0]", f"{a}.logcumsumexp({d})", f"{a}.min({d}).indices",
        f"{a}.nanmean({d})", f"{a}.count_nonzero({d})", f"{a}.quantile(0.4, dim={d})",
    )  # fmt: skip


def viewing(p: Pick) -> str | None:
    a = p.tensor(lambda t: t.dim() >= 1)
    if not a:
        return None
    d, e, n = p.dim(a), p.dim(a), p.size(a, p.dim(a))
    k = p.draw(st.integers(0, max(0, p.size(a, d) - 1)))
    return p.of(
        f"{a}.transpose({d}, {e})", f"{a}.select({d}, {k})", f"{a}.narrow({d}, {k}, {p.size(a, d) - k})",
        f"{a}.unsqueeze({d})", f"{a}.flip({d})", f"{a}.roll({p.of(1, -1, 2)}, {d})", f"torch.cat([{a}, {a}], {d})",
        f"{a}.reshape(-1)", f"{a}.unfold({d}, {p.of(2, 1)}, 1)", f"torch.stack([{a}, {a}.clone()], {d})",
        f"{a}.repeat_interleave(2, {d})", f"{a}.unsqueeze(0).expand({n}, *[-1] * {p.values[a].dim()})",
        f"{a}.diagonal()", f"{a}.contiguous()", f"{a}.clone()", f"torch.tensor_split({a}, 2, {d})[0]",
        f"{a}.unflatten({d}, (-1, 1))", f"{a}.movedim({d}, 0)", f"{a}.mT", f"{a}.tril()",
        f"{a}.triu({p.of(0, 1, -1)})", f"{a}.rot90() if {a}.dim() > 1 else {a}.clone()",
        f"torch.nn.functional.pad({a}, ({p.of(1, 0)}, {p.of(1, -1)}))",
    )  # fmt: skip


def writing(p: Pick) -> str | None:
    """In place, into a value or a view of one: all other views show it."""
    a = p.numbers()
    if not a:
        return None
    d = p.dim(a)
    n = p.size(a, d)
    k, b = p.draw(st.integers(0, max(0, n - 1))), p.like(a)
    view = p.of(a, f"{a}.select({d}, {k})", f"{a}.narrow({d}, {k}, {n - k})")
    other = view.replace(a, b, 1)
    change = p.of(
        f".copy_({other}.clone())", ".zero_()", ".fill_(2.0)", f".add_({other}.clone())", ".mul_(0)", ".tanh_()",
        f".mul_({other}.clone())", ".clamp_(min=0)", f".masked_fill_({other} > 0, 0.5)", ".neg_()",
        f".sub_({other}.mean())", ".exponential_(generator=torch.Generator().manual_seed(0))", ".round_()",
    )  # fmt: skip
    return f"{a} = {a}.clone(); {view}{change}; {a}" if p.draw(st.booleans()) else f"{view}{change}"


def indexing(p: Pick) -> str | None:
    a = p.numbers()
    if not a:
        return None
    d = p.dim(a)
    n, b, shape = p.size(a, d), p.like(a), tuple(p.values[a].shape)
    labelled = f"({a}.detach().abs() * 7).long() % {max(n, 1)}"  # [*shape], token-dependent
    fixed = f"places({n}, {n}, {p.seed})"
    whole = f"places({torch.Size(shape).numel()}, {n}, {p.seed}).reshape{shape}"
    index = p.of(labelled, whole)
    row = p.of(fixed, f"({labelled}).movedim({d}, 0).reshape({n}, -1)[:, 0]")
    return n and p.of(
        f"{a}.gather({d}, {index})", f"{a}.index_select({d}, {row})", f"{a}.scatter({d}, {index}, {b})",
        f"{a}.scatter_add({d}, {index}, {b})", f"{a}.index_add({d}, {row}, {b})", f"{a}.index_copy({d}, {fixed}, {b})",
        f"{a}.movedim({d}, 0)[{row}]", f"torch.take({a}, {index})", f"{a}.scatter_reduce({d}, {index}, {b}, 'amax')",
        f"{a}.index_put(({row},), {b}) if {d} in (0, {-len(shape)}) else {a}.tanh()", f"table[({labelled}) % 5]",
        f"torch.nn.functional.one_hot({labelled}, {n}).double()", f"{a}.index_fill({d}, {row}, 0.0)",
        f"torch.take_along_dim({a}, {index}, {d})", f"{a}.scatter({d}, {index}, 0.0)",
        f"{a}.index_add({d}, {fixed}, {b}, alpha=2)",
        f"torch.nn.functional.embedding(({labelled}).clamp(max=4), table)",
    )  # fmt: skip


_IN_SLOTS = (
    "z.tanh()", "z.flip(0)", "z.cumsum(0)", "z + z.mean(0)", "z.roll(1, 0)", "z[:1].expand_as(z)", "z.softmax(0)",
    "z * 2", "torch.cat([z[1:], z[:1]])", "z * torch.ones_like(z).sum()", "z.sort(0).values", "z - z.amax()",
    "z.reshape(z.shape)", "z / (1 + z.abs().sum(-1, keepdim=True))", "z", "z.clone().fill_(1)", "torch.zeros_like(z)",
    "z.detach().round()", "z * torch.arange(1, 1 + len(z)).reshape(-1, *[1] * (z.dim() - 1))",
)  # fmt: skip


def slots(p: Pick) -> str | None:
    """Take rows that the tokens choose, work on them, put them back (or not)."""
    a = p.tensor(lambda t: t.is_floating_point() and t.dim() > 1 and t.shape[0] > 1)
    if not a:
        return None
    n = p.size(a, 0)
    b = p.tensor(lambda t: t.is_floating_point() and t.dim() > 1 and t.shape[0] == n)
    key = f"{a}.flatten(1)[:, 0]"
    choose = p.of(
        f"{key}.argsort()", f"({key} > 0).nonzero()[:, 0]", f"{key}.topk({max(1, n - 1)}).indices",
        f"torch.where({key} > 0)[0]", f"{key}.sort(descending=True, stable=True).indices", f"{key}.topk(1).indices",
        f"({key}.round() % 3).long().argsort(stable=True)", f"torch.nonzero({key} > {p.of('2.0', '-9.0')}).squeeze(-1)",
    )  # fmt: skip
    work = p.of(*_IN_SLOTS)
    base = p.of(f"torch.zeros_like({b})", f"{b}.clone()", f"torch.empty_like({b}).fill_(1)")
    back = p.of(
        f"({base}).index_add(0, i, z)", f"({base}).index_copy(0, i, z)", f"({base}).index_put((i,), z)",
        f"({base}).index_put((i,), z, True)", "z.sum(0)", "z[i.argsort()] if len(i) == len(z) else z",
        f"({base}).scatter(0, i.reshape(-1, *[1] * (z.dim() - 1)).expand_as(z), z)",
        f"torch.empty_like({b}).copy_({base}).index_copy_(0, i, z)", "z", "z.mean()", "z[:1].sum(0)",
    )  # fmt: skip
    return f"i = {choose}; z = {b}[i]; z = {work}; z = {work if p.draw(st.booleans()) else 'z'}; {back}"


def by_mask(p: Pick) -> str | None:
    a = p.numbers(2)
    if not a:
        return None
    b, m = p.like(a), p.mask(a)
    chosen = p.of(f"({b} > 0)", f"({m}).expand({b}.shape)")
    return p.of(
        f"{a}[{chosen}].sum()", f"torch.masked_select({a}, {chosen}).mean().nan_to_num()",
        f"torch.ones_like({a}[{chosen}]).sum()", f"{a}.masked_scatter({chosen}, {b})",
        f"{a}.index_put(({chosen},), torch.tensor(0.5).double())", f"{a}.index_put(({chosen},), {b}[{chosen}])",
        f"{a}.masked_fill({chosen}, 0.0)", f"{chosen}.sum()", f"torch.where({chosen}, {a}, {b})",
        f"torch.where({m}, {a}, 0.0)", f"({chosen}).cumsum(-1)",
    )  # fmt: skip


def ordering(p: Pick) -> str | None:
    a = p.numbers()
    if not a:
        return None
    d = p.dim(a)
    n = p.size(a, d)
    return n and p.of(
        f"{a}.sort({d}).values", f"{a}.argsort({d}).double()", f"{a}.topk({n}, {d}).values",
        f"{a}.topk(1, {d}).indices.double()", f"{a}.argsort({d}).argsort({d}).double()",
        f"{a}.gather({d}, {a}.argsort({d}))", f"{a}.kthvalue({n}, {d}).values",
        f"{a}.gather({d}, {a}.argsort({d}).argsort({d}))",
        f"torch.bincount(({a} > 0).flatten().long(), minlength=2).double()",
        f"torch.searchsorted({a}.flatten().sort().values, {a}.contiguous())", f"({a}.abs() * 2).long().unique().sum()",
    )  # fmt: skip


def convolving(p: Pick) -> str | None:
    a = p.tensor(lambda t: t.is_floating_point() and t.dim() == 3 and t.shape[1] == HIDDEN)
    seed = p.seed
    fixed = f"known({HIDDEN}, {HIDDEN}, 2, seed={seed})"
    F = "torch.nn.functional"
    return a and p.of(
        f"{F}.conv1d({F}.pad({a}, (1, 0)), {fixed})", f"{F}.conv1d({a}, {fixed}, padding=1)",
        f"{F}.conv1d({a}, w[:, :, None], v)",
        f"{F}.conv1d({a}, {fixed}[:, :1], groups={HIDDEN}, dilation=2, padding=2)", f"{F}.avg_pool1d({a}, 2, 1)",
        f"{F}.conv_transpose1d({a}, {fixed}, stride=2)", f"{F}.max_pool1d({a}, 2, 1)",
        f"{F}.pad({a}, (1, 1), mode='reflect')", f"{F}.batch_norm({a}, None, None, training=True)",
        f"{F}.instance_norm({a})", f"{F}.group_norm({a}, 1)", f"{F}.pad({a}, (2, 0), mode='replicate')",
        f"{F}.pad({a}, (1, 0), mode='circular')",
    )  # fmt: skip


def complex_views(p: Pick) -> str | None:
    a = p.tensor(lambda t: t.is_floating_point() and t.dim() >= 1 and t.shape[-1] % 2 == 0 and t.numel() > 0)
    seed = p.seed
    if not a:
        return None
    half = f"{a}.clone().unflatten(-1, (-1, 2))"
    angle = f"torch.polar(torch.ones({p.size(a, -1) // 2}).double(), known({p.size(a, -1) // 2}, seed={seed}))"
    return p.of(
        f"torch.view_as_real(torch.view_as_complex({half}) * {angle}).flatten(-2)",
        f"torch.view_as_complex({half}).abs()", f"torch.view_as_complex({half}).imag",
        f"torch.view_as_complex({half}).conj().real",
    )  # fmt: skip


MOVES: list[Move] = [
    elementwise, with_constants, parameters, mixing, attention, apply_weights, fused_attention, folding, viewing,
    writing, indexing, slots, by_mask, ordering, convolving, complex_views,
]  # fmt: skip


# --- programs ---------------------------------------------------------------------------------------------------------


@functools.cache
def compiled(line: str) -> Any:
    return compile(line, "<program>", "exec")


def execute(lines: list[str], x: Tensor, weights: dict[str, Tensor]) -> dict[str, Any]:
    """The values that the program leaves. `x` and `weights` are not changed."""
    scope = {"torch": torch, "mask": mask, "known": known, "places": places, "x": x.clone(), **weights}
    for line in lines:
        exec(compiled(line), scope)
    return {name: value for name, value in scope.items() if isinstance(value, Tensor)}


def drawn(seed: int) -> tuple[Tensor, dict[str, Tensor]]:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(SHAPE, generator=generator, dtype=torch.float64)
    weights = {n: torch.randn(s, generator=generator, dtype=torch.float64) for n, s in PARAMETERS.items()}
    return x, weights


def starting(seed: int) -> tuple[Tensor, dict[str, Tensor]]:
    """As a subject might start: a gate of zeros."""
    x, weights = drawn(seed)
    weights["gate"] = torch.zeros(HIDDEN, dtype=torch.float64)
    return x, weights


def proper(values: dict[str, Any]) -> bool:
    """Finite but for masked scores, and small."""
    for value in values.values():
        if value.numel() > LARGEST or value.dim() > 5:
            return False
        number = torch.view_as_real(value) if value.is_complex() else value
        if number.is_floating_point() and bool((number.isnan() | (number == torch.inf)).any()):
            return False
    return True


@st.composite
def programs(draw: st.DrawFn) -> list[str]:
    lines: list[str] = []
    x, weights = starting(0)
    values = execute(lines, x, weights)
    for _ in range(draw(st.integers(1, 12), label="ops")):
        line = draw(st.sampled_from(MOVES))(Pick(draw, values))
        if not line:
            continue
        *before, last = line.split("; ")
        candidate = [*lines, "; ".join([*before, f"y{len(lines)} = {last}"])]
        try:
            after = execute(candidate, x, weights)
        except (RuntimeError, IndexError, ValueError, TypeError):
            continue
        if proper(after):
            lines, values = candidate, {n: v for n, v in after.items() if n not in ("i", "z")}
    return lines


def horizons(lines: list[str], labels: Tensor) -> dict[str, Tensor]:
    """By brute force: of each value's elements, the highest label of what moves them; KNOWN for what nothing moves."""
    found: dict[str, Tensor] = {}
    first: dict[str, Tensor] | None = None
    for seed in range(BASES):
        x, weights = starting(0) if seed == 0 else drawn(seed)
        base = tried(lines, x, weights)
        if base is None:
            continue
        first = first or base
        _raise(found, first, base, GENERIC)
        for b, t in torch.cartesian_prod(torch.arange(BATCH), torch.arange(SEQ)).tolist():
            for step in STEPS:
                moved = x.clone()
                moved[b, t] += step * (1 + torch.rand(HIDDEN, dtype=torch.float64))
                after = tried(lines, moved, weights)
                if after is not None:
                    _raise(found, base, after, int(labels[b, t]))
    return found


def _raise(found: dict[str, Tensor], before: dict[str, Tensor], after: dict[str, Tensor], label: int) -> None:
    for name in before.keys() & after.keys():
        one, two = before[name], after[name]
        if one.shape != two.shape:
            continue  # as large as the tokens say: it shows where it is put back
        so_far = found.setdefault(name, torch.full(one.shape, KNOWN))
        if so_far.shape == one.shape:
            found[name] = torch.where(one != two, so_far.clamp(min=label), so_far)


def tried(lines: list[str], x: Tensor, weights: dict[str, Tensor]) -> dict[str, Any] | None:
    try:
        values = execute(lines, x, weights)
    except (RuntimeError, IndexError, ValueError):  # a size that the tokens decide does not fit
        return None
    return values if proper(values) else None


def claims(lines: list[str], labels: Tensor) -> tuple[dict[str, Tensor], list[str]]:
    """What flow says of each value, and the control flow that it could not follow."""
    x, weights = starting(0)
    parameters = nn.ParameterDict(weights)
    with torch.no_grad():
        tracer, values = traced(lambda: execute(lines, x, dict(parameters)), parameters, x, labels)
    said = {name: tracer.read(value) for name, value in values.items()}
    tracer.close()
    escaped = [str(hole) for hole in tracer.reports.holes if hole.kind == "token-dependent control flow"]
    return said, escaped + [f"loop at {place}" for place in tracer.reports.widened]


def test_constants_are_known_inside_a_trace() -> None:
    """Else no program would block anything."""
    constants = ["y0 = known(3, 4, seed=0)", "y1 = places(5, 3, 1)", "y2 = mask(4, 5, 'random', 2)"]
    lines = [*constants, "y3 = known(2, 4, 3, seed=3) * x"]
    said, _ = claims(lines, torch.arange(BATCH * SEQ).reshape(BATCH, SEQ))
    assert all(bool((said[name] <= KNOWN).all()) for name in ("y0", "y1", "y2"))
    assert torch.equal(said["y3"] == ZERO, known(2, 4, 3, seed=3) == 0)
    assert bool((said["y3"] == ZERO).any())


@settings(max_examples=20 * settings().max_examples)
@given(programs(), st.permutations(range(BATCH * SEQ)))
def test_no_program_moves_what_flow_says_it_cannot(lines: list[str], order: list[int]) -> None:
    labels = torch.tensor(order).reshape(BATCH, SEQ)
    note("\n".join([*lines, f"# labels {labels.tolist()}"]))
    said, escaped = claims(lines, labels)
    if escaped:
        return  # a hole: flow says nothing
    values = execute(lines, *starting(0))
    for name, truth in horizons(lines, labels).items():
        claim, value = said[name], values[name]
        if truth.shape != claim.shape:
            continue
        wrong = (truth > claim) & (truth > KNOWN)
        wrong |= (claim == ZERO) & (value != 0)
        if value.is_floating_point():
            wrong |= (claim == BLOCKED) & (value > -1e30)
        where = wrong.nonzero()[:1].tolist()
        found = f"brute force {truth[wrong][:1]}, flow {claim[wrong][:1]}, value {value[wrong][:1]}"
        assert not where, f"{name}{where[0]}: {found}"
