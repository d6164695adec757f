"""For every law a model that breaks it and a twin that does not; most are LLaMA or GPT-2 with one thing wrong."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from transformers import AttentionInterface, DynamicCache

from tests.models import HIDDEN, Toy, _kernel, gpt2, llama, predecessor, reading, seeded, so_far, successor, toy


class Wrapped(nn.Module):
    """A causal LM whose forward passes on what it is given, changed by `change`."""

    def __init__(self, inner: nn.Module, change: Callable[[dict[str, Any]], dict[str, Any]]):
        super().__init__()
        self.inner, self.change = inner, change

    def forward(self, input_ids, attention_mask=None, position_ids=None, past_key_values=None, use_cache=False) -> Any:
        given = {
            "attention_mask": attention_mask,
            "position_ids": position_ids,
            "past_key_values": past_key_values,
            "use_cache": use_cache,
        }
        return self.inner(input_ids, **self.change(given))


def without(argument: str) -> Callable[[dict[str, Any]], dict[str, Any]]:
    return lambda given: {**given, argument: None}


def unchanged(given: dict[str, Any]) -> dict[str, Any]:
    return given


class Remembering(nn.Module):
    """Adds what the run before left behind; the clean one only keeps it."""

    def __init__(self, *, leaky: bool):
        super().__init__()
        self.leaky = leaky
        self.register_buffer("last", torch.zeros(HIDDEN))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        added = so_far(x) + self.last * self.leaky
        self.last = x[0, -1].clone()
        return added


class Documents(Toy):
    """Means over what came before in the same document; the leaky one forgets whose it is."""

    def __init__(self, *, leaky: bool):
        super().__init__(nn.Identity())
        self.leaky = leaky

    def forward(self, input_ids: torch.Tensor, document_ids: torch.Tensor) -> torch.Tensor:
        x = self.embed(input_ids)  # [batch, seq, hidden]
        ones = torch.ones(x.shape[1], x.shape[1], dtype=x.dtype)
        weights = ones.tril().expand(len(x), -1, -1)
        if not self.leaky:
            weights = weights * (document_ids[:, :, None] == document_ids[:, None])
        return self.head(x + weights / weights.sum(-1, keepdim=True) @ x)


# --- caches -----------------------------------------------------------------------------------------------------------


class Forgetful(DynamicCache):
    """Crops the last layer at the wrong end, and does not reorder it."""

    wrong = ("crop", "reorder_cache")

    def crop(self, count: int) -> None:
        for layer in self.layers:
            if layer is self.layers[-1] and "crop" in self.wrong:
                layer.keys, layer.values = layer.keys[:, :, -count:], layer.values[:, :, -count:]
            else:
                layer.crop(count)

    def reorder_cache(self, beam_idx: torch.Tensor) -> None:
        for layer in self.layers[: -1 if "reorder_cache" in self.wrong else None]:
            layer.reorder_cache(beam_idx)


class Careful(Forgetful):
    wrong = ()


def with_cache(kind: type[DynamicCache]) -> nn.Module:
    def change(given: dict[str, Any]) -> dict[str, Any]:
        if given["use_cache"] and given["past_key_values"] is None:
            given["past_key_values"] = kind()
        return given

    return Wrapped(llama(), change)


def not_advancing() -> nn.Module:
    """With a cache every token takes the position of the first."""

    def change(given: dict[str, Any]) -> dict[str, Any]:
        return {**given, "position_ids": torch.zeros(1, 1, dtype=torch.long)} if given["use_cache"] else given

    return Wrapped(gpt2(), change)


def _top_left(scores: torch.Tensor) -> torch.Tensor:
    """The causal mask of a square, laid on the first keys, however many are in the cache."""
    return scores.masked_fill(torch.ones_like(scores, dtype=torch.bool).triu(1), -torch.inf).softmax(-1)


def _bottom_right(scores: torch.Tensor) -> torch.Tensor:
    queries, keys = scores.shape[-2:]
    blocked = torch.ones_like(scores, dtype=torch.bool).triu(1 + keys - queries)
    return scores.masked_fill(blocked, -torch.inf).softmax(-1)


AttentionInterface.register("laws top-left", _kernel(_top_left))
AttentionInterface.register("laws bottom-right", _kernel(_bottom_right))


@dataclass(frozen=True)
class Planted:
    law: str
    broken: Callable[[], nn.Module]
    clean: Callable[[], nn.Module]
    first: str = ""  # the module where it begins


PLANTED = {
    "successor": Planted(
        "causal",
        lambda: reading(llama, "model.layers.1.mlp", successor, "3e-7 of it"),
        lambda: reading(llama, "model.layers.1.mlp", predecessor, "3e-7 of it"),
        "model.layers.1.mlp",
    ),
    "rounded": Planted(
        "causal",
        lambda: reading(gpt2, "transformer.h.0", successor, "rounded"),
        lambda: reading(gpt2, "transformer.h.0", predecessor, "rounded"),
        "transformer.h.0",
    ),
    "beyond a length": Planted(
        "prefix_consistent",
        lambda: reading(llama, "model.layers.0.mlp", successor, "beyond position 8"),
        lambda: reading(llama, "model.layers.0.mlp", predecessor, "beyond position 8"),
        "model.layers.0.mlp",
    ),
    "memory": Planted(
        "repeatable",
        lambda: toy(Remembering(leaky=True)),
        lambda: toy(Remembering(leaky=False)),
        "mixer",
    ),
    "mean over the batch": Planted(
        "batch_independent",
        lambda: toy(lambda x: so_far(x) + x.mean(0, keepdim=True)),
        lambda: toy(lambda x: so_far(x) + x.mean(2, keepdim=True)),
        "mixer",
    ),
    "mask of padding lost": Planted(
        "padding_unseen",
        lambda: Wrapped(llama(), without("attention_mask")),
        lambda: Wrapped(llama(), unchanged),
    ),
    "positions of padding lost": Planted(
        "padding_invariant",
        lambda: Wrapped(gpt2(), without("position_ids")),
        lambda: Wrapped(gpt2(), unchanged),
    ),
    "documents lost": Planted(
        "documents_independent",
        lambda: seeded(Documents(leaky=True)),
        lambda: seeded(Documents(leaky=False)),
    ),
    "state crosses documents": Planted(
        "documents_independent",
        lambda: reading(llama, "model.layers.1.mlp", predecessor),
        llama,
        "model.layers.1.mlp",
    ),
    "a layer is cropped and reordered wrongly": Planted(
        "cache_consistent", lambda: with_cache(Forgetful), lambda: with_cache(Careful)
    ),
    "positions do not advance": Planted("cache_consistent", not_advancing, gpt2),
    "mask of a chunk at the top left": Planted(
        "cache_consistent",
        lambda: llama(attn_implementation="laws top-left"),
        lambda: llama(attn_implementation="laws bottom-right"),
    ),
}
