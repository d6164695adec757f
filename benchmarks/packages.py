"""Causal models of other packages on the index, audited through SPEC alone.

    make third-party                                    all of them, into reports/third_party.{json,md}
    python -m benchmarks.packages --only mingru titans  some, to the terminal; those that are not installed are left out

Each is a file under benchmarks/third_party/ that builds the package's own model, small. `leakcheck run --model FILE`
runs in a process of its own. Beside it stands what brute force, which shares no code with flow, finds in float64.
"""

import argparse
import importlib.metadata
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
import warnings
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import transformers

import leakcheck
from benchmarks.architectures import moved, write
from leakcheck.subjects.load import load

ROOT = Path(__file__).resolve().parent.parent
REPORTS = ROOT / "reports"
COMMAND = "make third-party"
PROVEN, OPEN, LEAK = "PROVEN", "OPEN", "LEAK"
TIMEOUT = 600  # seconds for one audit


@dataclass(frozen=True)
class Model:
    """A file under benchmarks/third_party/, the distribution that it is of, and the verdict that is right for it.

    `why`: of a leak, where it is; of what stays open, why.
    """

    file: str
    package: str
    expected: str = PROVEN
    why: str = ""

    @property
    def spec(self) -> str:
        return f"benchmarks/third_party/{self.file}.py"


FFT = "an FFT mixes all positions and cancels: flow has no proof, nothing moves"
MODELS = (
    Model("block_recurrent", "block-recurrent-transformer-pytorch"),
    Model("conformer_convolution", "conformer"),
    Model("flash", "FLASH-pytorch"),
    Model("gated_state_spaces", "gated-state-spaces-pytorch", OPEN, FFT),
    Model("gateloop", "gateloop-transformer"),
    Model("gluonts_wavenet", "gluonts"),
    Model("gmlp", "g-mlp-gpt"),
    Model("hourglass", "hourglass-transformer-pytorch"),
    Model("linear_attention", "linear-attention-transformer"),
    Model("litgpt_gpt", "litgpt"),
    Model("litgpt_mixtral", "litgpt"),
    Model("local_attention_lm", "local-attention"),
    Model("mambapy_jamba", "mambapy", OPEN, "tokens are handed to their experts as Python lists"),
    Model("mambapy_mamba", "mambapy"),
    Model("mega", "mega-pytorch", OPEN, FFT),
    Model(
        "megabyte", "MEGABYTE-pytorch", OPEN, "no embedding is read as [batch, seq], so the controls are not planted"
    ),
    Model("mingru", "minGRU-pytorch"),
    Model("moshi_seanet", "moshi"),
    Model("palm", "PaLM-pytorch"),
    Model(
        "performer", "performer-pytorch", LEAK, "the keys' features are stabilised by their maximum over all positions"
    ),
    Model("recurrent_memory", "recurrent-memory-transformer-pytorch"),
    Model("reformer", "reformer-pytorch", LEAK, "chunks of a sorted sequence: who is in one depends on all"),
    Model("retnet", "yet-another-retnet"),
    Model("simple_hierarchical", "simple-hierarchical-transformer"),
    Model("speechbrain_conformer", "speechbrain"),
    Model("speechbrain_lm", "speechbrain"),
    Model("tcn_forecaster", "pytorch-tcn"),
    Model("timesfm_decoder", "timesfm"),
    Model("titans", "titans-pytorch"),
    Model("token_shift", "token-shift-gpt"),
    Model("x_transformers_decoder", "x-transformers"),
    Model("xlstm_lm", "xlstm", OPEN, "a branch on the state of all rows (`if torch.all(n == 0.0)`)"),
)


@dataclass(frozen=True)
class Row:
    """`moved`: whether brute force moves an earlier output by a later input. `finding`: the first of the audit."""

    spec: str
    package: str
    version: str
    verdict: str
    expected: str
    why: str
    exit_code: int
    moved: bool | None
    seconds: float
    parameters: int | None
    length: int | None
    configurations: dict[str, str]
    finding: str


def version_of(model: Model) -> str | None:
    """The installed version of a model's package, if it is."""
    try:
        return importlib.metadata.version(model.package)
    except importlib.metadata.PackageNotFoundError:
        return None


def audited(model: Model) -> Row:
    """The row of a model whose package is installed."""
    version = version_of(model)
    assert version is not None
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "audit.json"
        command = [sys.executable, "-m", "leakcheck", "run", "--model", model.spec, "--report", str(report)]
        environment = os.environ | {"PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "ignore"}
        started = time.perf_counter()
        done = subprocess.run(
            command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=TIMEOUT, check=False
        )
        took = time.perf_counter() - started
        found = json.loads(report.read_text(encoding="utf-8")) if report.exists() else None
    if found is None:
        said = (done.stderr or done.stdout).strip().splitlines()
        return Row(
            model.spec, model.package, version, "-", model.expected, model.why, done.returncode, None, round(took, 1),
            None, None, {}, said[-1] if said else "",
        )  # fmt: skip
    first = next((finding for finding in found["findings"]), None)
    return Row(
        spec=model.spec,
        package=model.package,
        version=version,
        verdict=found["verdict"],
        expected=model.expected,
        why=model.why,
        exit_code=done.returncode,
        moved=moves(model),
        seconds=round(took, 1),
        parameters=found["subject"]["parameters"],
        length=found["subject"]["seq_len"],
        configurations={c["id"]: c["verdict"] for c in found["configurations"]},
        finding=f"{first['code']}: {first['message']}" if first else "",
    )


def moves(model: Model) -> bool:
    """Whether brute force moves an earlier output by a later input, in eval mode."""
    subject = load(model.spec)
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(subject.vocab_size, (2, subject.seq_len), generator=generator)
    with torch.no_grad():
        found = moved(subject.model.double(), ids, torch.arange(subject.vocab_size))  # [batch, input, output]
    return bool(found.tril(-1).any())


def document(rows: list[Row]) -> dict[str, Any]:
    return {
        "command": COMMAND,
        "versions": {
            "leakcheck": leakcheck.__version__,
            "torch": torch.__version__.partition("+")[0],
            "transformers": transformers.__version__,
            "python": platform.python_version(),
        },
        "rows": [asdict(row) for row in rows],
    }


def markdown(found: dict[str, Any]) -> str:
    versions = ", ".join(f"{name} {version}" for name, version in found["versions"].items())
    lines = [
        "# Causal models of other packages",
        "",
        f"`{found['command']}` ({versions})",
        "",
        "Each is `leakcheck run --model benchmarks/third_party/FILE.py`. Brute force: whether a later input moves an",
        "earlier output in float64, in eval mode. Seconds: the whole command.",
        "",
        "| package | version | FILE | verdict | brute force | parameters | length | seconds |",
        "|---|---|---|---|---|--:|--:|--:|",
    ]
    for row in found["rows"]:
        forced = {True: "moves", False: "nothing moves", None: "-"}[row["moved"]]
        lines.append(
            f"| {row['package']} | {row['version']} | {Path(row['spec']).stem} | {row['verdict']} | {forced} "
            f"| {row['parameters']:,} | {row['length']} | {row['seconds']} |"
        )
    lines += ["", "## Not proven", ""]
    for row in found["rows"]:
        if row["verdict"] != PROVEN:
            lines += [f"- **{Path(row['spec']).stem}**, {row['verdict']}: {row['why']}", f"  - {row['finding']}"]
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="+", metavar="FILE")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    rows = []
    for model in MODELS:
        if options.only and model.file not in options.only:
            continue
        if version_of(model) is None:
            print(f"{model.file:24} {model.package} is not installed", flush=True)
            continue
        rows.append(audited(model))
        row = rows[-1]
        print(f"{model.file:24} {row.verdict:8} {row.seconds:5} s  {row.finding[:120]}", flush=True)
        if not options.only:
            found = document(rows)
            write(REPORTS / "third_party.json", json.dumps(found, indent=1) + "\n")
            write(REPORTS / "third_party.md", markdown(found))


if __name__ == "__main__":
    main()
