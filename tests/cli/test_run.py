"""The command as a user meets it: output, exit codes, one clear line for every bad input."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel

from leakcheck import isolation
from leakcheck.report import view
from tests.cli.command import command
from tests.report.documents import DOCUMENTS

FACTORY = "from transformers import LlamaConfig, LlamaForCausalLM\n"
SIZES = (
    "vocab_size=31, hidden_size=16, intermediate_size=20, num_hidden_layers=1, num_attention_heads=2, "
    "num_key_value_heads=1, max_position_embeddings=16"
)
SMALL = FACTORY + f"def build():\n    return LlamaForCausalLM(LlamaConfig({SIZES}))\n"


@pytest.fixture
def run(monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(tmp_path)
    return lambda *arguments: command(monkeypatch, capsys, "run", *arguments)


def written(tmp_path: Path, text: str, name: str = "subject.py") -> str:
    (tmp_path / name).write_text(text)
    return name


UNPROVEN = """
import torch
from torch import nn

class Mixer(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed, self.head = nn.Embedding(50, 8), nn.Linear(8, 50)
        self.gate = nn.Parameter(torch.zeros(8))

    def forward(self, input_ids):
        x = self.embed(input_ids)
        return self.head(x.cumsum(1) + MORE)

def build():
    return Mixer()
"""
FOURIER = "torch.fft.irfft(torch.fft.rfft(x, 2 * x.shape[1], dim=1), 2 * x.shape[1], dim=1)[:, : x.shape[1]]"


@pytest.mark.parametrize(
    ("more", "verdict", "code"),
    [(FOURIER, "OPEN", "LC802"), ("self.gate * x.roll(-1, 1)", "SUSPECT", "LC104"), ("x.sigmoid()", "PROVEN", None)],
)
def test_only_a_proof_holds_the_strict_gate(more, verdict, code, run, tmp_path) -> None:
    name = written(tmp_path, UNPROVEN.replace("MORE", more))
    loose, out, _ = run("--model", name, "--report", "a.json")
    strict, _, _ = run("--model", name, "--strict")
    assert (loose, strict) == (0, 0 if verdict == "PROVEN" else 4)
    report = json.loads((tmp_path / "a.json").read_text())
    assert report["verdict"] == verdict
    if code:
        assert code in [finding["code"] for finding in report["findings"]]
        assert code in out


def test_a_bare_file_inside_a_package_is_audited(run, tmp_path, in_eval_mode) -> None:
    package = tmp_path / "mine"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "configuration_mine.py").write_text(
        "from transformers import LlamaConfig\nclass MineConfig(LlamaConfig):\n    model_type = 'mine'\n"
    )
    (package / "modeling_mine.py").write_text(
        "from transformers import LlamaForCausalLM\nfrom .configuration_mine import MineConfig\n"
        "class MineForCausalLM(LlamaForCausalLM):\n    config_class = MineConfig\n"
    )
    code, out, _ = run("--model", "mine/modeling_mine.py", "--attn", "eager")
    assert code == 0
    assert "MineForCausalLM" in out


BROKEN = """

def build():
    class Broken(LlamaForCausalLM):
        def forward(self, input_ids=None, attention_mask=None, **kwargs):
            output = super().forward(input_ids, attention_mask, **kwargs)
            BREAKS
            return output

    return Broken(LlamaConfig(SIZES))
"""
RAISES = FACTORY + BROKEN.replace("SIZES", SIZES).replace("BREAKS", "raise RuntimeError('no kernel\\nfor you')")
RETURNS_NAN = FACTORY + BROKEN.replace("SIZES", SIZES).replace("BREAKS", "output.logits = output.logits * float('nan')")

BAD = {
    "a path that does not exist": (["--model", "nowhere/at_all.py"], 2, "nowhere/at_all.py"),
    "an unknown name": (["--model", "method9"], 2, "method1_v3"),
    "a folder without config.json": (["--model", "empty"], 2, "config.json"),
    "JSON that is no configuration": (["--model", "list.json"], 2, "list.json"),
    "JSON of an unknown model type": (["--model", "unknown.json"], 2, "unknown.json"),
    "a syntax error": (["--model", "syntax.py"], 2, "syntax.py:2"),
    "a file without a model": (["--model", "nothing.py"], 2, "nothing.py"),
    "two candidates": (["--model", "two.py"], 2, "build_model"),
    "a factory that raises": (["--model", "raising.py"], 2, "out of luck"),
    "a factory that returns no module": (["--model", "returns.py"], 2, "int"),
    "--seq-len 1": (["--model", "method1_v3", "--seq-len", "1"], 2, "2"),
    "--seq-len above the maximum": (["--model", "method1_v3", "--seq-len", "65"], 2, "64"),
    "an unknown backend": (["--model", "method1_v3", "--attn", "magic"], 2, "eager, sdpa"),
    "a forward that raises": (["--model", "forward_raises.py", "--attn", "eager"], 3, "no kernel"),
    "a forward that returns NaN": (["--model", "forward_nan.py", "--attn", "eager"], 3, "NaN"),
    "one position": (["--model", "one_position.json"], 5, "nothing to compare"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_bad_input_gives_one_line_and_no_report(case: str, run, tmp_path) -> None:
    arguments, expected, said = BAD[case]
    (tmp_path / "empty").mkdir()
    written(tmp_path, "[1, 2]", "list.json")
    written(tmp_path, '{"model_type": "never-heard-of"}', "unknown.json")
    written(tmp_path, "x = 1\ndef build(:\n", "syntax.py")
    written(tmp_path, "x = 1\n", "nothing.py")
    written(tmp_path, SMALL + SMALL.replace("def build", "def build_model"), "two.py")
    written(tmp_path, "def build():\n    raise ValueError('out of luck\\nsecond line')\n", "raising.py")
    written(tmp_path, "def build():\n    return 1\n", "returns.py")
    written(tmp_path, RAISES, "forward_raises.py")
    written(tmp_path, RETURNS_NAN, "forward_nan.py")
    written(tmp_path, GPT2Config(vocab_size=31, n_positions=1, n_embd=8, n_layer=1, n_head=2).to_json_string(),
            "one_position.json")  # fmt: skip
    before = sorted(tmp_path.iterdir())

    code, out, err = run(*arguments, "--report", "report.json")

    assert code == expected
    assert out == ""
    assert len(err.splitlines()) == 1
    assert err.startswith("leakcheck: ")
    assert said in err
    assert sorted(p for p in tmp_path.iterdir() if p.name != "__pycache__") == before


@pytest.mark.parametrize("path", ["report.docx", "nowhere/report.json", "subject.py/report.json"])
def test_an_impossible_report_stops_before_the_audit(path: str, run, tmp_path, monkeypatch) -> None:
    written(tmp_path, SMALL)
    monkeypatch.setattr("leakcheck.auditing.audit", lambda *_, **__: pytest.fail("the audit has started"))
    code, out, err = run("--model", "subject.py", "--report", path)
    assert (code, out, len(err.splitlines())) == (2, "", 1)


def test_a_crash_of_the_tool_is_neither_a_leak_nor_a_pass(run, monkeypatch) -> None:
    def crash(*_, **__):
        raise ZeroDivisionError("a bug\nof ours")

    monkeypatch.setattr("leakcheck.auditing.audit", crash)
    code, out, err = run("--model", "method1_v3")
    assert (code, out) == (3, "")
    assert len(err.splitlines()) == 1
    assert "ZeroDivisionError: a bug" in err


@pytest.mark.parametrize(("document", "code"), [("clean", 0), ("leak", 1), ("generic", 0), ("empty", 5)])
def test_github_is_told_in_annotations_and_the_exit_code_stays(document, code, run, monkeypatch) -> None:
    monkeypatch.setattr(isolation, "audit", lambda *_, **__: DOCUMENTS[document])
    text, annotations = (run("--model", "llama", "--format", format) for format in ("text", "github"))
    assert text[0] == annotations[0] == code
    first, last = annotations[1].splitlines()[0], annotations[1].splitlines()[-1]
    assert first.startswith("::" if document != "clean" else "leakcheck: ")
    assert last == f"leakcheck: {DOCUMENTS[document].subject.spec}: {view.closing(DOCUMENTS[document])}"
    assert "::" not in text[1].replace("aten::", "")


def test_a_saved_folder_is_audited_with_its_weights(run, tmp_path, in_eval_mode) -> None:
    torch.manual_seed(0)
    model = GPT2LMHeadModel(GPT2Config(vocab_size=31, n_positions=32, n_embd=8, n_layer=1, n_head=2))
    model.save_pretrained(tmp_path / "saved")
    code, out, _ = run("--model", "saved", "--attn", "sdpa")
    assert code == 0
    assert "GPT2LMHeadModel" in out
    assert "given weights" in out


def test_models_lists_the_built_in_subjects(monkeypatch, capsys) -> None:
    code, out, _ = command(monkeypatch, capsys, "models")
    assert code == 0
    assert [line.split()[0] for line in out.splitlines()] == ["method1_v3", "method1_v3_as_published", "llama"]


@pytest.mark.parametrize("statement", ["import leakcheck", "from leakcheck import cli", "import leakcheck.report"])
def test_torch_is_imported_only_by_an_audit(statement: str) -> None:
    code = f"import sys; {statement}; sys.exit('torch' in sys.modules or 'transformers' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_help_is_the_whole_process_without_torch() -> None:
    code = "import sys, atexit; sys.argv = ['leakcheck', 'run', '--help']\nfrom leakcheck import cli\n"
    code += "atexit.register(lambda: print('torch' in sys.modules))\ncli.main()"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0
    assert "--seq-len" in done.stdout
    assert done.stdout.rstrip().endswith("False")


def test_the_module_runs_as_a_process_and_is_plain_when_piped(tmp_path) -> None:
    written(tmp_path, UNPROVEN.replace("MORE", "x.sigmoid()"))
    environment = {**os.environ, "COLUMNS": "100"}
    done = subprocess.run(
        [sys.executable, "-m", "leakcheck", "run", "--model", "subject.py"],
        cwd=tmp_path, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "\x1b" not in done.stdout
    assert done.stderr == ""
    assert max(map(len, done.stdout.splitlines())) <= 100
