"""Batches under other contracts, of frames, of few draws; plants; changes aimed at a pair: all said once more."""

import pytest
import torch

from leakcheck.config import CAUSAL, Contract
from leakcheck.findings import WorstCase
from leakcheck.probes import draws
from leakcheck.probes.draws import BASE, DRAWS, PAST, TWIN, Plant, Setting, aimed, batches

SEQ, VOCAB = 10, 13
CONTRACTS = (CAUSAL, Contract(lookahead=2), Contract(prefix=3), Contract(window=4), Contract(lookahead=1, window=3))


def setting(contract=CAUSAL, padded=(), **options):
    valid = torch.ones(SEQ, dtype=torch.bool)
    valid[list(padded)] = False
    return Setting(**{"vocab_size": VOCAB, "valid": valid, "seed": 0, "sizes": (), "contract": contract, **options})


def sees(contract, reader, source):
    """Whether a position may see an input; said again, apart from the code under test."""
    latest = max(reader + contract.lookahead, contract.prefix - 1)
    return source <= latest and (contract.window is None or source > reader - contract.window)


@pytest.mark.parametrize("contract", CONTRACTS, ids=str)
@pytest.mark.parametrize("padded", [(), (0, 1), (8, 9)])
def test_past_is_what_may_see_nothing_that_changed(contract, padded):
    covered = torch.zeros(SEQ, SEQ, dtype=torch.bool)
    for batch in batches(setting(contract, padded)):
        changed = (batch.tokens != batch.tokens[BASE]) | (batch.scale != 1)
        for row in range(3, len(batch.cut)):
            inputs = changed[row].nonzero().flatten().tolist()
            blind = [bool(inputs) and not any(sees(contract, t, s) for s in inputs) for t in range(SEQ)]
            live = batch.valid.tolist()
            assert batch.past[row].tolist() == [b and v for b, v in zip(blind, live, strict=True)]
            assert batch.past_padding[row].tolist() == [b and not v for b, v in zip(blind, live, strict=True)]
            assert batch.allowed[row].tolist() == [bool(inputs) and not b for b in blind]
            assert batch.future[row].nonzero().flatten().tolist() == inputs
            whole = int(batch.whole[row])
            assert batch.source[row].tolist() == [whole if s in inputs else BASE for s in range(SEQ)]
            assert (batch.tokens[row, inputs] == batch.tokens[whole, inputs]).all()
            assert (batch.tokens[whole] != batch.tokens[BASE]).all() or not inputs
            assert bool(inputs) == (batch.draws[row] not in ("base", "past"))
        for row in (BASE, TWIN, PAST):
            assert not (batch.past | batch.past_padding | batch.allowed | batch.future)[row].any()
        covered |= batch.covered_pairs
    expected = {(t, s) for t in range(SEQ) for s in range(SEQ) if t not in padded and not sees(contract, t, s)}
    assert {tuple(pair) for pair in covered.nonzero().tolist()} == expected


@pytest.mark.parametrize("contract", CONTRACTS, ids=str)
def test_no_cut_is_made_that_no_position_is_blind_to(contract):
    for batch in batches(setting(contract)):
        for row in range(3, len(batch.cut)):
            if batch.draws[row] != "base" and 0 < batch.cut[row] < SEQ:
                assert batch.past[row].any() or contract.lookahead or contract.prefix
        assert [name for name in batch.draws[:3]] == ["base", "base", "past"]
        assert batch.limit.tolist() == (contract.earliest(SEQ) if batch.mirrored else contract.latest(SEQ))
    mirrored = [batch.mirrored for batch in batches(setting(contract))]
    assert mirrored == [False] + [True] * (contract.window is not None)


@pytest.mark.parametrize("contract", CONTRACTS, ids=str)
def test_nothing_is_asked_of_the_first_rows(contract):
    for work in batches(setting(contract)):
        assert not (work.past | work.past_padding | work.future | work.allowed)[[BASE, TWIN, PAST]].any()


def test_without_every_each_cut_is_made_with_one_draw_in_turn():
    (batch,) = batches(setting(every=False))
    made = [(batch.draws[r], int(batch.cut[r])) for r in range(len(batch.cut)) if 0 < batch.cut[r] < SEQ]
    assert sorted(made, key=lambda pair: pair[1]) == [(DRAWS[i % 3].name, i + 1) for i in range(SEQ - 1)]
    assert int(batch.covered_pairs.sum()) == SEQ * (SEQ - 1) // 2


@pytest.mark.parametrize("step", [2, 5])
def test_cuts_are_multiples_of_the_inputs_that_make_an_output(step):
    for batch in batches(setting(step=step)):
        assert {int(cut) for cut in batch.cut} == set(range(0, SEQ + 1, step))
        assert batch.step == step
        plant = batch.plant
        assert plant.step == step
        assert (plant.position + 1) % step == 0
        assert range(SEQ)[plant.inputs] == range(plant.position - step + 1, plant.position + 1)


def test_a_long_sequence_of_frames_needs_no_more_batches_than_its_outputs(monkeypatch):
    monkeypatch.setattr(draws, "_ELEMENTS", SEQ * SEQ * 16)
    assert [len(list(batches(setting(step=step)))) for step in (1, 2, 5)] == [14, 3, 1]


def test_the_base_may_be_given():
    given = torch.arange(SEQ) % VOCAB
    (batch,) = batches(setting(base=given))
    assert torch.equal(batch.tokens[BASE], given)


@pytest.mark.parametrize("contract", CONTRACTS, ids=str)
@pytest.mark.parametrize("padded", [(), (0, 1), (5, 6), (8, 9)])
def test_a_plant_is_the_middle_pair_that_may_not_see(contract, padded):
    for batch in batches(setting(contract, padded)):
        pairs = []
        for t in range(SEQ):
            beyond = [s for s in range(SEQ) if not sees(contract, t, s) and (s < t) == batch.mirrored]
            next_one = (max(beyond) if batch.mirrored else min(beyond)) if beyond else None
            if next_one is not None and t not in padded and next_one not in padded:
                pairs.append((t, next_one))
        assert (batch.plant.position, batch.plant.source) == pairs[len(pairs) // 2]
        shown = batch.showing(batch.plant)
        assert len(shown.cut) == 4
        assert shown.past[3, batch.plant.position]
        assert (shown.tokens[3] != shown.tokens[BASE])[batch.plant.source]


def test_nothing_is_planted_where_no_position_has_a_later_one():
    (batch,) = batches(setting(padded=range(1, SEQ)))
    assert batch.plant is None


def test_where_no_row_shows_a_plant_all_are_kept():
    (batch,) = batches(setting(step=5))
    assert batch.showing(Plant(3, 4)) is batch
    assert batch.showing(Plant(4, 5, 5)) is not batch


def test_one_row_is_found_by_its_draw_and_cut():
    (batch,) = batches(setting(Contract(lookahead=2), padded=(0,)))
    one = batch.only("tokens-2", 4)
    row = next(r for r in range(len(batch.cut)) if batch.draws[r] == "tokens-2" and batch.cut[r] == 4)
    assert torch.equal(one.tokens, batch.tokens[[BASE, TWIN, PAST, row]])
    assert torch.equal(one.scale, batch.scale[[BASE, TWIN, PAST, row]])
    assert one.cut.tolist() == [SEQ, SEQ, SEQ, 4]
    assert one.whole.tolist() == [0, 0, 0, 0]
    assert one.draws == ("base", "base", "past", "tokens-2")
    assert torch.equal(one.past, batch.past[[BASE, TWIN, PAST, row]])


def test_a_batch_knows_its_own_cases():
    after, before = batches(setting(Contract(window=4)))
    case = WorstCase(3, 1, 0, "tokens-1", 0.5)
    assert after.has(case)
    assert not after.has(WorstCase(3, 1, 0, "tokens-9", 0.5))
    assert not after.has(WorstCase(3, 1, 0, "tokens-1", 0.5, before=True))
    assert before.has(WorstCase(3, 8, 0, "tokens-1", 0.5, before=True))
    assert not before.has(WorstCase(9, 8, 0, "tokens-1", 0.5, before=True))


@pytest.mark.parametrize(
    ("reader", "source", "contract"), [(2, 7, CAUSAL), (8, 1, Contract(window=4)), (5, 8, CONTRACTS[1])]
)
def test_changes_aimed_at_a_pair(reader, source, contract):
    for number in (0, 1, 7):
        batch = aimed(setting(contract, padded=(9,)), reader, source, number)
        assert batch.mirrored == (source < reader)
        changed = (batch.tokens != batch.tokens[BASE]) | (batch.scale != 1)
        told = [each.nonzero().flatten().tolist() for each in changed]
        blind = [s for s in range(SEQ) if not sees(contract, reader, s) and (s < reader) == (source < reader)]
        assert told[BASE] == told[TWIN] == []
        assert told[PAST] == list(range(8))  # all but the last that is no padding
        assert told[3] == list(range(SEQ))
        assert told[4] == [source]
        assert told[5] == (list(range(source + 1)) if batch.mirrored else list(range(source, SEQ)))
        assert told[6] == blind
        assert batch.past[4:7, reader].all()
        assert [name.partition(", ")[0] for name in batch.draws[3:7]] == [f"aimed-{number}"] * 4
        assert batch.draws[4].endswith("one token")
        assert len({batch.scale[row].max().item() for row in (3, 4, 5, 6)}) == 1
    drawn = {tuple(aimed(setting(contract), reader, source, n).tokens[BASE].tolist()) for n in range(4)}
    assert len(drawn) == 4
    assert [aimed(setting(), 2, 7, n).scale.max().item() for n in range(6)] == [1, 1, 1, 10, 1000, 1]
