"""Whether outputs move with inputs that they may not see, whatever tells the two apart: rows, documents, padding.

The probes of `probe.py` cut a sequence in two. Here any inputs are changed, and any outputs have to stay.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from leakcheck.config import Configuration
from leakcheck.errors import SubjectCrash
from leakcheck.probes import precision
from leakcheck.probes.draws import DRAWS, Draw
from leakcheck.probes.measure import Within, channel_scale, distance
from leakcheck.probes.probe import Prober
from leakcheck.subjects import running
from leakcheck.subjects.subject import input_embedding

Run = Callable[[nn.Module, Tensor], Tensor]  # token ids [rows, seq] -> logits [rows, seq, vocab]

_EPS32 = torch.finfo(torch.float32).eps
_NORMS = (1.0, 1.0, 1.0, 10.0, 1000.0)
MORE_DRAWS = tuple(Draw(f"more-{n}", 101 + n, _NORMS[n % len(_NORMS)]) for n in range(12))


@dataclass(frozen=True, eq=False)
class Change:
    """Boolean `[rows, seq]`: the `inputs` that change, and the outputs that are `blind` to them and no padding."""

    name: str
    inputs: Tensor
    blind: Tensor


@dataclass(frozen=True, eq=False)
class Mix:
    """A leak to plant: the embeddings of `targets`, boolean `[rows, seq]`, read that of one input."""

    targets: Tensor
    row: int
    position: int


@dataclass(frozen=True)
class Move:
    """Where a change moved blind outputs most; `relative` is in units of the channel's largest value."""

    change: str
    draw: str
    row: int
    position: int
    channel: int
    delta: float
    relative: float


@dataclass(frozen=True)
class Moved:
    """What moved once float64 has spoken: `worst`, `None` if all was rounding, of at most `rounding`.

    `unconfirmed` says why float64 could not decide; `repeatable` is false where equal inputs gave different outputs.
    """

    worst: Move | None
    rounding: float = 0.0
    unconfirmed: str = ""
    repeatable: bool = True


def moved(
    prober: Prober,
    configuration: Configuration,
    run: Run,
    tokens: Tensor,
    changes: Sequence[Change],
    valid: Tensor,
    draws: Sequence[Draw] = DRAWS,
) -> Moved:
    """Make every change of `tokens` `[rows, seq]` with every draw. All outputs that are `valid` have to be finite.

    Cost: one forward for each change and draw, and three more; the same again in float64 if anything moved.

    Raises:
        SubjectCrash: the forward raised, or returned NaN.
    """

    def measured(model: nn.Module, within: Within) -> list[Move]:
        one = torch.ones(tokens.shape)
        _logits(model, run, tokens, one, within, configuration)  # what is drawn once, and kept, is there from here on
        base = _logits(model, run, tokens, one, within, configuration)
        if not base[valid].isfinite().all():
            raise SubjectCrash(f"the forward returned NaN or infinity under {configuration.id}")
        twin = _logits(model, run, tokens, one, within, configuration)
        moves = [_largest(twin, base, valid, "nothing", "twin")]
        for change in changes:
            for draw in draws:
                pair = changed(prober, tokens, change.inputs, draw)
                logits = _logits(model, run, pair.changed, pair.scale, within, configuration)
                moves.append(_largest(logits, base, change.blind, change.name, draw.name))
        return moves

    return _decided(prober, configuration, measured, twin=True)


def differing(
    prober: Prober, configuration: Configuration, run: Run, same_as: Run, tokens: Tensor, valid: Tensor
) -> Moved:
    """How far two ways to run the same tokens are apart. Cost: one run of each; the same again in float64.

    Two ways may use a constant that one of them keeps in float32 and the other works out anew: what float64 leaves is
    then that one rounding. So here, where nothing is kept from anybody, float32's epsilon is no difference.
    """

    def measured(model: nn.Module, within: Within) -> list[Move]:
        one = torch.ones(tokens.shape)
        here, there = (_logits(model, r, tokens, one, within, configuration) for r in (run, same_as))
        return [_largest(here, there, valid, "how it is run", "none")]

    found = _decided(prober, configuration, measured, twin=False)
    if found.worst is not None and found.worst.relative <= _EPS32:
        return Moved(None, rounding=found.worst.delta)
    return found


@dataclass(frozen=True, eq=False)
class Pair:
    """Two inputs: token ids `[rows, seq]` each, and what multiplies the embeddings of the second, `[rows, seq]`."""

    tokens: Tensor
    changed: Tensor
    scale: Tensor

    @property
    def differing(self) -> Tensor:
        """Boolean `[rows, seq]`."""
        return (self.tokens != self.changed) | (self.scale != 1)

    def only(self, inputs: Tensor) -> "Pair":
        """The pair that differs at no more than these inputs, boolean `[rows, seq]`."""
        return Pair(self.tokens, torch.where(inputs, self.changed, self.tokens), torch.where(inputs, self.scale, 1.0))


def changed(prober: Prober, tokens: Tensor, inputs: Tensor, draw: Draw) -> Pair:
    """Token ids `[rows, seq]`, and others at `inputs`, boolean `[rows, seq]`, as `draw` says."""
    generator = torch.Generator().manual_seed(prober.seed + draw.seed)
    other = (tokens + torch.randint(1, prober.vocab_size, tokens.shape, generator=generator)) % prober.vocab_size
    return Pair(tokens, torch.where(inputs, other, tokens), torch.where(inputs, draw.norm, torch.ones(tokens.shape)))


def shown(
    prober: Prober, configuration: Configuration, run: Run, same_as: Run | None, pair: Pair, blind: Tensor
) -> Move | None:
    """Where the pair moves `blind` outputs, boolean `[rows, seq]`, most; `None` if all is rounding. In float64.

    With `same_as`, where that way to run the second of the pair differs. Cost: three forwards.
    """
    model, _ = prober.double
    one = torch.ones(pair.tokens.shape)
    with running.configured(model, configuration):
        _logits(model, run, pair.tokens, one, precision.float64, configuration)  # what is drawn once is kept from here
        base = _logits(model, run, pair.tokens, one, precision.float64, configuration)
        other = _logits(model, same_as or run, pair.changed, pair.scale, precision.float64, configuration)
    move = _largest(other, base, blind, "", "")
    if precision.is_rounding(0.0, move.relative, 1.0) or (same_as is not None and move.relative <= _EPS32):
        return None
    return move


def sees(prober: Prober, configuration: Configuration, run: Run, tokens: Tensor, change: Change, mix: Mix) -> bool:
    """Whether `change` moves a target of a leak of one thousandth, planted behind the embedding."""

    def measured(inputs: Tensor) -> Tensor:
        with behind_embedding(prober.model, torch.ones(tokens.shape), mix, 1e-3):
            return _logits(prober.model, run, inputs, None, nullcontext, configuration)

    with running.configured(prober.model, configuration):
        before, after = measured(tokens), measured(changed(prober, tokens, change.inputs, DRAWS[0]).changed)
    return _largest(after, before, change.blind & mix.targets, change.name, "").delta > 0


@contextmanager
def behind_embedding(model: nn.Module, scale: Tensor, mix: Mix | None = None, strength: float = 1.0) -> Iterator[None]:
    """Multiply the embeddings by `scale` `[rows, seq]`, and plant a leak of that strength.

    They may come piece by piece, as in decoding; then targets and source have to be in one piece.
    """
    start, seq = 0, scale.shape[1]

    def hook(module: nn.Module, args: tuple, output: Any) -> Any:
        nonlocal start
        if not isinstance(output, Tensor) or output.dim() < 2 or len(output) != len(scale) or output.shape[1] > seq:
            return None
        size = output.shape[1]
        start = start if start + size <= seq else 0
        here, first = slice(start, start + size), start
        start = (start + size) % seq
        source = None if mix is None else mix.position - first
        planted = mix is not None and source is not None and 0 <= source < size
        if not output.is_floating_point():  # ids of a model without an embedding; they have to stay in the vocabulary
            if mix is None or not planted:
                return output
            return torch.where(mix.targets[:, here], (output + output[mix.row, source]) // 2, output)
        features = (1,) * (output.dim() - 2)
        if not bool((scale == 1).all()):
            output = output * scale[:, here].reshape(len(scale), size, *features).to(output.dtype)
        if mix is not None and planted:
            targets = mix.targets[:, here].reshape(len(scale), size, *features).to(output.dtype)
            output = output + strength * targets * output[mix.row, source]
        return output

    handle = input_embedding(model).register_forward_hook(hook)
    try:
        yield
    finally:
        handle.remove()


def _logits(
    model: nn.Module, run: Run, tokens: Tensor, scale: Tensor | None, within: Within, configuration: Configuration
) -> Tensor:
    """Every run begins in the same random state; gradients are on where users have them on."""
    torch.manual_seed(0)
    scaled = nullcontext() if scale is None else behind_embedding(model, scale)
    with torch.set_grad_enabled(configuration.mode != "eval"), scaled, within():
        return run(model, tokens).detach()


def _largest(logits: Tensor, base: Tensor, where: Tensor, change: str, draw: str) -> Move:
    apart = distance(logits, base)  # [rows, seq, vocab]
    at = apart.amax(-1).masked_fill(~where, 0.0)
    row, position = divmod(int(at.argmax()), at.shape[1])
    channel = int(apart[row, position].argmax())
    relative = (apart / channel_scale(base)).amax(-1).masked_fill(~where, 0.0).max().item()
    return Move(change, draw, row, position, channel, at.max().item(), relative)


def _decided(
    prober: Prober,
    configuration: Configuration,
    measured: Callable[[nn.Module, Within], list[Move]],
    *,
    twin: bool,
) -> Moved:
    """What moved in float32 is measured again in float64, in the same way; the first move may be that of a twin."""
    with running.configured(prober.model, configuration):
        single = measured(prober.model, nullcontext)
    if not any(move.delta for move in single):
        return Moved(None)
    unconfirmed, double = "", single
    try:
        model, _ = prober.double
        with running.configured(model, configuration):
            double = measured(model, precision.float64)
    except Exception as error:  # of a float32-only kernel, or of copying; the suspicion then stays one
        unconfirmed = f"not decided in float64: {type(error).__name__}: {error}".splitlines()[0]
    pairs = zip(single, double, strict=True)
    real = [not precision.is_rounding(one.relative, two.relative, 1.0) for one, two in pairs]
    first = 1 if twin else 0
    found = [move for move, is_real in zip(double[first:], real[first:], strict=True) if is_real]
    rounding = [move.delta for move, is_real in zip(single[first:], real[first:], strict=True) if not is_real]
    return Moved(
        worst=max(found, key=lambda move: move.delta, default=None),
        rounding=max(rounding, default=0.0),
        unconfirmed=unconfirmed,
        repeatable=not (twin and real[0]),
    )
