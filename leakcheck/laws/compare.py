"""Whether two forwards say the same at the same places; else how far they differ, and where that begins."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from leakcheck.errors import SubjectCrash
from leakcheck.laws.broken import Broken, Counterexample, NotApplicable
from leakcheck.laws.twin import Runner, Twin
from leakcheck.probes.precision import is_rounding
from leakcheck.subjects.subject import unwrapped

_TINY = 1e-30  # stands for the size of a channel that is zero throughout
_MARGIN, _EPS = 1e3, torch.finfo(torch.float64).eps


@dataclass(frozen=True, eq=False)
class View:
    """Of the outputs of one forward, `[batch, seq, ...]`, those at `positions` `[n]` of `rows` `[n]`.

    `forward` gives the logits that a runner makes of it.
    """

    forward: Callable[[Runner], Tensor]
    rows: Tensor
    positions: Tensor

    def of(self, output: Tensor) -> Tensor:
        """`[n, features]`."""
        return output[self.rows, self.positions].flatten(1).detach()

    def logits(self, run: Runner) -> tuple[Tensor, Tensor]:
        """The logits looked at, `[n, vocab]`, and the largest of each channel, `[vocab]`."""
        logits = self.forward(run)
        return self.of(logits), _sizes(logits.flatten(2))


def forward(tokens: Tensor, **arguments: Any) -> Callable[[Runner], Tensor]:
    """The forward of these token ids, `[batch, seq]`."""
    return lambda run: run.logits(tokens, **arguments)


def whole(forward: Callable[[Runner], Tensor], rows: int, seq: int) -> View:
    """A view of all positions of all rows, row by row."""
    return of_mask(forward, torch.ones(rows, seq, dtype=torch.bool))


def of_mask(forward: Callable[[Runner], Tensor], mask: Tensor) -> View:
    """A view of the positions where the mask `[batch, seq]` is true, row by row."""
    rows, positions = mask.nonzero(as_tuple=True)
    return View(forward, rows, positions)


def expect_same(law: str, model: Twin, one: View, other: View, claim: str, inputs: Mapping[str, Any]) -> None:
    """Compare what two views see, entry by entry; places are told as those of `one`.

    Decided as the probes do: in float64, in units of each channel's largest value, with the conditioning that float32
    shows: by how far the views differ there, and by how far it is from float64 (two views may round to the same in one
    and not in the other, where what is looked at is left of a cancellation). Cost: both forwards; four times that where
    something differs.

    Raises:
        Broken: they differ by more than rounding.
        NotApplicable: the model does not run in float64.
        SubjectCrash: the forward raised, or what it returned is not finite on both sides.
    """
    double = _compared(model, one, other, double=True)
    delta, relative, scale = double.delta, double.relative, double.scale
    if is_rounding(0.0, relative.max().item(), 1.0):
        return
    single = _compared(model, one, other, double=False)
    lost = (_distance(single.a, double.a) / scale).max().item()
    if is_rounding(max(single.relative.max().item(), lost), relative.max().item(), 1.0):
        return
    entry, channel = divmod(int(relative.argmax()), relative.shape[1])
    raise Broken(
        Counterexample(
            law=law,
            claim=claim,
            inputs=inputs,
            row=int(one.rows[entry]),
            position=int(one.positions[entry]),
            delta=delta[entry, channel].item(),
            rounding=_MARGIN * _EPS * scale[channel].item(),
            module=_first_module(model, one, other),
        )
    )


def same(model: Twin, one: View, other: View) -> bool:
    """Whether nothing differs at all, not even by rounding."""
    return not _compared(model, one, other, double=True).delta.any()


@dataclass(frozen=True, eq=False)
class _Compared:
    """The logits `a` that one view sees, and their `delta` to the other's, both `[n, vocab]`.

    `scale` `[vocab]` is the size of each channel.
    """

    a: Tensor
    delta: Tensor
    scale: Tensor

    @property
    def relative(self) -> Tensor:
        return self.delta / self.scale


def _compared(model: Twin, one: View, other: View, *, double: bool) -> _Compared:
    run = model.double if double else model.single
    try:
        (a, size), (b, other_size) = one.logits(run), other.logits(run)
    except SubjectCrash as error:
        if not double:
            raise
        one.logits(model.single)
        raise NotApplicable(f"{model.name} does not run in float64, where rounding is told apart: {error}") from error
    if (a.isnan() & b.isnan()).any():
        raise SubjectCrash(f"{model.name}: an output is not a number, and cannot be compared")
    return _Compared(a, _distance(a, b), torch.maximum(size, other_size))


def _distance(a: Tensor, b: Tensor) -> Tensor:
    return torch.where(a == b, torch.zeros((), dtype=a.dtype), (a - b).abs()).nan_to_num(nan=float("inf"))


def _first_module(model: Twin, one: View, other: View) -> str:
    """The first module, in the order in which they return, whose output differs between the views."""
    seen, otherwise = _outputs(one, model.double), _outputs(other, model.double)
    differing = (key for key in seen if key in otherwise and _differs(one, other, seen[key], otherwise[key]))
    name, _ = next(differing, ("", 0))
    return name


def _differs(one: View, other: View, output: Tensor, otherwise: Tensor) -> bool:
    try:
        a, b = one.of(output), other.of(otherwise)
    except IndexError:  # its first two axes are not batch and time
        return False
    if a.shape != b.shape or not a.numel():
        return False
    scale = torch.maximum(_sizes(output.flatten(2)), _sizes(otherwise.flatten(2)))
    return not is_rounding(0.0, (_distance(a, b) / scale).max().item(), 1.0)


def _sizes(output: Tensor) -> Tensor:
    """The largest value of each channel of an output `[batch, seq, channels]`; never zero."""
    return output.detach().abs().nan_to_num(nan=0.0, posinf=0.0).amax((0, 1)).clamp(min=_TINY)


def _outputs(view: View, run: Runner) -> dict[tuple[str, int], Tensor]:
    """What every module below the model returns in the view's last forward, by its name and the number of its call."""
    outputs: dict[tuple[str, int], Tensor] = {}

    def hook(name: str) -> Callable[[nn.Module, Any, Any], None]:
        def keep(module: nn.Module, args: Any, output: Any) -> None:
            tensors = [leaf for leaf in pytree.tree_leaves(output) if isinstance(leaf, Tensor) and leaf.dim() > 2]
            calls = sum(1 for other, _ in outputs if other == name)
            if tensors:
                outputs[name, calls] = tensors[0].detach().clone()

        return keep

    handles = [
        module.register_forward_hook(hook(name)) for name, module in unwrapped(run.model).named_modules() if name
    ]
    handles.append(run.model.register_forward_pre_hook(lambda module, args: outputs.clear()))
    try:
        view.forward(run)
    finally:
        for handle in handles:
            handle.remove()
    return outputs
