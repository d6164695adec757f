"""Which axes of an output are the batch and the time: found by running the model at several sizes."""

from collections.abc import Mapping
from fractions import Fraction

import torch
from torch import nn

from leakcheck.errors import SubjectCrash
from leakcheck.subjects.adapter import Adapter
from leakcheck.subjects.inputs import Inputs, Result

_TRIALS = (
    ((2, 24), (2, 48), (3, 24)),
    ((2, 8), (2, 12), (3, 8)),  # models of few positions
    ((2, 48), (2, 64), (3, 48)),
    ((2, 240), (2, 480), (3, 240)),
    ((2, 3840), (2, 7680), (3, 3840)),
)


def read_results(model: nn.Module, inputs: Inputs) -> dict[str, Result]:
    """Which outputs have a batch and a time axis, found by running the model at several sizes.

    Raises:
        Exception: whatever the model raises at all of these sizes.
        SubjectCrash: no output has both axes.
    """
    fixed = next((a.fixed for a in inputs.audited.values() if a.fixed), None)
    if fixed is not None:
        return _results_of_fixed(model, inputs, fixed)
    error: Exception | None = None
    for (rows, seq), (_, longer), (more, _) in _TRIALS:
        try:
            base = _shapes(model, inputs, rows, seq)
            long, wide = _shapes(model, inputs, rows, longer), _shapes(model, inputs, more, seq)
        except Exception as raised:
            error = error or raised
            continue
        results = {}
        for name, shape in base.items():
            found = _result(shape, long.get(name), wide.get(name), seq, longer, inputs)
            if found is not None:
                results[name] = found
        if not results:
            raise SubjectCrash(f"no output has a batch and a time axis; the shapes are {_said(base)}")
        return results
    assert error is not None
    raise error


def _shapes(model: nn.Module, inputs: Inputs, rows: int, seq: int) -> dict[str, torch.Size]:
    adapter = Adapter(model, inputs, {})
    rows = 1 if adapter.by_rows else rows
    ids = torch.arange(rows * seq).reshape(rows, seq) % adapter.vocabulary
    with torch.no_grad():
        return {name: tensor.shape for name, tensor in adapter.outputs(ids).items()}


def _said(shapes: Mapping[str, torch.Size]) -> str:
    return ", ".join(f"{name} {list(shape)}" for name, shape in shapes.items()) or "none"


def _result(
    shape: torch.Size, long: torch.Size | None, wide: torch.Size | None, seq: int, longer: int, inputs: Inputs
) -> Result | None:
    if long is None or wide is None or not len(shape) == len(long) == len(wide):
        return None
    times = [axis for axis, (a, b) in enumerate(zip(shape, long, strict=True)) if a != b]
    batches = [axis for axis, (a, b) in enumerate(zip(shape, wide, strict=True)) if a != b]
    by_rows = not all(a.batched for a in inputs.audited.values())
    if len(times) != 1 or len(batches) != (0 if by_rows else 1):
        return None
    time = times[0]
    rate = Fraction(long[time] - shape[time], longer - seq)
    return Result(batch=None if by_rows else batches[0], time=time, rate=rate, offset=int(shape[time] - seq * rate))


def _results_of_fixed(model: nn.Module, inputs: Inputs, seq: int) -> dict[str, Result]:
    """Of a model that has one length: the first axis of that size is the time."""
    shapes = _shapes(model, inputs, 2, seq)
    by_rows = not all(a.batched for a in inputs.audited.values())
    results = {}
    for name, shape in shapes.items():
        times = [axis for axis, size in enumerate(shape) if size == seq]
        batches = [axis for axis, size in enumerate(shape) if size == 2]
        if times and (by_rows or batches):
            results[name] = Result(None if by_rows else batches[0], times[0])
    if not results:
        raise SubjectCrash(f"no output has a batch and a time axis of {seq}; the shapes are {_said(shapes)}")
    return results
