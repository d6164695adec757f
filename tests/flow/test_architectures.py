"""Flow against brute force on a dozen architectures, and what the report on all of them must show."""

import json
from pathlib import Path

import pytest
import torch

from benchmarks import architectures as sweep
from leakcheck import flow
from leakcheck.flow.reports import CONTROL_FLOW, Hole
from leakcheck.subjects import architectures

REPORT = json.loads((sweep.REPORTS / "architectures.json").read_text(encoding="utf-8"))

FEW = [
    "llama",
    "gemma3_text",  # windows
    "llama4_text",  # chunks, experts
    "deepseek_v32",  # latent attention, a sparse index
    "deepseek_v4",  # compressed keys
    "gpt_oss",  # sinks
    "bloom",  # ALiBi
    "mamba2",
    "qwen3_next",  # gated delta rule, experts
    "recurrent_gemma",
    "rwkv",
    "cpmant",  # not causal
]


@pytest.mark.parametrize("model_type", FEW)
def test_flow_agrees_with_brute_force(model_type, monkeypatch):
    if model_type == "qwen3_next":  # its recurrence takes seconds each time; experts run in every way in the others
        monkeypatch.setattr(sweep, "EXPERTS", sweep.EXPERTS[-1:])
    rows = sweep.examine(model_type)
    assert rows
    for row in rows:
        assert row.result == (sweep.LEAK if model_type == "cpmant" else sweep.PROVEN), row


def classified(moved: torch.Tensor, horizon: list[int], *, hole: bool = False) -> str:
    seq = len(horizon)
    seen = torch.tensor([horizon])
    late = [flow.Violation(0, t, h) for t, h in enumerate(horizon) if h > t]
    holes = (Hole("aten::nonzero", CONTROL_FLOW, "", None),) if hole else ()
    covered = torch.ones(1, seq, dtype=torch.bool)
    traced = flow.Trace(seen, covered, torch.arange(seq)[None], tuple(late), holes, (), 1)
    return sweep.classify(sweep.Row("t", "", "", ""), traced, moved[None]).result


def test_what_a_comparison_is_called():
    causal = torch.ones(3, 3).triu().bool()  # [input, output]
    leaky = causal.clone()
    leaky[2, 0] = True
    assert classified(causal, [0, 1, 2]) == sweep.PROVEN
    assert classified(causal, [0, 1, 2], hole=True) == sweep.OPEN
    assert classified(causal, [2, 1, 2]) == sweep.FALSE_VIOLATION
    assert classified(leaky, [2, 1, 2]) == sweep.LEAK
    assert classified(leaky, [0, 1, 2]) == sweep.MISS
    assert classified(leaky, [1, 1, 2]) == sweep.MISS
    assert classified(causal, [0, 0, 2]) == sweep.MISS  # also of the past


def test_brute_force_sees_a_leak_of_one_token():
    class Leaky(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.embed = torch.nn.Embedding(11, 4)

        def forward(self, ids):
            x = self.embed(ids)
            return x + 1e-8 * x[:, -1:] * (torch.arange(ids.shape[1]) == 1)[:, None]

    ids = torch.tensor([[1, 2, 3, 4, 5], [5, 4, 3, 2, 1]])
    moved = sweep.brute_force(Leaky(), ids, torch.arange(11))
    expected = torch.eye(5, dtype=torch.bool)
    expected[4, 1] = True
    assert torch.equal(moved, expected.expand(2, 5, 5))


def test_report_holds_what_must_hold():
    assert REPORT["architectures"]["MISS"] == 0
    assert REPORT["architectures"]["FALSE VIOLATION"] == 0
    assert REPORT["architectures"]["CRASH"] == 0
    assert REPORT["causal_and_proven"] >= 0.97 * REPORT["causal"]
    assert REPORT["built"] >= 180


def test_report_counts_its_rows():
    rows = [sweep.Row(**row) for row in REPORT["rows"]]
    made = sweep.document(rows)
    for name in ("built", "causal", "causal_and_proven", "architectures", "configurations", "rows"):
        assert made[name] == REPORT[name]
    assert sorted({row.type for row in rows}) == architectures.names()
    assert all(row.details for row in rows if row.result in (sweep.OPEN, sweep.NOT_BUILT))
    text = (Path(sweep.REPORTS) / "architectures.md").read_text(encoding="utf-8")
    assert text == sweep.markdown(REPORT)


def test_experts_run_in_every_way():
    ways = {row["experts"] for row in REPORT["rows"] if row["type"] == "mixtral"}
    assert ways == {"eager", "batched_mm", "grouped_mm"}


def test_expert_layers_stay_expert_layers():
    for model_type in ("mixtral", "qwen3_next", "deepseek_v3", "gpt_oss"):
        config = architectures.build(model_type).config
        count = max(getattr(config, name, 0) or 0 for name in ("num_experts", "num_local_experts", "n_routed_experts"))
        assert (count, config.num_experts_per_tok) == (4, 2)


def test_crash_and_hang_are_one_row(monkeypatch):
    def examine(model_type):
        if model_type == "dies":
            raise SystemExit(3)
        torch.randn(1)
        while model_type == "hangs":
            pass
        return [sweep.Row(model_type, "", "", sweep.PROVEN)]

    monkeypatch.setattr(sweep, "examine", examine)
    monkeypatch.setattr(sweep, "TIMEOUT", 2)
    found = {rows[0].type: rows[0] for rows in sweep.run(["dies", "hangs", "works"], 2)}
    assert found["dies"].details == ["the process ended with code 3"]
    assert found["hangs"].details == ["more than 2 s"]
    assert found["works"].result == sweep.PROVEN
