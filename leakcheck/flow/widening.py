"""Loops over what the tokens hit (`for expert in hit.nonzero()`), traced at their widest.

How often such a loop runs depends on the tokens, and Python does not say what its body did not do. So `nonzero` of a
mask whose elements all depend on the same inputs, which has no positions to tell apart, is traced as if every element
were
hit: the loop runs for all experts, and is no longer control flow. That is sound if running the body for an expert that
no token chose changes nothing. This is not taken on trust: the model is run as it is and at its widest, on inputs that
leave experts unhit, and the outputs must agree to the last bit. If they do not, or if nothing was ever left out, the
loop is a hole.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from leakcheck.flow.reports import CONTROL_FLOW, Place, Reports, here
from leakcheck.subjects.subject import logits_of


def widen(possible: Tensor, reports: Reports) -> Tensor | None:
    """What `nonzero` gives for a mask that is true wherever it can be; `None` where no line of the user's asks."""
    place = here()
    if place is None:
        return None
    by_shape = reports.widened.setdefault(place, {})
    by_shape[possible.shape] = by_shape.get(possible.shape, possible) | possible
    return possible.nonzero()


class _Widest(TorchDispatchMode):
    """Runs the `nonzero` of some places at its widest, and counts what that adds."""

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False

    def __init__(self, places: dict[Place, dict[torch.Size, Tensor]]):
        super().__init__()
        self.places = places
        self.added: dict[Place, int] = dict.fromkeys(places, 0)

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if func is torch.ops.aten.nonzero.default and (place := here()) in self.places:
            assert place is not None
            widest = self.places[place].get(args[0].shape, torch.ones_like(args[0], dtype=torch.bool)).nonzero()
            self.added[place] += len(widest) - len(result)
            return widest
        return result


def explained(run: Callable[[Tensor], Any], source: Tensor, reports: Reports) -> None:
    """Checks every widened loop by running it; what does not hold becomes a hole."""
    added: dict[Place, int] = dict.fromkeys(reports.widened, 0)
    differs = ""
    for inputs in _inputs_that_hit_little(source):
        widest = _Widest(reports.widened)
        state = torch.get_rng_state()
        try:
            with torch.no_grad():
                plain = logits_of(run(inputs))
                torch.set_rng_state(state)
                with widest:
                    wide = logits_of(run(inputs))
        except Exception:  # a length that the model does not take: the other inputs decide
            continue
        for place, count in widest.added.items():
            added[place] += count
        if not torch.equal(plain, wide):
            differs = f"running it for what no token chose changes the output at length {inputs.shape[1]}"
    for place in sorted(reports.widened, key=str):
        reason = differs or ("" if added[place] else "no input was found that leaves something out")
        if reason:
            reports.hole_at(place, "aten::nonzero", CONTROL_FLOW, f"how often a loop runs; {reason}")


def unexplained(reports: Reports) -> None:
    """Every widened loop is a hole, where the model has no values and cannot be run."""
    for place in sorted(reports.widened, key=str):
        carries = "how often a loop runs; without weights it cannot be run to compare"
        reports.hole_at(place, "aten::nonzero", CONTROL_FLOW, carries)


def _inputs_that_hit_little(source: Tensor) -> list[Tensor]:
    """The inputs themselves, the same token everywhere, and short beginnings."""
    return [source, source[:1, :1].expand_as(source[:1]).clone(), source[:1, :1].clone(), source[:1, :2].clone()]
