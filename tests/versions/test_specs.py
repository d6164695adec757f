"""Every form of SPEC, under the installed version of the library.

All modes are run for the built-in subjects: how another SPEC is read has nothing to do with them.
"""

import importlib.util
import json
import textwrap
from pathlib import Path

import pytest
import torch
import transformers
from huggingface_hub import constants
from safetensors.torch import load_file
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM

from leakcheck import audit
from leakcheck.config import Settings
from leakcheck.findings import Verdict

REPORTS = Path(__file__).resolve().parents[2] / "reports"
COMMIT = "0123456789abcdef0123456789abcdef01234567"
SHORT = Settings(attention=("sdpa",), seq_len=7)
SIZES = {
    "vocab_size": 61,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
}

CLASS = """
    from torch.nn.functional import pad
    from transformers import LlamaConfig, LlamaForCausalLM

    class OwnForCausalLM(LlamaForCausalLM):
        def forward(self, input_ids=None, attention_mask=None, **kwargs):
            x = self.model.embed_tokens(input_ids)  # [batch, seq, hidden]
            return super().forward(inputs_embeds=x + pad(x, {neighbour}), attention_mask=attention_mask, **kwargs)
"""
FACTORY = f"""
    def build():
        return OwnForCausalLM(LlamaConfig(**{SIZES}))
"""
TWINS = [
    pytest.param("(0, 0, 1, -1)", Verdict.PROVEN, "", id="clean"),
    pytest.param("(0, 0, -1, 1)", Verdict.LEAK, ", reads one ahead", id="leaky"),
]


def saved(path, **options):
    torch.manual_seed(0)
    LlamaForCausalLM(LlamaConfig(**SIZES)).save_pretrained(path, **options)
    return str(path)


def written(path, neighbour, text):
    path.parent.mkdir(exist_ok=True)
    path.write_text(textwrap.dedent(text.replace("{neighbour}", neighbour)))
    return str(path)


@pytest.mark.parametrize(
    ("name", "expected"),
    [("llama", Verdict.PROVEN), ("method1_v3", Verdict.PROVEN), ("method1_v3_as_published", Verdict.LEAK)],
)
def test_built_in(cell, name, expected, request):
    reported = json.loads((REPORTS / f"{name}.json").read_text(encoding="utf-8"))
    if reported["environment"]["transformers"] == transformers.__version__:  # tests/test_reports.py runs all of it
        request.getfixturevalue("in_eval_mode")
    result = cell(f"built-in `{name}`", expected, lambda: audit(name, SHORT))
    assert all(control.caught for control in result.controls)


def test_folder(cell, in_eval_mode, tmp_path):
    spec = saved(tmp_path / "llama")
    result = cell("folder of `save_pretrained`", Verdict.PROVEN, lambda: audit(spec, SHORT))
    assert result.subject.weights == "given"


def test_sharded_folder(cell, in_eval_mode, tmp_path):
    spec = saved(tmp_path / "llama", max_shard_size="20KB")
    assert len(list((tmp_path / "llama").glob("*.safetensors"))) > 1
    result = cell("folder of `save_pretrained`, sharded", Verdict.PROVEN, lambda: audit(spec, SHORT))
    assert result.subject.weights == "given"


def test_pickled_weights(cell, in_eval_mode, tmp_path):
    spec = saved(tmp_path / "llama")
    torch.save(load_file(tmp_path / "llama" / "model.safetensors"), tmp_path / "llama" / "pytorch_model.bin")
    (tmp_path / "llama" / "model.safetensors").unlink()
    cell("folder of pickled weights", Verdict.PROVEN, lambda: audit(spec, SHORT))


def test_hub(cell, in_eval_mode, tmp_path, monkeypatch):
    """Out of a cache that is laid out as huggingface_hub lays it out."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    folder = tmp_path / "models--org--small"
    saved(folder / "snapshots" / COMMIT)
    (folder / "refs").mkdir()
    (folder / "refs" / "main").write_text(COMMIT)
    cell("`hf:ORG/NAME`", Verdict.PROVEN, lambda: audit("hf:org/small", SHORT))


def test_gguf(cell, in_eval_mode, tmp_path):
    path = tmp_path / "model.gguf"
    if importlib.util.find_spec("gguf"):
        from tests.subjects.test_gguf import write

        write(path, LlamaForCausalLM(LlamaConfig(**SIZES)))
    else:
        path.write_bytes(b"GGUF")
    cell("`model.gguf`", Verdict.PROVEN, lambda: audit(str(path), SHORT))


def test_config(cell, in_eval_mode, tmp_path):
    path = tmp_path / "config.json"
    path.write_text(json.dumps({"model_type": "llama", **SIZES, "vocab_size": 70_000}))
    result = cell("`config.json`", Verdict.PROVEN, lambda: audit(str(path), SHORT))
    assert result.subject.class_name == "LlamaForCausalLM"


@pytest.mark.parametrize(("neighbour", "expected", "reads"), TWINS)
def test_file_with_a_class(cell, in_eval_mode, tmp_path, neighbour, expected, reads):
    spec = written(tmp_path / "own.py", neighbour, CLASS)
    cell(f"`file.py` with a class{reads}", expected, lambda: audit(spec, SHORT))


@pytest.mark.parametrize(("neighbour", "expected", "reads"), TWINS)
def test_file_with_a_factory(cell, in_eval_mode, tmp_path, neighbour, expected, reads):
    spec = written(tmp_path / "own.py", neighbour, CLASS + FACTORY) + ":build"
    cell(f"`file.py:factory`{reads}", expected, lambda: audit(spec, SHORT))


@pytest.mark.parametrize(("neighbour", "expected", "reads"), TWINS)
def test_module_with_a_factory(cell, in_eval_mode, tmp_path, monkeypatch, neighbour, expected, reads):
    written(tmp_path / "own" / "modeling.py", neighbour, CLASS + FACTORY)
    monkeypatch.chdir(tmp_path)
    cell(f"`package.module:factory`{reads}", expected, lambda: audit("own.modeling:build", SHORT))


def test_module_of_the_library(cell, in_eval_mode):
    torch.manual_seed(0)
    model = LlamaForCausalLM(LlamaConfig(**SIZES)).eval()
    cell("`audit(model)`, a model of transformers", Verdict.PROVEN, lambda: audit(model, SHORT))


@pytest.mark.parametrize(("name", "expected"), [("GRU", Verdict.PROVEN), ("bidirectional GRU", Verdict.LEAK)])
def test_module_of_torch(cell, name, expected):
    class Recurrent(nn.Module):
        def __init__(self):
            super().__init__()
            self.embed = nn.Embedding(61, 16)
            self.mix = nn.GRU(16, 8, batch_first=True, bidirectional=expected is Verdict.LEAK)
            self.head = nn.LazyLinear(61)

        def forward(self, input_ids):
            return self.head(self.mix(self.embed(input_ids))[0])

    torch.manual_seed(0)
    model = Recurrent()
    model(torch.zeros(1, 2, dtype=torch.long))
    cell(f"`audit(model)`, a {name}", expected, lambda: audit(model, Settings(seq_len=7)))
