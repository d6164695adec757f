"""Random ops: the noise counts as given, what scales it does not."""

import pytest
import torch
import torch.nn.functional as F

from leakcheck.flow.labels import GENERIC, HOLE
from tests.flow.rules.bruteforce import check, tokens, traced


@pytest.mark.parametrize(
    "fill",
    [
        torch.Tensor.normal_, torch.Tensor.uniform_, torch.Tensor.exponential_, torch.Tensor.cauchy_,
        torch.Tensor.log_normal_, torch.Tensor.random_, lambda x: x.geometric_(0.3), lambda x: x.bernoulli_(0.3),
        lambda x: torch.bernoulli(x, 0.3),
    ],
)  # fmt: skip
def test_what_was_there_is_not_read(fill):
    seen = check(fill, tokens(2, 3))
    assert seen.labels[0].unique().tolist() == [GENERIC]


def test_by_element():
    check(lambda x: torch.bernoulli(x.sigmoid()), tokens(2, 3), draws=60, exact=False)
    check(lambda x, p: x.bernoulli_(p.sigmoid()), tokens(2, 3), tokens(2, 3, start=6), exact=False, draws=20)
    check(lambda m, s: torch.normal(m, s.abs()), tokens(2, 3), tokens(2, 3, start=6))
    check(lambda m: torch.normal(m, 1.0), tokens(2, 3))
    check(lambda s: torch.normal(0.0, s.abs()), tokens(2, 3))
    assert (
        traced(lambda x: torch.bernoulli(x.sigmoid()), tokens(2, 3)).labels[0].tolist() == tokens(2, 3).labels.tolist()
    )


@pytest.mark.parametrize("replacement", [False, True])
def test_choice_by_row(replacement):
    given = tokens(3, 4)
    seen = check(lambda x: torch.multinomial(x.softmax(-1), 2, replacement), given, exact=False, draws=8)
    assert torch.equal(seen.labels[0], given.labels.amax(-1, keepdim=True).expand(3, 2))


def test_dropout_keeps_elements_apart():
    for call in (F.dropout, F.dropout1d, F.alpha_dropout, F.feature_alpha_dropout):
        check(lambda x, call=call: call(x, 0.3, training=True), tokens(2, 3, 4), exact=False)
        seen = traced(lambda x, call=call: call(x, 0.3, training=True), tokens(2, 3, 4))
        assert torch.equal(seen.labels[0], tokens(2, 3, 4).labels)
    check(lambda x: torch.native_dropout(x, 0.3, True)[0], tokens(2, 3), exact=False)


def test_leaky_by_noise():
    check(lambda x: F.rrelu(x), tokens(2, 3))
    seen = traced(lambda x: F.rrelu(x, training=True), tokens(2, 3))
    assert bool((seen.labels[0] == HOLE).all())
    assert [hole.kind for hole in seen.reports.holes] == ["opaque op"]


@pytest.mark.parametrize("sampler", [torch.poisson, torch._standard_gamma, torch._sample_dirichlet])
def test_samplers_that_reject_are_holes(sampler):
    seen = traced(lambda x: sampler(x.abs() + 1), tokens(2, 3))
    assert bool((seen.labels[0] == HOLE).all())
    assert seen.reports.holes


def test_factories():
    for call in (torch.randn_like, torch.rand_like):
        assert traced(call, tokens(2, 3)).labels[0].unique().tolist() == [GENERIC]
    for call in (lambda: torch.randperm(4), lambda: torch.rand(3), lambda: torch.randint(3, (2,))):
        assert traced(call).labels[0].unique().tolist() == [GENERIC]
