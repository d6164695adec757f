"""Draws from a generator. The noise itself counts as given; what it is scaled or shifted by has labels.

Samplers that reject (`poisson`, `binomial`, gamma, `rrelu` in training) take as much noise as the values want, so one
element's value moves the noise of the next: they have no rule, or HOLE.
"""

from typing import Any

from leakcheck.flow import labels as L
from leakcheck.flow.context import Context
from leakcheck.flow.labels import GENERIC, HOLE, Labels
from leakcheck.flow.operand import Operand
from leakcheck.flow.registry import rule


@rule(
    "aten::normal_", "aten::normal_functional", "aten::uniform", "aten::exponential", "aten::geometric", "aten::cauchy",
    "aten::log_normal", "aten::random", "aten::bernoulli_.float", "aten::bernoulli.p",
)  # fmt: skip
def filled_with_noise(*_: Any, **__: Any) -> int:
    """Only the shape is used."""
    return GENERIC


@rule("aten::bernoulli", "aten::normal", rowwise=True)
def noise_by_element(*parameters: Any, **_: Any) -> Labels:
    """Elementwise by probability, mean or deviation."""
    given = [x.labels for x in parameters if isinstance(x, Operand)]
    return L.join(*given, Labels.full((), GENERIC))


@rule("aten::bernoulli_.Tensor", "aten::bernoulli.Tensor", rowwise=True)
def noise_by_probability(x: Operand, probability: Operand, **_: Any) -> Labels:
    """What was in x is not read."""
    return L.join(probability.labels, Labels.full(x.shape, GENERIC))


@rule("aten::multinomial", rowwise=True)
def choice(weights: Operand, samples: int, *_: Any, **__: Any) -> Labels:
    """`[..., categories]` to `[..., samples]`."""
    row = L.join(weights.labels.over(-1, keepdim=True), Labels.full((), GENERIC))
    return row.expand((*weights.shape[:-1], samples))


@rule("aten::rrelu_with_noise", rowwise=True)
def leaky_by_noise(
    x: Operand,
    noise: Operand,
    lower: float = 1 / 8,
    upper: float = 1 / 3,
    training: bool = False,
    *_: Any,
    context: Context,
) -> Labels | int:
    """A fixed slope, unless training: then only negative elements take noise, so that one moves what the next gets."""
    if not training:
        return x.labels
    if x.labels.settled().highest < 0:
        return GENERIC
    context.reports.hole(context.name, "opaque op", "the values decide how much noise is drawn")
    return HOLE
