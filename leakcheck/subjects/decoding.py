"""Run a model on a sequence piece by piece, with a cache that it hands on from each piece to the next."""

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from leakcheck.config import Configuration
from leakcheck.errors import SubjectCrash
from leakcheck.subjects import running
from leakcheck.subjects.adapter import Adapter
from leakcheck.subjects.subject import logits_of, unwrapped

_STATES = "cache_params"
_CACHES = ("past_key_values", _STATES)  # what a forward calls the cache that it takes and returns


def cache_argument(model: nn.Module) -> str | None:
    """The argument by which the forward takes its cache; `None` of a model that decodes with none."""
    if isinstance(model, Adapter):
        return None
    parameters = inspect.signature(model.forward).parameters
    return next((name for name in _CACHES if name in parameters), None)


def decode(model: nn.Module, token_ids: Tensor, configuration: Configuration, chunks: Sequence[int]) -> Tensor:
    """Logits `[batch, seq, vocab]` of `token_ids` `[batch, seq]`: the first `chunks[0]` are run, then the next.

    Raises:
        SubjectCrash: the forward raised, or returned no logits or no cache.
    """
    name = cache_argument(model)
    assert name is not None
    mask = running.valid_positions(configuration, token_ids.shape[1]).long().repeat(len(token_ids), 1)
    given: dict[str, Any] = {"use_cache": True} if running.takes(model, "use_cache") else {}
    pieces, start = [], 0
    for end in torch.tensor(chunks).cumsum(0).tolist():
        if configuration.mask != "none":
            # With keys goes a mask of all that they are of; with states, which have no positions, one of the piece.
            given["attention_mask"] = mask[:, start if name == _STATES else 0 : end]
        output = running.called(model, token_ids[:, start:end], given, configuration)
        given[name] = _cache(output, name)
        if given[name] is None:
            raise SubjectCrash(f"{type(unwrapped(model)).__name__}.forward returned no {name} with use_cache=True")
        pieces.append(logits_of(output))
        start = end
    return torch.cat(pieces, 1)


def _cache(output: Any, name: str) -> Any:
    if isinstance(output, Mapping):
        return output.get(name)
    if isinstance(output, (tuple, list)):
        return output[1] if len(output) > 1 else None
    return getattr(output, name, None)
