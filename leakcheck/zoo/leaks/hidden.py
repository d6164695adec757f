"""Leaks that a detector passes by: behind a gate of zero, without a derivative, in one mode alone."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from leakcheck.findings import Verdict
from leakcheck.zoo.parts import HIDDEN, Mixer, so_far
from leakcheck.zoo.registry import leak


class Gated(Mixer):
    """A branch that is scaled by a weight that starts at zero."""

    def __init__(self, leaky: bool = False):
        super().__init__(leaky)
        self.gate = nn.Parameter(torch.zeros(HIDDEN))


@leak(learned_from="https://arxiv.org/abs/2003.04887")
class GateOfZero(Gated):
    """Fresh weights show nothing, since a branch starts scaled by zero; drawn anew they do."""

    def forward(self, x: Tensor) -> Tensor:
        return so_far(x) + self.gate * F.pad(x, (0, 0, -1, 1) if self.leaky else (0, 0, 1, -1))  # leak


@leak(
    learned_from="https://arxiv.org/abs/2106.09685",
    weights="as built",
    verdict=Verdict.SUSPECT,
    codes=("LC104",),
    blind=("perturbation", "gradient"),
)
class GateOfZeroAsGiven(Gated):
    """The same under weights that are given: nothing can move, until it is trained."""

    def forward(self, x: Tensor) -> Tensor:
        return so_far(x) + self.gate * F.pad(x, (0, 0, -1, 1) if self.leaky else (0, 0, 1, -1))  # leak


@leak(learned_from="https://arxiv.org/abs/1711.00937", blind=("gradient",))
class Detached(Mixer):
    """What is read ahead is detached."""

    def forward(self, x: Tensor) -> Tensor:
        return so_far(x) + F.pad(x.detach(), (0, 0, -1, 1) if self.leaky else (0, 0, 1, -1))  # leak


@leak(learned_from="https://arxiv.org/abs/2208.07339", blind=("gradient",))
class Rounded(Mixer):
    """What is read ahead is rounded to few values."""

    def forward(self, x: Tensor) -> Tensor:
        return so_far(x) + F.pad((4 * x).round(), (0, 0, -1, 1) if self.leaky else (0, 0, 1, -1))  # leak


@leak(learned_from="https://arxiv.org/abs/1611.01144", blind=("gradient",))
class ArgMax(Mixer):
    """The position of the largest feature over time is an integer, and has no derivative."""

    def forward(self, x: Tensor) -> Tensor:
        largest = x.argmax(1 if self.leaky else 2, keepdim=True)  # leak
        return so_far(x) + largest


@leak(learned_from="https://arxiv.org/abs/1308.3432")
class StraightThrough(Mixer):
    """A sign that gradients pass as if it were the value."""

    def forward(self, x: Tensor) -> Tensor:
        sign = x + (x.sign() - x).detach()
        return so_far(x) + F.pad(sign, (0, 0, -1, 1) if self.leaky else (0, 0, 1, -1))  # leak


@leak(learned_from="https://github.com/shiyu-coder/Kronos/issues/199", mode="train")
class OnlyInTraining(Mixer):
    """The causal way is chosen by `self.training`, and the wrong way round."""

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return so_far(x)
        return so_far(x) + F.pad(x, (0, 0, -1, 1) if self.leaky else (0, 0, 1, -1))  # leak


@leak(learned_from="https://arxiv.org/abs/1512.05287", mode="train", blind=("gradient",))
class OnlyWithDropout(Mixer):
    """Where dropout has taken a feature, it is filled in from the next position."""

    def __init__(self, leaky: bool = False):
        super().__init__(leaky)
        self.dropout = nn.Dropout(0.3)

    def forward(self, x: Tensor) -> Tensor:
        kept = self.dropout(torch.ones_like(x)) > 0
        return so_far(x) + torch.where(kept, x, F.pad(x, (0, 0, -1, 1) if self.leaky else (0, 0, 1, -1)))  # leak


@leak(learned_from="https://arxiv.org/abs/1910.02054", blind=("gradient",))
class BelowEveryTolerance(Mixer):
    """A ten-millionth of the next position, as a low-precision buffer would leave it."""

    def forward(self, x: Tensor) -> Tensor:
        return so_far(x) + 1e-7 * F.pad(x, (0, 0, -1, 1) if self.leaky else (0, 0, 1, -1)).detach()  # leak


@leak(learned_from="https://github.com/huggingface/transformers/issues/34817", shortest=10, blamed=False)
class OnlyBeyondLength(Mixer):
    """The first eight positions are right, as in a test of few tokens. Flow names the line that joins the parts."""

    def forward(self, x: Tensor) -> Tensor:
        early, late = so_far(x)[:, :8], so_far(x)[:, 8:]
        late = late + F.pad(late, (0, 0, -1, 1) if self.leaky else (0, 0, 1, -1))  # leak
        return torch.cat([early, late], 1)
