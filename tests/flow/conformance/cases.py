"""From a sample to labelled inputs: each pattern of labels makes one case, deterministic from the sample's text."""

import zlib
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from leakcheck.flow.labels import BLOCKED, GENERIC, KNOWN, ZERO
from tests.flow.conformance.oracle import Input, tie
from tests.flow.conformance.spec import Sample, Spec

LABELS = 7  # of inputs, in one case


@dataclass(frozen=True)
class Case:
    """One sample with values and labels. `inputs` belong to the sample's specs in order.

    `planes` are the flow labels: as the inputs' own, with ZERO and BLOCKED where the fixed values are. `exact`: whether
    a claim above the truth counts as coarse.
    """

    sample: Sample
    pattern: str
    inputs: tuple[Input, ...]
    planes: tuple[Tensor, ...]
    seed: int
    exact: bool

    def __str__(self) -> str:
        return f"{self.sample} [{self.pattern}]"


def cases(sample: Sample) -> Iterator[Case]:
    specs = sample.specs()
    varied = [i for i, spec in enumerate(specs) if spec.role == "varied"]
    patterns = ["elements", "positions", "uniform", "expanded", "mixed"]
    kinds = [specs[i].draw(torch.Generator(), (1,)).dtype for i in varied]
    indices = torch.int64 in kinds
    low = any(kind.is_floating_point and specs[i].blocks for i, kind in zip(varied, kinds, strict=True))
    if low:
        patterns.append("blocked")
    if len(varied) > 1:
        patterns += [f"only {i}" for i in varied] + [f"only {i}, the rest blocked" for i in varied if low]
    if not varied:
        patterns = ["uniform"]
    for pattern in patterns:
        chosen = [k for i, k in zip(varied, kinds, strict=True) if f"only {i}" in pattern]
        seed = zlib.crc32(f"{sample} {pattern}".encode())
        made = [
            _argument(spec, i, pattern, sample, torch.Generator().manual_seed(seed + i)) for i, spec in enumerate(specs)
        ]
        yield Case(
            sample,
            pattern,
            tuple(each for each, _ in made),
            tuple(plane for _, plane in made),
            seed,
            exact=sample.exact and _is_exact(pattern, indices, chosen),
        )


def _is_exact(pattern: str, indices: bool, chosen: list[torch.dtype]) -> bool:
    """Not where huge or equal values hide what brute force tries, nor for indices that are known in part."""
    if "blocked" in pattern or pattern == "expanded" or (pattern == "mixed" and indices):
        return False
    return all(kind.is_floating_point or kind.is_complex for kind in chosen)


def _argument(
    spec: Spec, number: int, pattern: str, sample: Sample, generator: torch.Generator
) -> tuple[Input, Tensor]:
    value = spec.draw(generator, spec.shape)
    tied = None
    if spec.role == "generic":
        plane = torch.full(spec.shape, GENERIC)
    elif spec.role == "known" or (pattern.startswith("only") and not pattern.startswith(f"only {number}")):
        plane = torch.full(spec.shape, KNOWN)
        if spec.role == "varied":
            share = (0.4, 0.3, 0.0) if "blocked" in pattern else (0.4, 0.0, 0.0)
            value, plane = _constants(spec, value, plane, share, sample, generator)
            plane = torch.full(spec.shape, KNOWN)  # uniformly known: the values are there to be looked at
    else:
        plane = _labels(spec.shape, pattern, generator)
        if pattern == "expanded" and spec.shape:
            tied = int(torch.randint(len(spec.shape), (), generator=generator))
            value, plane = tie(value, tied), tie(plane, tied)
        elif pattern == "mixed":
            value, plane = _constants(spec, value, plane, (0.2, 0.0, 0.2), sample, generator)
        elif pattern == "blocked":
            value, plane = _constants(spec, value, plane, (0.1, 0.25, 0.1), sample, generator)
    return Input(value, plane.clamp(min=KNOWN).long(), spec.draw, tied), plane


def _labels(shape: tuple[int, ...], pattern: str, generator: torch.Generator) -> Tensor:
    one = torch.randint(LABELS, (), generator=generator)
    if pattern == "uniform" or not shape:
        return one.expand(shape).clone()
    if pattern == "positions":
        dim = int(torch.randint(len(shape), (), generator=generator))
        sizes = [shape[d] if d == dim else 1 for d in range(len(shape))]
        return torch.arange(shape[dim]).reshape(sizes).expand(shape).clone()
    return torch.randint(LABELS, shape, generator=generator)


def _constants(
    spec: Spec,
    value: Tensor,
    plane: Tensor,
    shares: tuple[float, float, float],
    sample: Sample,
    generator: torch.Generator,
) -> tuple[Tensor, Tensor]:
    """Some elements made zero, blocking, or known or generic, with labels that say so."""
    zero, blocked, other = shares
    fate = torch.rand(spec.shape, generator=generator)
    if spec.zero:
        at = fate < zero
        value, plane = value.masked_fill(at, 0), plane.masked_fill(at, ZERO)
    else:
        plane = plane.masked_fill(fate < zero, KNOWN)
    at = (fate >= zero) & (fate < zero + blocked)
    if value.is_floating_point() and spec.blocks:
        which = torch.randint(len(sample.blocking), spec.shape, generator=generator)
        value = torch.where(at, torch.tensor(sample.blocking, dtype=value.dtype)[which], value)
        plane = plane.masked_fill(at, BLOCKED)
    at = (fate >= zero + blocked) & (fate < zero + blocked + other)
    middle = zero + blocked + other / 2
    plane = torch.where(at, torch.where(fate < middle, KNOWN, GENERIC), plane)
    return value, plane
