"""A new leak or control has to be complete: a free name, a marked line, codes and detectors that exist."""

from pathlib import Path

import pytest
from torch import Tensor

from leakcheck.zoo import CONTROLS, LEAKS, MUTATORS, registry
from leakcheck.zoo.parts import Mixer

HERE = "https://example.org"


@pytest.fixture(autouse=True)
def _empty(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("LEAKS", "MUTATORS", "CONTROLS"):
        monkeypatch.setattr(registry, name, {})


class Marked(Mixer):
    def forward(self, x: Tensor) -> Tensor:
        return x.flip(1) if self.leaky else x  # leak


class Unmarked(Mixer):
    def forward(self, x: Tensor) -> Tensor:
        return x.flip(1) if self.leaky else x


def test_a_leak_knows_its_line() -> None:
    registry.leak(learned_from=HERE)(Marked)
    (leak,) = registry.LEAKS.values()
    ((file, line),) = leak.lines
    assert file == __file__
    assert "x.flip(1) if self.leaky else x  # leak" in Path(file).read_text().splitlines()[line - 1]
    assert leak.mechanism == "test_registry"


@pytest.mark.parametrize(
    ("options", "make", "message"),
    [
        ({}, Unmarked, "no line ends in `# leak`"),
        ({"codes": ["LC999"]}, Marked, "LC999 is no finding code"),
        ({"blind": ["nose"]}, Marked, "nose is no finding code and no detector"),
    ],
)
def test_a_leak_that_is_not_complete(options, make, message) -> None:
    with pytest.raises(ValueError, match=message):
        registry.leak(learned_from=HERE, **options)(make)


def test_a_name_is_taken_once() -> None:
    registry.leak(learned_from=HERE)(Marked)
    with pytest.raises(ValueError, match="leak Marked is registered twice"):
        registry.leak(learned_from=HERE)(Marked)
    registry.control(learned_from=HERE)(Marked)
    with pytest.raises(ValueError, match="control Marked is registered twice"):
        registry.control(learned_from=HERE)(Marked)
    registry.mutator(hosts=(), learned_from=HERE)(Marked)
    with pytest.raises(ValueError, match="mutator Marked is registered twice"):
        registry.mutator(hosts=(), learned_from=HERE)(Marked)


def test_there_are_as_many_as_were_asked_for() -> None:
    assert len({name.partition("[")[0] for name in LEAKS}) >= 80
    assert len(CONTROLS) >= 40
    assert len(MUTATORS) >= 12
