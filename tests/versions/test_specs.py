"""Every form of SPEC, under the installed version of the library."""

import json
import textwrap

import pytest
import torch
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM

from leakcheck import audit
from leakcheck.config import Settings
from leakcheck.findings import Verdict

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
def test_built_in(cell, name, expected):
    result = cell(f"built-in `{name}`", expected, lambda: audit(name, SHORT))
    assert all(control.caught for control in result.controls)


def test_folder(cell, tmp_path):
    spec = saved(tmp_path / "llama")
    result = cell("folder of `save_pretrained`", Verdict.PROVEN, lambda: audit(spec, SHORT))
    assert result.subject.weights == "given"


def test_sharded_folder(cell, tmp_path):
    spec = saved(tmp_path / "llama", max_shard_size="20KB")
    assert len(list((tmp_path / "llama").glob("*.safetensors"))) > 1
    result = cell("folder of `save_pretrained`, sharded", Verdict.PROVEN, lambda: audit(spec, SHORT))
    assert result.subject.weights == "given"


def test_config(cell, tmp_path):
    path = tmp_path / "config.json"
    path.write_text(json.dumps({"model_type": "llama", **SIZES, "vocab_size": 70_000}))
    result = cell("`config.json`", Verdict.PROVEN, lambda: audit(str(path), SHORT))
    assert result.subject.class_name == "LlamaForCausalLM"


@pytest.mark.parametrize(("neighbour", "expected", "reads"), TWINS)
def test_file_with_a_class(cell, tmp_path, neighbour, expected, reads):
    spec = written(tmp_path / "own.py", neighbour, CLASS)
    cell(f"`file.py` with a class{reads}", expected, lambda: audit(spec, SHORT))


@pytest.mark.parametrize(("neighbour", "expected", "reads"), TWINS)
def test_file_with_a_factory(cell, tmp_path, neighbour, expected, reads):
    spec = written(tmp_path / "own.py", neighbour, CLASS + FACTORY) + ":build"
    cell(f"`file.py:factory`{reads}", expected, lambda: audit(spec, SHORT))


@pytest.mark.parametrize(("neighbour", "expected", "reads"), TWINS)
def test_module_with_a_factory(cell, tmp_path, monkeypatch, neighbour, expected, reads):
    written(tmp_path / "own" / "modeling.py", neighbour, CLASS + FACTORY)
    monkeypatch.chdir(tmp_path)
    cell(f"`package.module:factory`{reads}", expected, lambda: audit("own.modeling:build", SHORT))


def test_module_of_the_library(cell):
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
