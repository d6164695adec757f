"""What is mutated stays a model like any other: it can be copied, cast, and is itself again once it has run."""

import copy

import pytest
import torch
from torch import nn

from leakcheck.subjects import architectures
from leakcheck.zoo import MUTATORS, Inapplicable
from leakcheck.zoo.mutators.arguments import lose_mask
from leakcheck.zoo.mutators.ops import replace_op
from leakcheck.zoo.parts import Attention, Mixer, Model

IDS = torch.arange(11)[None]


@pytest.mark.parametrize("name", MUTATORS)
def test_a_model_without_what_it_changes(name: str) -> None:
    """Modules without layers, without a choice of kernels and without an op."""
    with pytest.raises(Inapplicable):
        MUTATORS[name].plant(Bare(), True)


class Bare(nn.Module):
    def forward(self, input_ids: torch.Tensor) -> torch.Tensor:
        return nn.functional.one_hot(input_ids, 17).float()


@pytest.mark.parametrize("name", ["sums_run_from_the_right", "filling_is_thrown_away"])
def test_a_copy_leaks_as_its_original(name: str) -> None:
    model = MUTATORS[name].plant(architectures.build("mamba2"), True)
    with torch.no_grad():
        before, double = model(IDS).logits, copy.deepcopy(model).double()(IDS).logits
        clean = architectures.build("mamba2")(IDS).logits
    assert torch.allclose(before, double.float(), atol=1e-4)
    assert not torch.allclose(before, clean, atol=1e-2)


def test_ops_are_themselves_outside_of_the_model_and_after_it_has_raised() -> None:
    class Raises(Mixer):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            if x.cumsum(1).shape[1] == 3:
                raise RuntimeError("three")
            return x

    model = Model(Raises())
    replace_op(model, "cumsum", lambda original, x, dim: torch.zeros_like(x))
    with pytest.raises(RuntimeError, match="three"):
        model(IDS[:, :3])
    assert torch.equal(torch.ones(3).cumsum(0), torch.tensor([1.0, 2.0, 3.0]))


def test_a_layer_that_takes_no_mask() -> None:
    with pytest.raises(Inapplicable, match="Attention takes no attention mask"):
        lose_mask(Attention(), lambda layer: True)
