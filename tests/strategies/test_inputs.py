"""What is drawn is valid for every law, reaches what is planted against it, and shrinks to the least that shows it."""

import pytest
import torch
from hypothesis import Phase, find, given, settings
from hypothesis import strategies as st
from hypothesis.errors import NoSuchExample

from leakcheck.laws import LAWS, Append, Broken, NotApplicable, Twin, Vacuous
from leakcheck.strategies import arguments, chunkings, cuts, packings, paddings, parts, replacements, tokens
from leakcheck.strategies import arguments as drawn
from leakcheck.strategies.arguments import _DRAWN, _of
from tests.laws.planted import PLANTED
from tests.models import VOCAB

QUICK = settings(max_examples=50, deadline=None, database=None, derandomize=True, phases=set(Phase) - {Phase.explain})


@QUICK
@given(st.data(), st.integers(2, 9))
def test_what_is_drawn_is_valid(data: st.DataObject, vocab_size: int) -> None:
    drawn = data.draw(tokens(vocab_size=vocab_size, batch=None, lengths=(3, 5)))
    batch, seq = drawn.shape
    assert 1 <= batch <= 3
    assert seq in (3, 5)
    assert drawn.dtype == torch.long
    assert 0 <= drawn.min() <= drawn.max() < vocab_size

    where = torch.rand(batch, seq, generator=torch.Generator().manual_seed(seq)) > 0.5
    other = data.draw(replacements(drawn, where, vocab_size=vocab_size))
    assert torch.equal(other[~where], drawn[~where])
    assert (other[where] != drawn[where])[:1].all()
    assert 0 <= other.min() <= other.max() < vocab_size

    assert 0 < data.draw(cuts(length=seq)) < seq
    assert data.draw(cuts(length=9, step=3)) in (3, 6)
    for lengths, least in ((chunkings(length=seq), 1), (packings(length=seq), 2), (parts(length=3, at_least=3), 3)):
        made = data.draw(lengths)
        assert len(made) >= least
        assert min(made) > 0
        assert sum(made) in (seq, 3)
    kept, side = data.draw(paddings(batch=batch, length=seq))
    assert len(kept) == batch
    assert all(0 < n <= seq for n in kept)
    assert side in ("left", "right")


def test_every_law_has_arguments() -> None:
    assert _DRAWN.keys() == LAWS.keys()
    with pytest.raises(ValueError, match="drawn in two ways"):
        _of("causal")
    with pytest.raises(ValueError, match="no law 'fair'"):
        _of("fair")


@pytest.mark.parametrize("law", LAWS)
def test_arguments_are_seldom_vacuous(law: str) -> None:
    clean = next((p.clean for p in PLANTED.values() if p.law == law), PLANTED["successor"].clean)
    model, vacuous = Twin(clean()), []

    @settings(QUICK, max_examples=15)
    @given(arguments(law, vocab_size=VOCAB, lengths=range(2, 9)))
    def tried(given: dict) -> None:
        try:
            LAWS[law](model, **given)
        except Vacuous as error:
            vacuous.append(error)

    tried()
    assert len(vacuous) <= 3


def smallest(name: str, tries: int = 200, **options) -> dict:
    """The arguments that are left of those that show what is planted."""
    planted = PLANTED[name]
    model = Twin(planted.broken())

    def shows(given: dict) -> bool:
        try:
            LAWS[planted.law](model, **given)
        except Broken:
            return True
        except NotApplicable:
            return False
        return False

    return find(drawn(planted.law, vocab_size=VOCAB, **options), shows, settings=settings(QUICK, max_examples=tries))


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("successor", {"tokens": [[0, 0]], "changed": [[0, 1]]}),
        ("beyond a length", {"tokens": [[0] * 11], "length": 10}),
        ("mean over the batch", {"tokens": [[0, 0], [0, 1]], "order": [0, 1]}),
        ("mask of padding lost", {"tokens": [[0, 0]], "changed": [[1, 0]], "lengths": [1], "side": "left"}),
        ("positions of padding lost", {"tokens": [[0, 0]], "lengths": [1], "side": "left"}),
        ("documents lost", {"tokens": [[0, 1]], "lengths": (1, 1)}),
        ("positions do not advance", {"steps": [Append(((0, 0),))]}),
    ],
)
def test_they_shrink_to_the_least_that_shows_it(name: str, expected: dict) -> None:
    left = smallest(name)
    plain = {name: value.tolist() if isinstance(value, torch.Tensor) else value for name, value in left.items()}
    assert plain == expected


def test_a_length_that_is_not_drawn_shows_nothing() -> None:
    with pytest.raises(NoSuchExample):
        smallest("beyond a length", tries=30, lengths=range(2, 10))
