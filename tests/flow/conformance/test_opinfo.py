"""Torch's own samples for all of its ops, with a rule or without: flow never claims less than brute force shows."""

import itertools
import warnings
import zlib
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.testing._internal.common_methods_invocations import op_db

from leakcheck.flow.context import tensors_of
from tests.flow.conformance.claims import labelled_call, unsound
from tests.flow.conformance.oracle import Input, horizons
from tests.flow.conformance.spec import fill, leaves

pytestmark = pytest.mark.filterwarnings("ignore")

SAMPLES, ELEMENTS, LABELS = 3, 60, 5  # of an op; of an input or output; of one call

# Not held against brute force, with the reason.
EXEMPT = {
    "as_strided_partial_views": "it reads storage beside the tensor that it is given",
    "to_sparse": "sparse tensors have no labels",
    "nonzero": "the trace goes on with a result of its own",
    "argwhere": "the trace goes on with a result of its own",
}
OPS = [
    info
    for info in op_db
    if torch.float64 in info.dtypes and info.formatted_name not in EXEMPT and not info.name.startswith("jiterator")
]  # jiterator: for CUDA alone


def test_exemptions_are_of_ops_that_exist():
    assert set(EXEMPT) <= {info.formatted_name for info in op_db}


def calls(info: Any) -> Iterator[tuple[tuple, dict]]:
    """Small calls: positional arguments and keywords."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = info.sample_inputs("cpu", torch.float64, requires_grad=False)
        for sample in itertools.islice(found, 12):
            given = (sample.input, *sample.args), sample.kwargs
            tensors = [t for t in leaves(given) if isinstance(t, Tensor)]
            if all(t.numel() <= ELEMENTS and t.layout is torch.strided for t in tensors):
                yield given


def redrawn(value: Tensor) -> Any:
    """Other valid values: what the tensor holds, in another order, and for floats close to that."""

    def draw(generator: torch.Generator, shape: Any) -> Tensor:
        if not value.numel():
            return value
        picked = value.reshape(-1)[torch.randint(value.numel(), tuple(shape), generator=generator)]
        if not value.is_floating_point():
            return picked
        return picked * (0.9 + 0.2 * torch.rand(tuple(shape), generator=generator, dtype=value.dtype))

    return draw


@pytest.mark.parametrize("info", OPS, ids=lambda i: i.formatted_name)
def test_op(info):
    torch.manual_seed(0)
    for args, kwargs in itertools.islice(calls(info), SAMPLES):
        seed = zlib.crc32(f"{info.formatted_name} {args} {kwargs}".encode())
        generator = torch.Generator().manual_seed(seed)
        tensors = [t.detach().clone() for t in leaves((args, kwargs)) if isinstance(t, Tensor)]
        inputs = [Input(t, torch.randint(LABELS, t.shape, generator=generator), redrawn(t)) for t in tensors]

        def function(values: Any, args: tuple = args, kwargs: dict = kwargs) -> list[Tensor]:
            remaining = iter([v.clone() for v in values])
            given, named = fill((args, kwargs), lambda x: next(remaining) if isinstance(x, Tensor) else x)
            return list(tensors_of(info.op(*given, **named)))

        truth = horizons(function, inputs, seed=seed, bases=2)
        claimed = labelled_call(function, inputs)
        assert not unsound(claimed, truth), f"{info.formatted_name}({args}, {kwargs})"
