"""Rules and declarations of a user's own: believed only where brute force on the function alone agrees."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from leakcheck import flow
from leakcheck.flow.engine import Flow
from leakcheck.flow.registry import RULES, rule_for

BATCH, SEQ, HIDDEN, VOCAB = 2, 7, 5, 11


@pytest.fixture(autouse=True)
def _strict(monkeypatch):
    monkeypatch.setattr(Flow, "strict", True)


class Around(nn.Module):
    """Embedding, a function of hidden states `[batch, seq, hidden]`, head."""

    def __init__(self, function):
        super().__init__()
        torch.manual_seed(3)
        self.embed, self.head = nn.Embedding(VOCAB, HIDDEN), nn.Linear(HIDDEN, VOCAB)
        self.function = function
        self.weight = nn.Parameter(torch.randn(SEQ, HIDDEN))

    def forward(self, input_ids: Tensor) -> Tensor:
        return self.head(self.function(self.embed(input_ids)))


def traced(function, labels: Tensor | None = None) -> flow.Trace:
    tokens = torch.randint(VOCAB, (BATCH, SEQ), generator=torch.Generator().manual_seed(1))
    return flow.trace(Around(function), tokens, labels)


def holes(function) -> list:
    """Of a trace that says nothing of any position."""
    result = traced(function)
    assert not result.proven
    assert not result.violations
    return [hole for hole in result.holes if hole.kind == "refuted declaration"]


def fourier(x: Tensor, kernel: Tensor, size: int) -> Tensor:
    spectrum = torch.fft.rfft(x, size, dim=1) * torch.fft.rfft(kernel, size, dim=0)
    return torch.fft.irfft(spectrum, size, dim=1)[:, : x.shape[1]]


KERNEL = torch.randn(SEQ, HIDDEN, generator=torch.Generator().manual_seed(5))
by_numpy = flow.declare("pointwise")(lambda x: torch.from_numpy(np.tanh(x.numpy())))
by_fourier = flow.declare("causal", dim=1)(fourier)


def test_an_undeclared_fourier_convolution_is_open():
    result = traced(lambda x: fourier(x, KERNEL, 2 * SEQ))
    assert not result.proven
    assert not result.violations
    assert any("fft" in hole.op for hole in result.holes)


def test_declared_causal_it_is_proven():
    result = traced(lambda x: by_fourier(x, KERNEL, size=2 * SEQ))
    assert result.proven
    assert result.horizon.tolist() == [list(range(SEQ))] * BATCH


def test_a_circular_one_is_refuted_with_the_positions():
    def circular(x: Tensor) -> Tensor:
        return by_fourier(x, KERNEL, SEQ)

    (hole,) = holes(circular)
    assert hole.op == "fourier"
    assert f"argument {[BATCH, SEQ, HIDDEN]}" in hole.carries
    assert "changing position [0, 1, :]" in hole.carries
    assert "moved position [0, 0, 0]" in hole.carries
    assert hole.place.file == __file__
    assert hole.place.line == circular.__code__.co_firstlineno + 1


def test_what_leaves_torch_inside_a_declared_function_is_covered():
    assert not traced(lambda x: torch.from_numpy(np.tanh(x.numpy()))).proven
    assert traced(by_numpy).proven


def test_a_causal_function_carries_earlier_labels_on():
    sums = flow.declare("causal", dim=1)(lambda x: torch.from_numpy(x.numpy()[:, ::-1].cumsum(1)[:, ::-1].copy()))
    late = torch.arange(SEQ).flip(0).expand(BATCH, SEQ)  # time runs backwards
    flipped = flow.declare("causal", dim=1)(lambda x: torch.from_numpy(x.numpy().cumsum(1)))
    result = traced(flipped, late)
    assert result.horizon.tolist() == [[SEQ - 1] * SEQ] * BATCH
    assert len(holes(sums)) == 1


@pytest.mark.parametrize("kind", ["causal", "positionwise"])
def test_batch_rows_stay_apart_unless_declared_to_mix(kind):
    rows = torch.arange(BATCH)[:, None].expand(BATCH, SEQ)
    apart = flow.declare(kind, dim=1)(lambda x: x * 2)
    mixed = flow.declare(kind, dim=1, batch=None)(lambda x: x * 2)
    assert traced(apart, rows).proven
    assert traced(mixed, rows).horizon.tolist() == [[1] * SEQ] * BATCH
    assert len(holes(flow.declare(kind, dim=1)(lambda x: x + x.flip(0)))) == 1
    assert traced(flow.declare(kind, dim=1, batch=None)(lambda x: x + x.flip(0))).proven


def test_several_results_and_other_arguments():
    @flow.declare("causal", dim=1)
    def scan(scale: float, states: dict[str, Tensor], *, name: str) -> tuple[Tensor, Tensor]:
        x = states["x"]
        if name == "late":
            x = x.flip(1)
        sums = torch.from_numpy((scale * x.numpy()).cumsum(1))
        return sums, sums[:, -1]

    def first(x: Tensor) -> Tensor:
        return scan(0.5, {"x": x}, name="early")[0]

    def last_state(x: Tensor) -> Tensor:
        return x + scan(0.5, {"x": x}, name="early")[1][:, None]

    assert traced(first).proven
    assert traced(last_state).horizon.tolist() == [[SEQ - 1] * SEQ] * BATCH  # it has no positions: all of them
    assert traced(last_state).violations
    assert len(holes(lambda x: scan(0.5, {"x": x}, name="late")[0])) == 1


def test_a_result_with_other_features_and_a_broadcast_argument():
    norm = flow.declare("positionwise", dim=1)(lambda x, y: torch.from_numpy((x.numpy() * y.numpy()).sum(-1)))
    assert traced(lambda x: x * norm(x, x[:, :1])[..., None]).proven
    assert traced(lambda x: x * norm(x, x[:, -1:])[..., None]).horizon.tolist() == [[SEQ - 1] * SEQ] * BATCH


@pytest.mark.parametrize("integer", [True, False])
def test_integers_and_booleans_are_changed_too(integer):
    def leaky(x: Tensor) -> Tensor:
        return (x + x.roll(-1, 1)) if integer else x ^ x.roll(-1, 1)

    def clean(x: Tensor) -> Tensor:
        return x + 1 if integer else ~x

    def through(function):
        declared = flow.declare("pointwise")(function)
        return lambda x: x + declared(x.gt(0).long() if integer else x.gt(0))

    assert traced(through(clean)).proven
    assert len(holes(through(leaky))) == 1


# --- false declarations ---------------------------------------------------------------------------------------------


def one_pair(x: Tensor) -> Tensor:
    y = x.clone()
    y[0, 2, 1] += 1e-6 * x[0, 5, 4]
    return y


def rarely(x: Tensor) -> Tensor:
    y = x.clone()
    y[:, 3] += (x[:, 4] > 4).to(x.dtype)
    return y


def one_channel(x: Tensor) -> Tensor:
    return torch.cat([x[..., :-1], x[..., -1:].flip(1)], -1)


def rounded(x: Tensor) -> Tensor:
    return x + x.roll(-1, 1).detach().round()


def by_shape(x: Tensor) -> Tensor:
    return x[:, : 1 + int(x[0, -1, 0] > 0)]


def only_one_at_a_time(x: Tensor) -> Tensor:
    """Two large values switch it off again."""
    large = x.abs() > 4
    first = (torch.arange(SEQ) == 0)[:, None]
    return x + first * ((large.any(-1).sum() == 1) & large.any())


def only_many_at_once(x: Tensor) -> Tensor:
    first = (torch.arange(SEQ) == 0)[:, None]
    return x + first * ((x.abs() > 4).any(-1).any(0).sum() >= 3)


@pytest.mark.parametrize("kind", ["pointwise", "positionwise", "causal"])
@pytest.mark.parametrize("function", [one_pair, rarely, one_channel, rounded, only_one_at_a_time])
def test_a_false_declaration_is_caught(function, kind):
    declared = flow.declare(kind, **({} if kind == "pointwise" else {"dim": 1}))(function)
    (hole,) = holes(declared)
    assert "moved position" in hole.carries
    assert "changing position" in hole.carries


def test_a_leak_that_needs_several_positions_is_caught():
    (hole,) = holes(flow.declare("pointwise")(only_many_at_once))
    assert "at once" in hole.carries


def test_known_arguments_are_what_they_are():
    mixed = flow.declare("causal", dim=1)(lambda x, mask: torch.from_numpy(mask.numpy() @ x.numpy()))
    assert traced(lambda x: mixed(x, torch.ones(SEQ, SEQ, dtype=x.dtype).tril())).proven
    assert len(holes(lambda x: mixed(x, torch.ones(SEQ, SEQ, dtype=x.dtype)))) == 1


def test_a_result_without_labelled_arguments_may_still_hold_parameters():
    gate = nn.Parameter(torch.zeros(HIDDEN))
    zeros = flow.declare("pointwise")(lambda ones: ones * gate)
    result = traced(lambda x: x.roll(-1, 1) * zeros(torch.ones(HIDDEN)))
    assert result.violations  # zero today, and after a step no more


def test_the_positions_of_a_single_pair_are_named():
    (hole,) = holes(flow.declare("pointwise")(one_pair))
    assert "changing position [0, 5, 4]" in hole.carries
    assert "moved position [0, 2, 1]" in hole.carries


def test_a_size_that_depends_on_values_is_caught():
    declared = flow.declare("causal", dim=1)(by_shape)
    (hole,) = holes(lambda x: x + declared(x).sum(1, keepdim=True) * 0)
    assert "the shape of its result" in hole.carries


class Gate(nn.Module):
    """Lets the future through a gate that starts at zero."""

    def __init__(self, shift: int):
        super().__init__()
        self.gate = nn.Parameter(torch.zeros(HIDDEN))
        self.shift = shift

    @flow.declare("positionwise", dim=1)
    def forward(self, x: Tensor) -> Tensor:
        return x + self.gate * x.roll(self.shift, 1)


def test_a_gate_at_zero_hides_nothing():
    assert traced(Gate(0)).proven
    leaky = Gate(-1)
    assert len(holes(leaky)) == 1
    assert not leaky.gate.any()  # the check leaves the subject as it is


def test_a_tensor_that_is_no_argument_is_seen():
    def forward(x: Tensor) -> Tensor:
        total = x.mean(1, keepdim=True)
        return flow.declare("pointwise")(lambda y: y + total)(x)

    (hole,) = holes(forward)
    assert "no argument" in hole.carries


def test_state_between_calls_is_seen():
    kept: list[Tensor] = []

    @flow.declare("pointwise")
    def remember(x: Tensor) -> Tensor:
        kept.append(x * 2)
        return x + 1

    @flow.declare("pointwise")
    def recall(x: Tensor) -> Tensor:
        return x + kept[0].mean()

    (hole,) = holes(lambda x: recall(remember(x)))
    assert hole.op.endswith("recall")


def test_writing_to_an_argument_is_seen():
    @flow.declare("pointwise")
    def write(x: Tensor) -> Tensor:
        x.numpy()[:] = 0
        return x + 1

    (hole,) = holes(write)
    assert "writes to its arguments" in hole.carries


def test_a_number_computed_from_tokens_is_seen():
    declared = flow.declare("pointwise")(lambda x: (x, x.numpy().sum().item()))
    (hole,) = holes(lambda x: declared(x)[0])
    assert "more than tensors" in hole.carries


def test_randomness_is_no_leak_but_a_function_of_the_call_count_is():
    calls: list[None] = []

    def counting(x: Tensor) -> Tensor:
        calls.append(None)
        return x + len(calls)

    assert traced(flow.declare("pointwise")(lambda x: nn.functional.dropout(x, 0.5))).proven
    (hole,) = holes(flow.declare("pointwise")(counting))
    assert "two runs differ" in hole.carries


def test_a_check_covers_equal_calls_and_no_others():
    calls: list[torch.Size] = []

    @flow.declare("causal", dim=1)
    def counted(x: Tensor, shift: int) -> Tensor:
        calls.append(x.shape)
        return x.roll(shift, 1)

    traced(lambda x: counted(x, 0))
    once = len(calls)
    calls.clear()
    assert traced(lambda x: counted(counted(x, 0), 0)).proven
    assert len(calls) == once + 1
    assert len(holes(lambda x: counted(counted(x, 0), -1))) == 1
    assert len(holes(lambda x: counted(x[:, :4], -1).repeat(1, 2, 1)[:, :SEQ] + counted(x, 0))) == 1


def test_outside_of_a_trace_it_is_the_plain_function():
    x = torch.randn(2, 3)
    assert torch.allclose(by_numpy(x), torch.tanh(x))
    assert by_fourier.__name__ == "fourier"


def test_a_declaration_says_what_it_lacks():
    with pytest.raises(ValueError, match="unknown kind"):
        flow.declare("linear")
    with pytest.raises(ValueError, match="which dim"):
        flow.declare("causal")
    with pytest.raises(ValueError, match="no dim"):
        flow.declare("pointwise", dim=1)


# --- rules for custom ops ---------------------------------------------------------------------------------------------


@torch.library.custom_op("leakcheck_tests::shift_back", mutates_args=())
def shift_back(x: Tensor) -> Tensor:
    """Each position takes the one before it."""
    return torch.from_numpy(np.roll(x.numpy(), 1, 1) * (np.arange(x.shape[1]) > 0)[:, None].astype("float32"))


@pytest.fixture
def shift_rule():
    @flow.rule("leakcheck_tests::shift_back")
    def shifted(x) -> flow.labels.Labels:
        return x.labels.view(lambda t: nn.functional.pad(t[:, :-1], (0, 0, 1, 0), value=flow.labels.KNOWN))

    yield shifted
    del RULES["leakcheck_tests::shift_back"]


def test_a_custom_op_without_a_rule_is_a_hole_with_its_line():
    def forward(x: Tensor) -> Tensor:
        return shift_back(x)

    result = traced(forward)
    (hole,) = result.holes
    assert hole.op == "leakcheck_tests::shift_back"
    assert hole.kind == "op without a rule"
    assert hole.place.line == forward.__code__.co_firstlineno + 1
    assert not result.covered.any()


def test_with_a_rule_it_is_exact(shift_rule):
    result = traced(lambda x: shift_back(x) + shift_back(shift_back(x)))
    assert not result.holes
    assert result.horizon.tolist() == [[-1, *range(SEQ - 1)]] * BATCH


def test_two_rules_for_one_op_are_refused(shift_rule):
    assert rule_for("leakcheck_tests::shift_back", "default").function is shift_rule
    with pytest.raises(ValueError, match="two rules"):
        flow.rule("leakcheck_tests::shift_back")(shift_rule)
