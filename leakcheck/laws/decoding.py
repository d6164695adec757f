"""The law of decoding: whatever a cache is put through, it gives what a forward of all tokens gives without one."""

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from leakcheck.errors import SubjectCrash
from leakcheck.laws.broken import NotApplicable, Vacuous
from leakcheck.laws.compare import View, expect_same, forward
from leakcheck.laws.registry import law
from leakcheck.laws.twin import Runner, Twin, twin
from leakcheck.subjects.subject import logits_of

# What a cache is called, as an argument and in what the forward returns.
_CACHES = ("past_key_values", "cache_params", "state", "past_key_value", "layer_past", "past", "kv_cache", "cache")


@dataclass(frozen=True)
class Append:
    """Decode these ids, `[batch, chunk]` as nested tuples, behind what is in the cache."""

    tokens: tuple[tuple[int, ...], ...]


@dataclass(frozen=True)
class Crop:
    """Take the last `count` tokens of each row out of the cache."""

    count: int


@dataclass(frozen=True)
class Reorder:
    """Row i of the batch goes on as row `rows[i]` was, as a beam search does."""

    rows: tuple[int, ...]


@dataclass(frozen=True)
class Reset:
    """Begin anew, with an empty cache."""


_NOTHING = torch.zeros(0, 0, dtype=torch.long)

Step = Append | Crop | Reorder | Reset


def chunks(tokens: Tensor, lengths: Sequence[int]) -> list[Step]:
    """The steps that decode `tokens` `[batch, seq]` in chunks of these lengths."""
    return [Append(_plain(chunk)) for chunk in tokens.split(list(lengths), 1)]


@law
def cache_consistent(model: object, steps: Sequence[Step]) -> None:
    """Each chunk that is appended to a cache gives what it gives in a forward of all tokens without a cache.

    Raises:
        Broken: it does not.
        NotApplicable: the model keeps no cache, or its cache cannot do such a step.
        Vacuous: no chunk is appended.
    """
    if not any(isinstance(step, Append) for step in steps):
        raise Vacuous("nothing is decoded")
    decoding = Decoding(model)
    for step in steps:
        decoding.take(step)


class Decoding:
    """Steps of decoding, each held against a forward of all tokens; `tokens` `[batch, seq]` are those in the cache."""

    def __init__(self, model: object):
        self.twin = twin(model)
        self.steps: list[Step] = []
        self._cached = _Cached(self.twin, self.twin.double)

    @property
    def tokens(self) -> Tensor:
        return self._cached.tokens

    def take(self, step: Step) -> None:
        """Take a step.

        Raises:
            Broken: an appended chunk gives something else than without a cache.
            NotApplicable: there is no cache, it cannot do this, or the model does not run in float64. What is in the
                cache is as before.
            SubjectCrash: the forward raised.
        """
        try:
            logits = self._cached.take(step)
        except SubjectCrash as error:
            _replay(self.twin, self.twin.single, [*self.steps, step])
            raise NotApplicable(f"{self.twin.name} does not decode in float64: {error}") from error
        self.steps.append(step)
        if logits is not None:
            self._expect_full(logits)

    def _expect_full(self, logits: Tensor) -> None:
        """Compare the logits `[batch, chunk, vocab]` of the last chunk with those of a forward of all tokens."""
        tokens, steps, ready = self.tokens, list(self.steps), [logits]
        rows, chunk = logits.shape[:2]
        first = tokens.shape[1] - chunk
        entries = torch.ones(rows, chunk).nonzero()

        def cached(run: Runner) -> Tensor:  # only a difference is worth decoding all of it again
            return ready.pop() if ready else _replay(self.twin, run, steps)

        claim = f"{chunk} tokens behind {first} in the cache have to give what they give without a cache"
        one = View(forward(tokens), entries[:, 0], first + entries[:, 1])
        other = View(cached, entries[:, 0], entries[:, 1])
        expect_same("cache_consistent", self.twin, one, other, claim, {"steps": steps})


class _Cached:
    """A cache and the tokens in it, `[batch, seq]`."""

    def __init__(self, model: Twin, run: Runner):
        self.model, self.run = model, run
        self.cache: Any = None
        self.tokens = _NOTHING

    def take(self, step: Step) -> Tensor | None:
        """The logits `[batch, chunk, vocab]`, if a chunk is appended."""
        if isinstance(step, Append):
            return self._append(torch.tensor(step.tokens))
        if isinstance(step, Reset):
            self.cache, self.tokens = None, _NOTHING
            return None
        if self.cache is None:
            raise Vacuous("there is nothing in the cache yet")
        if isinstance(step, Reorder):
            rows = torch.tensor(step.rows)
            self.cache = self._changed("reorder_cache", rows)
            self.tokens = self.tokens[rows]
        elif isinstance(step, Crop):
            if not 0 < step.count < self.tokens.shape[1]:
                raise Vacuous(f"{step.count} of {self.tokens.shape[1]} tokens cannot be taken out and leave any")
            self.cache = self._changed("crop", -step.count)
            self.tokens = self.tokens[:, : -step.count]
        return None

    def _append(self, chunk: Tensor) -> Tensor:
        name = next((name for name in _CACHES if self.model.takes(name)), None)
        if name is None:
            raise NotApplicable(f"{self.model.name}.forward takes no cache")
        given = {} if self.cache is None else {name: self.cache}
        output = self.run(chunk, use_cache=True, **given)
        if isinstance(output, (tuple, list)):
            cache = output[1] if len(output) > 1 else None
        else:
            cache = output.get(name) if isinstance(output, dict) else getattr(output, name, None)
        if cache is None:
            raise NotApplicable(f"{self.model.name} returns no {name}")
        self.cache = cache
        self.tokens = chunk if self.tokens is _NOTHING else torch.cat([self.tokens, chunk], 1)
        return logits_of(output)

    def _changed(self, method: str, argument: Any) -> Any:
        """A copy of the cache, changed by its method."""
        cache = copy.deepcopy(self.cache)
        if not hasattr(cache, method):
            raise NotApplicable(f"a {type(cache).__name__} has no {method}")
        try:
            getattr(cache, method)(argument)
        except (NotImplementedError, RuntimeError, TypeError, ValueError) as error:
            raise NotApplicable(f"this {type(cache).__name__} refuses {method}: {error}") from error
        return cache


def _replay(model: Twin, run: Runner, steps: Sequence[Step]) -> Tensor:
    """The logits of the last chunk that these steps append."""
    cached = _Cached(model, run)
    logits = [made for step in steps if (made := cached.take(step)) is not None]
    return logits[-1] if logits else _NOTHING


def _plain(tokens: Tensor) -> tuple[tuple[int, ...], ...]:
    return tuple(tuple(row) for row in tokens.tolist())
