"""What went wrong, in a plain sentence: one function for each mechanism, asked in the order in which they stand here.

A mechanism looks at the op to blame and says a sentence, or `None` if it is another one. None of them decides anything:
that there is a violation, and where, is established before.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from leakcheck.flow.labels import BLOCKED, GENERIC, KNOWN, ZERO
from leakcheck.flow.provenance import At, Frame, Move, Recording, Taken
from leakcheck.flow.reports import Place
from leakcheck.flow.rows import Axis, Group, groups

_PRODUCTS = frozenset({"mm", "bmm", "addmm", "baddbmm", "linear", "mv", "addmv", "_addmm_activation", "addbmm"})
_REDUCTIONS = {
    "mean": "mean", "sum": "sum", "nansum": "sum", "prod": "product", "amax": "maximum", "max": "maximum",
    "amin": "minimum", "min": "minimum", "norm": "norm", "linalg_vector_norm": "norm", "std": "standard deviation",
    "var": "variance", "var_mean": "mean and variance", "std_mean": "mean and standard deviation",
    "logsumexp": "log-sum-exp", "median": "median", "argmax": "argmax", "argmin": "argmin", "any": "any", "all": "all",
    "aminmax": "minimum and maximum", "count_nonzero": "count",
}  # fmt: skip
_CUMULATIVE = {
    "cumsum": "cumulative sum", "cumprod": "cumulative product", "cummax": "cumulative maximum",
    "cummin": "cumulative minimum", "logcumsumexp": "cumulative log-sum-exp",
}  # fmt: skip
_ORDERING = {"sort": "sort", "argsort": "sort", "topk": "top-k", "kthvalue": "k-th value", "msort": "sort"}
_READING = frozenset(
    {"index", "index_select", "gather", "take", "embedding", "_unsafe_index", "take_along_dim", "masked_select"}
)
_WRITING = frozenset(
    {"copy", "index_put", "_index_put_impl", "index_copy", "scatter", "index_add", "scatter_add", "slice_scatter",
     "select_scatter", "masked_scatter", "_unsafe_index_put", "as_strided_scatter"}
)  # fmt: skip


@dataclass(frozen=True, eq=False)
class Meeting:
    """Where future and past first meet: move `number` of `way`.

    Along `axis`, index `target` takes something from index `source`. `calls` are the user's calls at the op, innermost
    first; `turned_at` is where the sequence was reversed before, if it was.
    """

    way: tuple[Move, ...]
    number: int
    recording: Recording
    axis: Axis
    source: int
    target: int
    calls: tuple[Frame, ...]
    turned_at: Place | None
    turned: bool

    @property
    def move(self) -> Move:
        return self.way[self.number]

    @property
    def op(self) -> str:
        """The op's name without its namespace, and without the underscore of in-place variants."""
        return self.move.step.name.partition("::")[2].removesuffix("_")

    @property
    def reads(self) -> str:
        word = "position" if self.axis.name == "sequence" else "row"
        return f"{word} {self.target} reads {word} {self.source}"

    @property
    def at(self) -> str:
        return f" at {_short(self.calls[0].place)}" if self.calls else ""

    @property
    def dim(self) -> int | None:
        """The dim of the operand along which its element sits at the source, if one alone is as long as the axis."""
        return _only(groups(self.move.taken.shape, self.axis.size))

    @property
    def along(self) -> str:
        """The axis in words, with the shape it is an axis of."""
        shape = "" if self.dim is None else f" (dim {self.dim} of {list(self.move.taken.shape)})"
        return f"the {self.axis.name} axis{shape}"


Mechanism = Callable[[Meeting], str | None]
MECHANISMS: dict[str, Mechanism] = {}


def mechanism(function: Mechanism) -> Mechanism:
    """Register a mechanism under its function's name.

    Raises:
        ValueError: there is one of this name.
    """
    if function.__name__ in MECHANISMS:
        raise ValueError(f"two mechanisms are called {function.__name__}")
    MECHANISMS[function.__name__] = function
    return function


def sentence(meeting: Meeting) -> str:
    """The sentence of the first mechanism that has one."""
    for function in MECHANISMS.values():
        said = function(meeting)
        if said is not None:
            return said
    raise AssertionError("the last mechanism always has a sentence")


@mechanism
def fused_attention(meeting: Meeting) -> str | None:
    """One kernel for all of attention: with a mask that does not block, or without any."""
    if "dot_product" not in meeting.op and "flash_attention" not in meeting.op:
        return None
    masks = meeting.move.step.operands[3:4]
    return _wrong_mask(meeting, masks[0], meeting.move.target) if masks else _unmasked(meeting)


@mechanism
def attention_in_parts(meeting: Meeting) -> str | None:
    """`softmax(scores) @ values`: the row of weights that let the value in, and what made it."""
    softmax = _softmax_of(meeting)
    return softmax and _wrong_mask(meeting, *softmax)


@mechanism
def softmax_over_wrong_axis(meeting: Meeting) -> str | None:
    """Softmax over the queries: the weight of one query depends on the scores of all."""
    if "softmax" not in meeting.op:
        return None
    source, target = meeting.move.source, meeting.move.target
    moved = [d for d, (a, b) in enumerate(zip(source, target, strict=True)) if a != b]
    if len(moved) != 1:
        return None
    dim, shape = moved[0], list(meeting.move.taken.shape)
    own = [d for d in range(len(shape)) if d != dim and shape[d] == shape[dim] and target[d] == meeting.target]
    if dim == len(shape) - 2 and target[dim] == meeting.target:
        axis = f"the query axis (dim {dim} of {shape})"
        return f"softmax over {axis}{meeting.at}: the weights of a query depend on later queries"
    if shape.count(meeting.axis.size) > 1 or own:
        if not bool(_blocked(meeting.move.step.operands[0]).any()):
            return _unmasked(meeting)
        return f"attention mask does not block: softmax{meeting.at} gives weight to later keys; {meeting.reads}"
    return f"softmax over {meeting.along}{meeting.at}: {meeting.reads}"


@mechanism
def convolution(meeting: Meeting) -> str | None:
    """Its output at t reads its input beyond t."""
    if "conv" not in meeting.op:
        return None
    dim = meeting.dim if meeting.dim is not None else _only(groups(meeting.move.made.shape, meeting.axis.size))
    first = 0 if "tbc" in meeting.op else 2
    if dim is not None and dim < first:
        return f"convolution mixes {meeting.along} as channels{meeting.at}: {meeting.reads}"
    if meeting.turned:
        return f"convolution runs over the reversed sequence{meeting.at}{_reversed(meeting)}: {meeting.reads}"
    if dim is None:
        return f"convolution over blocks of the {meeting.axis.name}{meeting.at}: {meeting.reads}"
    ahead = _ahead(meeting, dim)
    return f"convolution pads {_steps(ahead)} to the right{meeting.at}: output t reads input t+{ahead}"


@mechanism
def normalisation(meeting: Meeting) -> str | None:
    """Statistics that are taken over the sequence too."""
    norm = next((m for m in meeting.way[meeting.number : meeting.number + 8] if "_norm" in m.step.name), None)
    if norm is None or norm.step.frames[:1] != meeting.move.step.frames[:1] or norm.step.name.endswith("vector_norm"):
        return None
    kind = next((f"{k} norm" for k in ("group", "layer", "rms") if k in norm.step.name), "batch norm in train mode")
    return f"{kind} takes its statistics over the {meeting.axis.name} axis{meeting.at}: {meeting.reads}"


@mechanism
def reduction(meeting: Meeting) -> str | None:
    name = _REDUCTIONS.get(meeting.op)
    return name and f"{name} over {meeting.along}{meeting.at}: {meeting.reads}"


@mechanism
def cumulative(meeting: Meeting) -> str | None:
    name = _CUMULATIVE.get(meeting.op)
    return name and f"{name} runs from the right{meeting.at}{_reversed(meeting)}: {meeting.reads}"


@mechanism
def recurrence(meeting: Meeting) -> str | None:
    """A recurrent kernel, or a loop over positions in which one step reads what comes from a later position."""
    over = f"over the {meeting.axis.name}"
    if any(word in meeting.op for word in ("rnn", "lstm", "gru")):
        return f"recurrent kernel runs backwards {over}{meeting.at}{_reversed(meeting)}: {meeting.reads}"
    step = meeting.move.step
    if not meeting.axis.rows(meeting.move.taken.shape, meeting.move.source) and meeting.move.mixes():
        runs = sum(s.name == step.name and s.frames == step.frames for s in meeting.recording.steps)
        if runs >= meeting.axis.size:
            return f"loop {over} uses later positions in earlier steps{meeting.at}: {meeting.reads}"
    return None


@mechanism
def ordering(meeting: Meeting) -> str | None:
    """Which tokens are chosen, or how they are ordered, depends on all of them."""
    name = _ORDERING.get(meeting.op)
    if name is None:
        return None
    return f"{name} over tokens{meeting.at}: what is chosen depends on later ones (expert choice); {meeting.reads}"


@mechanism
def product_over_sequence(meeting: Meeting) -> str | None:
    """A matrix product that sums over positions."""
    if meeting.op not in _PRODUCTS:
        return None
    others = [t for i, t in enumerate(meeting.move.step.operands) if i != meeting.move.operand]
    matrix = max(others, key=lambda t: t.layout.shape.count(meeting.axis.size), default=None)
    if matrix is None or meeting.axis.size not in matrix.layout.shape:
        return None
    shape = list(matrix.layout.shape)
    axis = f"the {meeting.axis.name} axis"
    if matrix.labels.uniform == GENERIC:
        said = f"linear layer mixes {axis} (weight {shape})"
    elif matrix.labels.uniform == KNOWN:
        said = f"product with a constant matrix {shape} that is not zero above the diagonal"
    else:
        said = f"matrix product sums over {axis}, later positions included"
    return f"{said}{meeting.at}: {meeting.reads}"


@mechanism
def shift(meeting: Meeting) -> str | None:
    """Values are moved to earlier positions."""
    if meeting.move.mixes():
        return None
    ahead = meeting.source - meeting.target
    if meeting.op == "flip":
        return f"the {meeting.axis.name} is reversed{meeting.at}: {meeting.reads}"
    if meeting.op == "roll":
        return f"roll moves the {meeting.axis.name} {_steps(ahead)} to the left{meeting.at}: {meeting.reads}"
    if meeting.op in _READING:
        return f"{meeting.op} takes a later position{meeting.at}: {meeting.reads}"
    return f"the {meeting.axis.name} is shifted {_steps(ahead)} to the left{meeting.at}: {meeting.reads}"


@mechanism
def reading_or_writing(meeting: Meeting) -> str | None:
    """By an index that depends on tokens."""
    if meeting.op in _READING:
        return f"{meeting.op} by an index that depends on later positions, or reaches them{meeting.at}: {meeting.reads}"
    if meeting.op in _WRITING:
        return f"{meeting.op} writes to earlier positions{meeting.at}: {meeting.reads}"
    return None


@mechanism
def anything_else(meeting: Meeting) -> str | None:
    return f"{meeting.op} mixes {meeting.along}{meeting.at}: {meeting.reads}"


def _only(found: list[Group]) -> int | None:
    """The dim, if there is one group and it is a single dim."""
    return found[0][0] if len(found) == 1 and len(found[0]) == 1 else None


def _ahead(meeting: Meeting, dim: int) -> int:
    """By how many steps the op looks ahead at most; at the end of the sequence it may be fewer."""
    move = meeting.move
    pair = meeting.source - meeting.target
    if 4 * move.made.shape[dim] <= 3 * move.taken.shape[dim]:  # strided
        return pair
    far = move.furthest(dim) - torch.arange(move.made.shape[dim])
    return pair + int(far.max()) - (move.source[dim] - move.target[dim])


def _unmasked(meeting: Meeting) -> str:
    """Names the argument that should have been the mask, as the calls around the op have it."""
    said = "attention runs without a mask"
    for number, frame in enumerate(meeting.calls):
        for name, value in frame.masks:
            if value == "None":
                caller = meeting.calls[number + 1 : number + 2]
                called = f", called from {_short(caller[0].place)}" if caller else ""
                return f"{said}: `{name}` is None at {_short(frame.place)}{called}"
    for frame in meeting.calls:
        for name, value in frame.masks:
            return f"{said}{meeting.at}: `{name}` ({value}) at {_short(frame.place)} does not reach it"
    return f"{said}{meeting.at}: {meeting.reads}"


def _wrong_mask(meeting: Meeting, mask: Taken, at: At) -> str | None:
    """How a mask, or scores with a mask in them, `[..., query, key]`, differ from causal ones, for the head of `at`."""
    blocked = _blocked(mask)
    if blocked.dim() < 2 or meeting.axis.name != "sequence":
        return None
    seen = ~blocked[tuple(min(c, n - 1) for c, n in zip(at[-blocked.dim() : -2], blocked.shape, strict=False))]
    if bool(seen.all()):
        return _unmasked(meeting)
    if meeting.turned:
        return f"attention with a mask runs over the reversed sequence{meeting.at}{_reversed(meeting)}: {meeting.reads}"
    queries, keys = seen.shape
    distance = torch.arange(keys) - torch.arange(queries).unsqueeze(1)  # [query, key], above 0 where the key is later
    later = seen & (distance > 0)
    if not bool(later.any()):
        dead = (~seen.any(1)).nonzero()
        if not len(dead):
            return None
        return f"attention mask blocks every key of query {int(dead[0])}{meeting.at}: softmax then weighs all the same"
    query, key = later.nonzero()[0].tolist()
    first = f"the first such pair is query {query}, key {key}"
    ahead = int(distance[later].max())
    if not bool((seen & (distance < 0)).any()):
        return f"attention mask is inverted{meeting.at}: it blocks the past and lets the future in; {first}"
    if ahead < keys - 1 and bool(seen[(distance <= ahead) & (distance >= 0)].all()):
        return f"attention mask is off by {ahead}{meeting.at}: a query sees {_steps(ahead)} ahead; {first}"
    pairs = int(later.sum())
    return f"attention mask lets {pairs} pair{'s' if pairs > 1 else ''} with a later key through{meeting.at}; {first}"


def _blocked(scores: Taken) -> Tensor:
    """Boolean, where a mask or masked scores are blocked: false, or so low that softmax gives no weight."""
    labels = scores.structure or scores.labels
    if scores.operand.value.dtype == torch.bool:
        return labels.plane == ZERO
    blocked = labels.plane == BLOCKED
    return blocked | labels.is_soft() if labels.soft else blocked


def _softmax_of(meeting: Meeting) -> tuple[Taken, At] | None:
    """The scores of the softmax that made the weights by which a value came in, and the element of the pair there."""
    move, size = meeting.move, meeting.axis.size
    squares = [t for i, t in enumerate(move.step.operands) if i != move.operand and t.layout.shape.count(size) >= 2]
    if meeting.op not in _PRODUCTS or not squares:
        return None
    layout, before = squares[-1].layout, move.step.number
    at: At = (*move.source[: len(layout.shape) - 2], meeting.target, meeting.source)
    while (found := meeting.recording.writer(layout, at, before)) is not None:
        step, output, at = found
        if "softmax" in step.name:
            return step.operands[0], at
        same = [t for t in step.operands if t.layout.shape == step.outputs[output].shape]  # a cast, dropout
        if not same:
            return None
        layout, before = same[0].layout, step.number
    return None


def _reversed(meeting: Meeting) -> str:
    return f" (the {meeting.axis.name} is reversed at {_short(meeting.turned_at)})" if meeting.turned_at else ""


def _steps(count: int) -> str:
    return "one step" if count == 1 else f"{count} steps"


def _short(place: Place) -> str:
    return f"{Path(place.file).name}:{place.line}"
