"""Contracts other than causality: kept, broken by one position, and what a brute force says of each."""

import pytest
import torch
from torch import Tensor, nn

from leakcheck import Settings, audit
from leakcheck.config import CAUSAL, Contract, parse_contract
from leakcheck.errors import NothingChecked, UsageError
from leakcheck.findings import Verdict

VOCAB, HIDDEN = 31, 16


class Attention(nn.Module):
    """One layer whose query t sees the keys for which `sees(query, key)` is true."""

    def __init__(self, sees):
        super().__init__()
        torch.manual_seed(0)
        self.embed = nn.Embedding(VOCAB, HIDDEN)
        self.qkv, self.head = nn.Linear(HIDDEN, 3 * HIDDEN), nn.Linear(HIDDEN, VOCAB)
        self.sees = sees

    def forward(self, ids: Tensor) -> Tensor:
        x = self.embed(ids)
        q, k, v = self.qkv(x).chunk(3, -1)
        positions = torch.arange(ids.shape[1])
        allowed = self.sees(positions[:, None], positions[None, :])  # [query, key]
        weights = (q @ k.mT / HIDDEN**0.5).masked_fill(~allowed, float("-inf")).softmax(-1)
        return self.head(x + weights @ v)


SEES = {
    "causal": lambda q, k: k <= q,
    "two ahead": lambda q, k: k <= q + 2,
    "first four": lambda q, k: (k <= q) | (k < 4),
    "last five": lambda q, k: (k <= q) & (k > q - 5),
    "last five, one ahead": lambda q, k: (k <= q + 1) & (k > q - 5),
    "all": lambda q, k: (k >= 0) & (q >= 0),
    "all but one": lambda q, k: (k <= q) | (q != 3),
}


def moves(model: nn.Module, seq: int) -> Tensor:
    """Brute force in float64, boolean `[output, input]`: whether any other token there moves the output here."""
    model = model.double()
    base = torch.arange(seq) % VOCAB
    rows = base.repeat(seq, 1)
    rows[range(seq), range(seq)] = (base + 1) % VOCAB
    with torch.no_grad():
        return ((model(rows) - model(base[None])).abs().amax(-1) > 1e-9).T


def breaks(seen: Tensor, contract: Contract) -> bool:
    """Whether what is seen, `[output, input]`, breaks a contract; said again, apart from the code under test."""
    seq = len(seen)
    if contract.bidirectional:
        return any(not seen[t, t + 1 :].any() for t in range(seq - 1))
    for t in range(seq):
        for s in seen[t].nonzero()[:, 0].tolist():
            ahead = s > t + contract.lookahead and s >= contract.prefix
            behind = contract.window is not None and s <= t - contract.window
            if ahead or behind:
                return True
    return False


@pytest.mark.parametrize(
    "contract",
    [
        CAUSAL,
        Contract(lookahead=2),
        Contract(lookahead=1),
        Contract(prefix=4),
        Contract(prefix=3),
        Contract(window=5),
        Contract(window=4),
        Contract(lookahead=1, window=5),
        Contract(bidirectional=True),
    ],
    ids=str,
)
@pytest.mark.parametrize("sees", SEES)
def test_a_contract_is_broken_where_brute_force_breaks_it(sees, contract, in_eval_mode):
    model = Attention(SEES[sees])
    result = audit(model, Settings(contract=contract))
    broken = breaks(moves(Attention(SEES[sees]), result.subject.seq_len), contract)
    assert result.verdict is (Verdict.LEAK if broken else Verdict.PROVEN)
    assert all(control.caught for control in result.controls)
    assert {policy for c in result.configurations for policy in c.policies} == {str(contract)}


def test_a_broken_window_has_a_witness_before_the_window_and_the_command_asks_for_it_again():
    result = audit(Attention(SEES["causal"]), Settings(contract=Contract(window=5), seed=3))
    finding = next(f for f in result.findings if f.code == "LC106")
    assert finding.policy == "window:5"
    assert finding.witness["changed"] == "before the cut"
    assert finding.witness["position"] - finding.witness["cut"] >= 4
    assert finding.message.startswith(f"position {finding.witness['position']} moves with inputs before")


def test_a_model_that_was_declared_bidirectional_and_is_causal_at_one_position():
    result = audit(Attention(SEES["all but one"]), Settings(contract=Contract(bidirectional=True)))
    finding = next(f for f in result.findings if f.code == "LC105")
    assert "1 of 12 positions, the first is 3" in finding.message
    assert "flow proves that none can" in finding.message


class Gated(Attention):
    """Sees what is later through a gate that is zero now."""

    def __init__(self, sees):
        super().__init__(sees)
        self.gate = nn.Parameter(torch.zeros(()))

    def forward(self, ids: Tensor) -> Tensor:
        return super().forward(ids) + self.gate * self.head(self.embed(ids).mean(1, keepdim=True))


def test_what_may_see_later_inputs_and_does_not_is_a_suspicion():
    result = audit(Gated(SEES["causal"]), Settings(contract=Contract(bidirectional=True)))
    assert result.verdict is Verdict.SUSPECT
    assert "flow does not say that none can" in next(f.message for f in result.findings if f.code == "LC105")


class Normed(nn.Module):
    def __init__(self, leak: bool):
        super().__init__()
        torch.manual_seed(0)
        self.embed, self.norm, self.head = nn.Embedding(VOCAB, 8), nn.BatchNorm1d(8), nn.Linear(8, VOCAB)
        self.leak = leak

    def forward(self, ids: Tensor) -> Tensor:
        x = self.norm(self.embed(ids).transpose(1, 2)).transpose(1, 2)
        x = x.flip(1).cumsum(1).flip(1) if self.leak else x.cumsum(1)
        return self.head(x)


@pytest.mark.parametrize("what", ["norm", "BatchNorm1d"])
def test_an_accepted_coupling_of_the_batch(what):
    """Batch norm in train mode mixes rows and positions; accepted, it is left in eval mode and the rest is checked."""
    assert audit(Normed(leak=False)).verdict is Verdict.LEAK
    accepted = Settings(accept_batch=(what,))
    assert audit(Normed(leak=False), accepted).verdict is Verdict.PROVEN
    assert audit(Normed(leak=True), accepted).verdict is Verdict.LEAK


def test_an_accepted_module_that_is_not_there():
    with pytest.raises(UsageError, match="--accept-batch bn: Normed has no module of that name or class"):
        audit(Normed(leak=False), Settings(accept_batch=("bn",)))


def test_the_length_follows_the_contract():
    long = audit(Attention(SEES["causal"]), Settings(contract=Contract(window=20)))
    assert long.subject.seq_len > 40
    assert long.verdict is Verdict.LEAK
    with pytest.raises(NothingChecked):
        audit(Attention(SEES["causal"]), Settings(contract=Contract(lookahead=20), seq_len=13))


@pytest.mark.parametrize(
    ("texts", "contract"),
    [
        ((), CAUSAL),
        (("causal",), CAUSAL),
        (("lookahead:3",), Contract(lookahead=3)),
        (("window:7", "lookahead:1"), Contract(lookahead=1, window=7)),
        (("bidirectional",), Contract(bidirectional=True)),
    ],
)
def test_what_is_written_is_read(texts, contract):
    assert parse_contract(texts) == contract
    assert parse_contract(tuple(str(contract).split("+"))) == contract


@pytest.mark.parametrize(
    ("texts", "reason"),
    [
        (("ahead:3",), "known are causal, lookahead:N"),
        (("window:0",), "known are"),
        (("window:-1",), "known are"),
        (("window",), "known are"),
        (("prefix:x",), "known are"),
        (("causal:3",), "known are"),
        (("bidirectional", "window:3"), "excludes the others"),
        (("prefix:3", "window:3"), "audit one at a time"),
    ],
)
def test_what_is_no_contract_is_refused(texts, reason):
    with pytest.raises(UsageError, match=reason):
        parse_contract(texts)
