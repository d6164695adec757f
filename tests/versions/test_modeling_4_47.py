"""A modelling file written for transformers 4.47, in a package with relative imports, audited as it is."""

import re
import shutil

import pytest
import transformers

from leakcheck import audit
from leakcheck.config import Settings
from leakcheck.errors import ExitCode
from leakcheck.findings import Verdict
from tests.cli.command import command
from tests.versions.packages import PACKAGES

ASKS = """self._update_causal_mask(
            attention_mask, inputs_embeds, cache_position, past_key_values, output_attentions
        )"""
NAME = "package with relative imports, written for 4.47"


@pytest.fixture
def package(tmp_path):
    """A copy of the package, whose model asks for its mask with `output_attentions` as it is or always true."""

    def copy(output_attentions):
        shutil.copytree(PACKAGES / "method1", tmp_path / "ours", ignore=shutil.ignore_patterns("__pycache__"))
        path = tmp_path / "ours" / "modeling_method1.py"
        text = path.read_text()
        assert text.count(ASKS) == 1
        path.write_text(text.replace(ASKS, ASKS.replace("output_attentions", output_attentions)))
        return str(path)

    return copy


def test_it_leaks_where_the_library_makes_no_mask(cell, package, in_eval_mode):
    spec = package("output_attentions")
    result = cell(f"{NAME}; as published", Verdict.LEAK, lambda: audit(spec, Settings(seq_len=5)))
    if result is None:
        return
    verdicts = {c.id: c.verdict for c in result.configurations}
    leaky = {name for name, verdict in verdicts.items() if verdict is Verdict.LEAK}
    assert leaky == {"sdpa/none/eval", "sdpa/ones/eval"}
    assert set(verdicts.values()) == {Verdict.LEAK, Verdict.PROVEN}

    lost = next(f for f in result.findings if f.code == "LC201")
    assert lost.file == "transformers/models/llama/modeling_llama.py"
    assert "LlamaModel._update_causal_mask" in lost.message
    assert "`return None`" in lost.message
    assert ["ours/modeling_method1.py" in line for line in lost.chain] == [False, True, True, True]
    acts = next(f for f in result.findings if f.code == "LC101")
    assert "stage 8 (mask application)" in acts.message
    assert "LlamaAttention.forward" in acts.message


def test_it_is_causal_with_a_mask(cell, package):
    spec = package("True")
    settings = Settings(attention=("sdpa",), seq_len=5)
    cell(f"{NAME}; always with a mask", Verdict.PROVEN, lambda: audit(spec, settings))


@pytest.mark.skipif(transformers.__version__.startswith("4.47."), reason="it can be imported here")
def test_another_version_says_in_one_line_what_is_missing(package, monkeypatch, capsys):
    code, out, err = command(monkeypatch, capsys, "run", "--model", package("output_attentions"))
    assert (code, out) == (ExitCode.USAGE, "")
    assert re.fullmatch(
        r"leakcheck: \S+/ours/modeling_method1\.py:\d+: importing modeling_method1\.py raised ImportError: "
        r"cannot import name 'LLAMA_ATTENTION_CLASSES' from 'transformers\.models\.llama\.modeling_llama'.*\n",
        err,
    )
