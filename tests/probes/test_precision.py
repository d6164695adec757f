"""Float64 on demand, and what counts as rounding."""

import pytest
import torch
from torch import nn

from leakcheck.probes.precision import float64, is_rounding

EPS32 = torch.finfo(torch.float32).eps
EPS64 = torch.finfo(torch.float64).eps


@pytest.mark.parametrize(
    ("single", "double", "scale"),
    [
        (2e-6, 4e-15, 10.0),  # a Fourier convolution
        (1e-7, 0.0, 1.0),
        (0.0, 0.0, 1.0),
        (0.0, 0.0, 0.0),  # a model that returns zeros
        (0.0, 1e3 * EPS64, 1.0),
        (0.0, 1e-15, 1.0),  # float32 happened to round both alike
        (3e-2, 1e-10, 1.0),  # ill-conditioned: it falls with epsilon
    ],
)
def test_what_falls_with_epsilon_is_rounding(single, double, scale):
    assert is_rounding(single, double, scale)


@pytest.mark.parametrize(
    ("single", "double", "scale"),
    [
        (2.4e-7, 1e-7, 1.0),  # a leak that was shipped
        (0.0, 1e-9, 3.0),  # below float32, not below float64
        (1.0, 1.0, 1.0),
        (float("inf"), float("inf"), 1.0),
        (float("inf"), 1e-14, 1e-3),  # an infinity in float32 says nothing of the conditioning
        (1e-3, 1e-3, 1e4),
    ],
)
def test_what_stays_is_a_leak(single, double, scale):
    assert not is_rounding(single, double, scale)


@pytest.mark.parametrize(
    "cast",
    [
        lambda x: x.float(),
        lambda x: x.half(),
        lambda x: x.bfloat16(),
        lambda x: x.to(torch.float32),
        lambda x: x.to(dtype=torch.bfloat16),
        lambda x: x.to("cpu", torch.float32),
        lambda x: x.type(torch.float32),
        lambda x: x.softmax(-1, dtype=torch.float32),
        lambda x: nn.functional.softmax(x, dim=-1, dtype=torch.float32),
        lambda x: x.sum(0, dtype=torch.float32),
        lambda x: torch.zeros_like(x, dtype=torch.float32),
        lambda x: torch.zeros(2),
        lambda x: torch.arange(3, dtype=torch.float32),
        lambda x: torch.tensor([1.0]),
    ],
)
def test_casts_and_new_tensors_are_float64(cast):
    x = torch.ones(3, dtype=torch.float64)
    with float64():
        assert cast(x).dtype == torch.float64


def test_casts_to_integers_stay():
    with float64():
        assert torch.ones(3).long().dtype == torch.int64
        assert (torch.ones(3) > 0).dtype == torch.bool
        assert torch.ones(3).to(torch.int64).dtype == torch.int64
        assert torch.zeros(3, dtype=torch.bool).dtype == torch.bool


@pytest.mark.parametrize("ends", [[3, 3, 8], [0, 2, 8], [8, 8, 8], [2, 5, 8]])
def test_grouped_products_of_experts_have_a_float64_of_their_own(ends):
    generator = torch.Generator().manual_seed(0)
    rows = torch.randn(8, 16, generator=generator)
    weights = torch.randn(3, 16, 24, generator=generator)
    offs = torch.tensor(ends, dtype=torch.int32)
    single = nn.functional.grouped_mm(rows, weights, offs=offs)
    with float64():
        double = nn.functional.grouped_mm(rows.double(), weights.double(), offs=offs)
    assert double.dtype == torch.float64
    assert torch.allclose(double, single.double(), atol=1e-4)


def test_nothing_below_float64_is_lost_inside():
    third = torch.tensor(1 / 3, dtype=torch.float64)
    with float64():
        assert third.float() == third
    assert third.float() != third


@pytest.mark.parametrize("before", [torch.float32, torch.bfloat16])
def test_the_default_dtype_is_restored_also_after_an_exception(before):
    torch.set_default_dtype(before)
    try:
        with float64():
            assert torch.get_default_dtype() == torch.float64
        assert torch.get_default_dtype() == before
        with pytest.raises(ZeroDivisionError), float64():
            1 / 0  # noqa: B018
        assert torch.get_default_dtype() == before
        assert torch.ones(1).float().dtype == torch.float32
    finally:
        torch.set_default_dtype(torch.float32)


def test_it_nests_and_the_same_one_can_be_entered_again():
    mode = float64()
    with mode:
        with mode, float64():
            assert torch.ones(1).float().dtype == torch.float64
        assert torch.get_default_dtype() == torch.float64
        assert torch.ones(1).float().dtype == torch.float64
    assert torch.get_default_dtype() == torch.float32
    with mode:
        assert torch.ones(1).dtype == torch.float64
    assert torch.ones(1, dtype=torch.float64).float().dtype == torch.float32
