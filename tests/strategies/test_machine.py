"""The machine that decodes finds what is wrong with a cache, and nothing wrong with those of the library."""

import re

import pytest
import torch
from hypothesis import Phase, settings
from hypothesis.stateful import run_state_machine_as_test
from torch import nn

from leakcheck.laws import Broken, NotApplicable
from leakcheck.strategies import decoding
from tests.models import HIDDEN, VOCAB, llama, mamba2, mistral, seeded, so_far, toy

QUICK = settings(
    max_examples=60,
    stateful_step_count=6,
    deadline=None,
    database=None,
    report_multiple_bugs=False,
    derandomize=True,
    phases=set(Phase) - {Phase.explain},
)


class Kept:
    """A cache of embeddings `[batch, seq, hidden]`; `wrong` names what goes wrong with it."""

    def __init__(self, x: torch.Tensor, wrong: str):
        self.x, self.wrong = x, wrong

    def crop(self, count: int) -> None:
        self.x = self.x[:, -count:] if self.wrong == "crop" else self.x[:, :count]

    def reorder_cache(self, rows: torch.Tensor) -> None:
        if self.wrong != "reorder":
            self.x = self.x[rows]


class Averaging(nn.Module):
    """Means over all positions so far; with a cache those in it are kept."""

    def __init__(self, wrong: str):
        super().__init__()
        self.wrong = wrong
        self.embed, self.head = nn.Embedding(VOCAB, HIDDEN), nn.Linear(HIDDEN, VOCAB)

    def forward(self, ids: torch.Tensor, cache: Kept | None = None, use_cache: bool = False) -> dict:
        x, before = self.embed(ids), 0
        if cache is not None and not (self.wrong == "chunk" and ids.shape[1] > 1):
            before = cache.x.shape[1]
            x = torch.cat([cache.x, x], 1)
        logits = self.head((x.cumsum(1) / torch.arange(1, x.shape[1] + 1)[:, None])[:, before:])
        return {"logits": logits, "cache": Kept(x, self.wrong) if use_cache else None}


def run(model, **options) -> None:
    run_state_machine_as_test(decoding(model, vocab_size=VOCAB, max_length=10), settings=settings(QUICK, **options))


@pytest.mark.parametrize(
    ("wrong", "steps"),
    [
        ("crop", ["Append", "Crop", "Append"]),
        ("reorder", ["Append", "Reorder", "Append"]),
        ("chunk", ["Append", "Append"]),
    ],
)
def test_it_finds_the_shortest_way_to_a_planted_bug(wrong: str, steps: list[str]) -> None:
    with pytest.raises(Broken) as broken:
        run(seeded(Averaging(wrong)))
    taken = broken.value.counterexample.inputs["steps"]
    assert [type(step).__name__ for step in taken] == steps
    assert "behind" in str(broken.value)
    assert re.search(r"steps = \[Append\(tokens=\(\(\d", str(broken.value))


@pytest.mark.parametrize("build", [lambda: seeded(Averaging("nothing")), llama, mistral, mamba2])
def test_caches_of_the_library_are_consistent(build) -> None:
    run(build(), max_examples=8)


def test_a_model_without_a_cache_has_no_machine() -> None:
    with pytest.raises(NotApplicable, match="takes no cache"):
        decoding(toy(so_far))
