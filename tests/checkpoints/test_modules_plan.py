"""Which function of a module is its stage."""

import functools

import pytest
from torch import nn

from leakcheck import audit
from leakcheck.checkpoints.modules import ModulesPlan
from leakcheck.config import Settings


def telling(forward):
    @functools.wraps(forward)
    def wrapped(self, *args, **kwargs):
        return forward(self, *args, **kwargs)

    return wrapped


def silent(forward):
    def wrapped(self, *args, **kwargs):
        return forward(self, *args, **kwargs)

    return wrapped


def both(forward):
    return telling(silent(telling(forward)))


@pytest.mark.parametrize("decorator", [telling, silent, both])
def test_the_stage_is_what_a_decorator_wraps(decorator):
    class Rolled(nn.Module):
        @decorator
        def forward(self, x):
            return x + x.roll(-1, dims=1)

    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.embed = nn.Embedding(11, 4)
            self.rolled = Rolled()

        def forward(self, ids):
            return self.rolled(self.embed(ids))

    model = Model()
    plan = ModulesPlan(model)
    assert plan.codes[model.rolled].co_qualname.endswith("Rolled.forward")
    assert {code.co_name for code in plan.watch_everything()["wrappers"]} >= {"wrapped"}
    found = next(f for f in audit(model, Settings(seq_len=5)).findings if f.code == "LC101")
    assert "inside " in found.message
    assert "Rolled.forward" in found.message


def test_a_forward_that_passes_everything_on_is_its_own_stage():
    def helper(x):
        return x

    def method(self, x):
        return x

    other = method

    class PassesOn(nn.Module):
        def forward(self, *args, **kwargs):
            return helper(*args, **kwargs)

    class HasTwo(nn.Module):
        def forward(self, *args, **kwargs):
            return method(self, *args) + other(self, **kwargs)

    class TakesOne(nn.Module):
        def forward(self, x):
            return method(self, x)

    for module in (PassesOn(), HasTwo(), TakesOne()):
        assert ModulesPlan(module).codes[module] is type(module).forward.__code__
