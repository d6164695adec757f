"""The delta matrix against brute force, the horizon map against what was planted in which layer."""

import copy
from functools import partial

import pytest
import torch
from torch import Tensor, nn

from leakcheck import Settings, audit
from leakcheck.config import parse_contract
from leakcheck.findings import AuditResult, Verdict
from tests.models import (
    SEQ,
    VOCAB,
    Convolution,
    Dropped,
    FourierConvolution,
    llama,
    one_pair,
    predecessor,
    reading,
    so_far,
    subject_of,
    successor,
    toy,
)


def audited(model: nn.Module, settings: Settings | None = None) -> AuditResult:
    return audit(subject_of(model), settings or Settings())


def matrix(result: AuditResult) -> Tensor:
    assert result.delta_matrix is not None
    return torch.tensor(result.delta_matrix.deltas)  # [output, input]


def moving(model: nn.Module) -> Tensor:
    """Boolean `[output, input]`: which output moves with which input, in float64; written without any of leakcheck."""
    model = copy.deepcopy(model).double().eval()
    ids = torch.randint(VOCAB, (SEQ,), generator=torch.Generator().manual_seed(7))
    with torch.no_grad():
        before = model(ids[None])[0]
        others = torch.where(torch.eye(SEQ, dtype=torch.bool), (ids + 1) % VOCAB, ids)
        return torch.stack([(model(other[None])[0] - before).abs().amax(-1) > 1e-9 for other in others], 1)


@pytest.mark.parametrize(
    ("mixer", "leaks"),
    [
        (so_far, False),
        (partial(one_pair, reader=2, read=7), True),
        (Convolution(2, 0), False),
        (Convolution(1, 2), True),
        (FourierConvolution(padded=True), False),  # moves every output, by rounding
        (FourierConvolution(padded=False), True),
    ],
)
def test_the_matrix_shows_what_moves_and_nothing_else(mixer, leaks: bool) -> None:
    model = toy(mixer)
    found = matrix(audited(model))
    future = torch.ones(SEQ, SEQ).triu(1).bool()
    assert torch.equal(found != 0, moving(model) | ((found != 0) & ~future & found.lt(1e-5)))
    assert bool(found[future].any()) is leaks


def test_deltas_are_those_of_the_change_of_one_token() -> None:
    model = toy(partial(one_pair, reader=2, read=7))
    found = matrix(audited(model))
    assert (found[2, 3:] != 0).tolist() == [source == 7 for source in range(3, SEQ)]
    assert found.diagonal().min() > 0.1


@pytest.mark.parametrize(("contract", "hidden"), [("lookahead:1", False), ("window:3", True)])
def test_what_a_contract_allows_is_not_rounded_away(contract: str, hidden: bool) -> None:
    model = toy(Convolution(3, 1))
    result = audited(model, Settings(contract=parse_contract((contract,))))
    found = matrix(result)
    assert (result.verdict is Verdict.LEAK) is hidden
    assert found.diagonal(1).min() > 0
    assert found.diagonal(-3).min() > 0


def test_rows_that_depend_on_their_batch_run_one_by_one() -> None:
    result = audited(toy(Dropped(1.0)))
    future = torch.ones(SEQ, SEQ).triu(1).bool()
    assert not matrix(result)[future].any()
    found = matrix(audited(toy(TrainedFlip(dropout=0.3))))
    mirrored = torch.eye(SEQ).flip(1).bool()
    assert found[future & mirrored].any()
    assert not found[future & ~mirrored].any()  # as where each row drops something else


class TrainedFlip(nn.Module):
    """In train mode each position reads its mirror image, in another place where there is dropout."""

    def __init__(self, dropout: float = 0.0):
        super().__init__()
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        return so_far(x) + (self.dropout(x).flip(1) if self.training else 0)


def test_the_map_is_of_the_configuration_that_leaks_most() -> None:
    result = audited(toy(TrainedFlip()))
    assert result.delta_matrix is not None
    assert result.horizon_map is not None
    assert result.delta_matrix.configuration == result.horizon_map.configuration
    assert result.horizon_map.configuration == "default/none/train"


def test_horizons_of_each_layer_and_position() -> None:
    result = audited(reading(llama, "model.layers.1.mlp", successor), Settings(attention=("eager",)))
    assert result.horizon_map is not None
    assert result.horizon_map.padding == result.delta_matrix.padding == ()
    rows = {row.layer: row.ahead for row in result.horizon_map.rows if row.path}
    assert rows[0] == (0,) * SEQ
    assert rows[1] == (1,) * (SEQ - 1) + (0,)
    outputs = result.horizon_map.rows[-1]
    assert (outputs.path, outputs.layer, outputs.ahead) == ("", None, rows[1])


def test_padding_is_named_where_it_alone_leaks() -> None:
    """The first position that is no padding reads the one before it, which is, and sees everything."""
    result = audited(reading(llama, "model.layers.1.mlp", predecessor), Settings(attention=("eager",)))
    assert result.horizon_map is not None
    assert result.delta_matrix is not None
    assert result.horizon_map.configuration.startswith("eager/left-padded/")
    assert result.horizon_map.padding == result.delta_matrix.padding == (0, 1)
    assert result.horizon_map.rows[-1].ahead[2:4] == (SEQ - 3, 0)
    assert matrix(result)[2, 3:].min() > 0
    assert not matrix(result)[3:].triu(4).any()


def branching(x: Tensor) -> Tensor:
    return x.flip(1) if x[0, 0, 0] > 100 else so_far(x)


@pytest.mark.parametrize("mixer", [FourierConvolution(padded=True), branching])
def test_behind_a_hole_nothing_is_known(mixer) -> None:
    result = audited(toy(mixer))
    assert result.horizon_map is not None
    assert result.horizon_map.rows[-1].ahead == (None,) * SEQ
