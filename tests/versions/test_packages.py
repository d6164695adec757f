"""Causal models of other packages, through SPEC alone. What is not installed is left out of the table."""

import importlib.metadata
from pathlib import Path

import pytest

from leakcheck.auditing import audit
from leakcheck.findings import Verdict

FILES = Path(__file__).resolve().parents[2] / "benchmarks" / "third_party"

# The file, its package, and what is right for it; `benchmarks/third_party/few.txt` installs them.
MODELS = (
    ("gateloop", "gateloop-transformer", "gated linear recurrence", Verdict.PROVEN),
    ("litgpt_gpt", "litgpt", "GPT", Verdict.PROVEN),
    ("mingru", "minGRU-pytorch", "minLSTM", Verdict.PROVEN),
    ("performer", "performer-pytorch", "linear attention", Verdict.LEAK),
    ("speechbrain_conformer", "speechbrain", "causal Conformer", Verdict.PROVEN),
    ("tcn_forecaster", "pytorch-tcn", "forecaster", Verdict.PROVEN),
    ("x_transformers_decoder", "x-transformers", "decoder", Verdict.PROVEN),
)


@pytest.mark.parametrize(("file", "package", "kind", "expected"), MODELS, ids=[model[0] for model in MODELS])
def test_package(cell, file, package, kind, expected):
    try:
        version = importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        pytest.skip(f"{package} is not installed: pip install --no-deps -r benchmarks/third_party/few.txt")
    cell(f"`{package}` {version}: {kind}", expected, lambda: audit(str(FILES / f"{file}.py")))
