"""Labels of a storage, against an integer tensor that goes through the same views and writes."""

import gc
from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from leakcheck.flow.labels import DTYPE, GENERIC, KNOWN, Labels
from leakcheck.flow.storage import Mirror
from leakcheck.flow.trace import Tracer

View = Callable[[Tensor], Tensor]


@st.composite
def views(draw: st.DrawFn, shape: tuple[int, ...]) -> View:
    """A chain of views of a tensor of this shape."""
    steps: list[View] = []
    x = torch.empty(shape)
    for _ in range(draw(st.integers(0, 3))):
        kind = draw(st.sampled_from(["transpose", "slice", "select", "split", "flatten"]))
        d = draw(st.integers(0, x.dim() - 1)) if x.dim() else 0
        step: View | None = None
        if kind == "transpose" and x.dim() > 1:
            e = draw(st.integers(0, x.dim() - 1))
            step = lambda t, d=d, e=e: t.transpose(d, e)  # noqa: E731
        elif kind == "slice" and x.dim():
            start, by = draw(st.integers(0, x.shape[d])), draw(st.integers(1, 3))
            at = (slice(None),) * d + (slice(start, None, by),)
            step = lambda t, at=at: t[at]  # noqa: E731
        elif kind == "select" and x.dim() and x.shape[d]:
            i = draw(st.integers(0, x.shape[d] - 1))
            step = lambda t, d=d, i=i: t.select(d, i)  # noqa: E731
        elif kind == "split" and x.dim() and x.shape[d] % 2 == 0 and x.shape[d]:
            step = lambda t, d=d: t.unflatten(d, (2, -1))  # noqa: E731
        elif kind == "flatten" and x.is_contiguous():
            step = lambda t: t.view(-1)  # noqa: E731
        if step is not None:
            steps.append(step)
            x = step(x)

    def chain(t: Tensor) -> Tensor:
        for step in steps:
            t = step(t)
        return t

    return chain


@st.composite
def planes(draw: st.DrawFn, shape: tuple[int, ...]) -> Tensor:
    """Labels of this shape; equal along some dimensions, expanded or spelt out."""
    sizes = [min(n, 1) if draw(st.booleans()) else n for n in shape]
    count = torch.Size(sizes).numel()
    values = draw(st.lists(st.integers(-4, 9), min_size=count, max_size=count))
    plane = torch.tensor(values, dtype=DTYPE).reshape(sizes).expand(shape)
    return plane.contiguous() if draw(st.booleans()) else plane


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_reads_what_was_written_through_any_view(data: st.DataObject):
    shape = tuple(data.draw(st.lists(st.integers(0, 4), min_size=1, max_size=4)))
    order = data.draw(st.permutations(range(len(shape))))
    mirror = Mirror()
    x = torch.zeros([shape[d] for d in order]).permute([order.index(d) for d in range(len(shape))])
    expected = torch.full(shape, GENERIC, dtype=DTYPE)
    mirror.write(x, Labels.full(shape, GENERIC))
    for _ in range(data.draw(st.integers(1, 4))):
        view = data.draw(views(shape)) if x.is_contiguous() else lambda t: t
        part = view(x)
        labels = data.draw(planes(tuple(part.shape)))
        mirror.write(part, Labels(labels))
        view(expected).copy_(labels)
        look = data.draw(views(shape)) if x.is_contiguous() else lambda t: t
        seen = mirror.read(look(x))
        assert torch.equal(seen.plane, look(expected))
        assert seen.shape.numel() == 0 or seen.least <= int(look(expected).min())


@pytest.mark.parametrize("constant", [(), (2,), (1, 2), (0, 2)])
def test_reads_as_other_types(constant: tuple[int, ...]):
    labels = torch.arange(2 * 3 * 6, dtype=DTYPE).reshape(2, 3, 6)
    for d in constant:
        labels = labels.narrow(d, 0, 1).expand(2, 3, 6)
    x = torch.zeros(2, 3, 6)
    for kind, expected in [
        (torch.int16, labels.repeat_interleave(2, -1)),
        (torch.complex64, labels.unflatten(-1, (3, 2)).amax(-1)),
        (torch.float32, labels),
    ]:
        mirror = Mirror()
        mirror.write(x, Labels(labels))
        assert torch.equal(mirror.read(x.view(kind)).plane, expected)
        assert torch.equal(mirror.read(x.view(kind)[1:, ::2, 1:]).plane, expected[1:, ::2, 1:])
        assert torch.equal(mirror.read(x).plane, labels)


def test_constant_features_and_heads_cost_nothing():
    """And a view that keeps them whole keeps them so."""
    mirror, heads, length, width = Mirror(), 4, 7, 6
    x = torch.zeros(1, length, heads * width)
    mirror.write(x, Labels(torch.arange(length, dtype=DTYPE)[:, None].expand(1, length, heads * width)))
    assert mirror.record(x).plane.numel() == length
    split = x.view(1, length, heads, width).transpose(1, 2)  # [batch, head, position, feature]
    half = split[..., width // 2 :]
    assert mirror.read(half).core.shape == (1, 1, length, 1)
    scores = torch.zeros(1, heads, length, length)
    mirror.write(scores, Labels(torch.ones(length, length, dtype=DTYPE).tril().expand(1, heads, length, length)))
    assert mirror.record(scores).plane.numel() == length * length
    assert mirror.read(scores.view(heads, length, length)).core.shape == (1, length, length)
    turned = torch.zeros(length, heads, width).transpose(0, 1)  # fills its storage in another order
    mirror.write(turned, Labels(torch.arange(length, dtype=DTYPE)[:, None].expand(heads, length, width)))
    assert mirror.record(turned).plane.numel() == length


class Buffered(nn.Module):
    """Copies a buffer, then overwrites the buffer."""

    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(5, 3)

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.embedding(tokens)  # [batch, seq, 3]
        buffer = torch.zeros_like(x)
        buffer[:, -1] = x[:, -1]
        copy = buffer.clone()
        buffer[:, -1] = 0
        return copy.flip(1)


def test_writing_a_part_changes_no_copy():
    tokens = torch.randint(0, 5, (2, 6))
    model = Buffered()
    with torch.no_grad(), Tracer(model, tokens) as tracer:
        seen = tracer.read(model(tokens))
    assert bool((seen[:, 0] == 5).all())
    assert bool((seen[:, 1:] <= KNOWN).all())


def test_labels_read_before_a_write_stay():
    mirror, x = Mirror(), torch.zeros(3, 4)
    mirror.write(x, Labels(torch.arange(12, dtype=DTYPE).reshape(3, 4)))
    before = mirror.read(x).plane
    kept = before.clone()
    mirror.write(x[1], Labels.full((4,), 50))
    mirror.write(x[2, :1], Labels.full((1,), -4))
    assert mirror.read(x).least <= -4
    assert torch.equal(before, kept)
    mirror.write(x[1:], mirror.read(x[:-1]))  # onto itself
    assert mirror.read(x).plane.tolist() == [[0, 1, 2, 3], [0, 1, 2, 3], [50, 50, 50, 50]]


def test_no_op_keeps_its_tensors_alive():
    """An op that made a cycle would hold its operands until the collector comes."""
    tokens = torch.randint(0, 5, (2, 6))
    model = Buffered()
    with torch.no_grad(), Tracer(model, tokens):
        model(tokens)
        gc.collect()
        gc.disable()
        try:
            for _ in range(10):
                torch.cat([model(tokens), torch.zeros(2, 1, 3)], 1)
            assert gc.collect() == 0
        finally:
            gc.enable()
