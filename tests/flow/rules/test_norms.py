"""Normalisations against brute force, and what training leaves in the running statistics."""

from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from leakcheck.flow.labels import GENERIC
from tests.flow.rules.bruteforce import check, tokens, traced, weight

aten = torch.ops.aten


def test_layer_norm():
    check(lambda x, w, b: F.layer_norm(x, (3, 4), w, b), tokens(2, 3, 4), weight(3, 4), weight(3, 4))
    check(lambda x, w, b: torch.native_layer_norm(x, (4,), w, b, 1e-5), tokens(2, 3, 4), tokens(4, start=30), weight(4))
    check(lambda x: torch.native_layer_norm(x, (4,), None, None, 1e-5), tokens(2, 3, 4))


def test_root_mean_square():
    check(lambda x, w: aten._fused_rms_norm(x, [4], w, 1e-5), tokens(2, 3, 4), tokens(4, start=30))
    check(lambda x: F.rms_norm(x, (3, 4)), tokens(2, 3, 4))


@pytest.mark.parametrize("groups", [1, 2, 4])
def test_group_norm(groups):
    check(lambda x, w, b: F.group_norm(x, groups, w, b), tokens(2, 4, 3), weight(4), tokens(4, start=30))
    check(lambda x: aten.native_group_norm(x, None, None, 2, 4, 6, groups, 1e-5), tokens(2, 4, 3, 2))


@pytest.mark.parametrize("shape", [(3, 2), (3, 2, 4), (2, 3, 2, 2)])
def test_batch_norm_of_the_batch(shape):
    w, b = weight(shape[1]), tokens(shape[1], start=40)
    check(lambda x, w, b: torch.native_batch_norm(x, w, b, None, None, True, 0.1, 1e-5), tokens(*shape), w, b)
    check(lambda x, w, b: aten._native_batch_norm_legit.no_stats(x, w, b, True, 0.1, 1e-5), tokens(*shape), w, b)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("op", ["native_batch_norm", "_native_batch_norm_legit", "_native_batch_norm_legit_functional"])
def test_batch_norm_with_statistics(op, training):
    def call(x, w, b, m, v):
        v = v.abs() + 1
        result = getattr(aten, op)(x, w, b, m, v, training, 0.1, 1e-5)
        return result, m, v

    exact = op != "_native_batch_norm_legit"  # what an op writes but does not return takes on everything
    x, w, b = tokens(3, 2, 4), weight(2), weight(2)
    m, v = tokens(2, start=30), tokens(2, start=40)
    check(call, x, w, b, m, v, exact=exact)
    seen = traced(call, x, w, b, m, v)
    channel = x.labels.amax((0, 2)) if training else torch.tensor([41, 41])
    if training:
        assert torch.equal(seen.labels[0], channel[:, None].expand(3, 2, 4))


@pytest.mark.parametrize("op", ["_native_batch_norm_legit_no_training", "_batch_norm_no_update"])
def test_batch_norm_in_use(op):
    check(
        lambda x, w, m, v: getattr(aten, op)(x, w, None, m, v.abs() + 1, 0.1, 1e-5),
        tokens(3, 2, 4), weight(2), tokens(2, start=30), tokens(2, start=40),
    )  # fmt: skip


def test_batch_norm_with_update():
    def call(x, w, m, v):
        return aten._batch_norm_with_update(x, w, None, m, v, 0.1, 1e-5)

    check(call, tokens(3, 2, 4), weight(2), torch.zeros(2).double(), torch.ones(2).double())


def test_a_second_forward_sees_what_training_left():
    """The kernel writes the running statistics, though its schema does not say so."""
    module = nn.BatchNorm1d(2, affine=False).double()

    def call(x, y):
        module.reset_running_stats()
        module.train()(x)
        return module.eval()(y)

    seen = check(call, tokens(3, 2, 4), weight(3, 2, 4))
    assert int(seen.labels[0].min()) >= 0


@pytest.mark.parametrize("momentum", [0.1, None])
def test_the_module_in_training(momentum):
    check(lambda x: nn.BatchNorm1d(2, momentum=momentum).double()(x), tokens(3, 2, 4))


def test_instance_norm():
    check(lambda x: F.instance_norm(x), tokens(2, 3, 4))
    check(lambda x, w: F.instance_norm(x, weight=w), tokens(2, 3, 4), tokens(3, start=30))
    check(
        lambda x, m: F.instance_norm(x, m, torch.ones(3).double(), use_input_stats=False),
        tokens(2, 3, 4), tokens(3, start=30),
    )  # fmt: skip


def test_norms_of_weights():
    check(lambda x: x.renorm(2, 1, 0.5), tokens(2, 4, 3))
    check(lambda v, g: torch._weight_norm(v, g, 0), tokens(4, 5), tokens(4, 1, start=20))


def test_local_response():
    check(partial(F.local_response_norm, size=2), tokens(2, 4, 3))


@pytest.mark.parametrize("shape", [(0, 3), (2, 1)])
def test_size_zero_and_one(shape):
    check(lambda x, w: F.layer_norm(x, (shape[1],), w), tokens(*shape), weight(shape[1]), exact=False)


def test_a_parameter_is_generic():
    seen = traced(lambda w: F.layer_norm(torch.ones(2, 3).double(), (3,), w), weight(3))
    assert seen.labels[0].unique().tolist() == [GENERIC]
