"""Malformed SPECs and subjects, through the command line: the documented exit code, one line, and nothing else."""

import json
import os
import pickle
import stat
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from transformers import DistilBertConfig, LlamaConfig, LlamaForCausalLM

from leakcheck import cli

LLAMA = {
    "model_type": "llama", "vocab_size": 31, "hidden_size": 16, "intermediate_size": 20, "num_hidden_layers": 1,
    "num_attention_heads": 2, "num_key_value_heads": 1, "max_position_embeddings": 32,
}  # fmt: skip
MODEL = """
import ctypes, os, sys, time, torch
from torch import nn

class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed, self.head = nn.Embedding(11, 8), nn.Linear(8, 11)

    def forward(self, input_ids):
        x = self.head(self.embed(input_ids).cumsum(1))
        RETURNS

def build():
    return Model()
"""


class Touch:
    """Unpickled, it makes a file."""

    def __reduce__(self):
        return os.mkdir, ("executed",)


def text(name: str, content: str) -> Callable[[], object]:
    return lambda: Path(name).write_text(content)


def forward(code: str) -> Callable[[], object]:
    return text("subject.py", MODEL.replace("RETURNS", code))


def factory(code: str) -> Callable[[], object]:
    return text("subject.py", MODEL + f"\ndef build({code}")


def configuration(**fields: object) -> Callable[[], object]:
    return text("config.json", json.dumps(LLAMA | fields))


def saved(damage: Callable[[Path], object]) -> Callable[[], object]:
    """A folder in shards, and what then happens to it."""

    def make() -> None:
        LlamaForCausalLM(LlamaConfig(**LLAMA)).save_pretrained("folder", max_shard_size="2KB")
        damage(Path("folder"))

    return make


def pickled(write: Callable[[object, Path], object]) -> Callable[[], object]:
    def damage(folder: Path) -> None:
        for file in (*folder.glob("*.safetensors"), *folder.glob("*.index.json")):
            file.unlink()
        write({"model.norm.weight": Touch()}, folder / "pytorch_model.bin")

    return saved(damage)


def shard(folder: Path) -> Path:
    return sorted(folder.glob("*.safetensors"))[1]


def auto_map(folder: Path) -> None:
    fields = {"auto_map": {"AutoModelForCausalLM": "modeling_own.OwnForCausalLM"}}
    (folder / "config.json").write_text(json.dumps(LLAMA | fields))
    (folder / "modeling_own.py").write_text("import os\nos.mkdir('executed')\n")


def nothing() -> None:
    pass


@dataclass(frozen=True)
class Case:
    what: str
    make: Callable[[], object]
    spec: str
    code: int
    said: str
    options: tuple[str, ...] = ()


GROW = "kept = []\n        while True: kept.append(torch.ones(2**22)); time.sleep(0.005)"
SUBJECT, FOLDER, CONFIG = "subject.py", "folder", "config.json"
CASES = (
    # SPEC
    Case("nothing", nothing, "", 2, "the SPEC is empty"),
    Case("a file that is not there", nothing, "nowhere/at_all.py", 2, "nowhere/at_all.py: there is no such file"),
    Case("a null byte", nothing, "a\0b", 2, "b: cannot be opened: embedded null byte"),
    Case("a line break", nothing, "a\nb.py", 2, "a b.py: there is no such file"),
    Case("a name that is too long", nothing, "n" * 5000, 2, "nnn...: cannot be opened: File name too long"),
    Case("three names", nothing, "a:b:c", 2, "a:b:c: there is no such file"),
    Case("a module that is not there", nothing, "no.such.module:build", 2, "No module named 'no'"),
    Case("a named pipe", lambda: os.mkfifo("pipe.py"), "pipe.py", 2, "pipe.py: not a folder"),
    Case("a device", nothing, "/dev/null", 2, "/dev/null: not a folder"),
    Case("a folder that is empty", lambda: os.mkdir("folder"), FOLDER, 2, "folder: no config.json"),
    Case("a file of another kind", text("notes.txt", "hello"), "notes.txt", 2, "notes.txt: not a folder"),
    Case("no name on the hub", nothing, "hf:a/b/c", 2, "hf:a/b/c: not the name of a model"),
    Case("a model that cannot be fetched", nothing, "hf:org/name", 2, "hf:org/name: not in the cache"),
    # Python files
    Case("an empty file", text(SUBJECT, ""), SUBJECT, 2, "subject.py: no model in it"),
    Case("a syntax error", text(SUBJECT, "x = 1\ndef build(:\n"), SUBJECT, 2, "subject.py:2: invalid syntax"),
    Case("no Python", lambda: Path(SUBJECT).write_bytes(bytes(range(256))), SUBJECT, 2, "raised SyntaxError"),
    Case("a name that is not in it", text(SUBJECT, MODEL), "subject.py:other", 2, "nothing in it is called 'other'"),
    Case("a factory that raises", factory("):\n    raise ValueError('no\\nluck')"), SUBJECT, 2, "ValueError: no luck"),
    Case("a factory that returns nothing", factory("):\n    pass"), SUBJECT, 2, "returned a NoneType"),
    Case("a factory with parameters", factory("size):\n    pass"), "subject.py:build", 2, "missing 1 required"),
    Case("a factory that exits", factory("):\n    sys.exit(0)"), SUBJECT, 2, "SystemExit: 0"),
    Case("a factory that ends its process", factory("):\n    os._exit(0)"), SUBJECT, 3, "with exit status 0"),
    Case("an import that never ends", text(SUBJECT, "while True: pass"), SUBJECT, 3, "--timeout", ("--timeout", "3")),
    # configurations
    Case("no JSON", text(CONFIG, "{"), CONFIG, 2, "config.json: not readable as JSON"),
    Case("a list", text(CONFIG, "[1, 2]"), CONFIG, 2, "config.json: not a model configuration"),
    Case("no model_type", text(CONFIG, '{"hidden_size": 8}'), CONFIG, 2, "config.json: not a model configuration"),
    Case("an unknown model_type", configuration(model_type="never-heard-of"), CONFIG, 2, "'never-heard-of'"),
    Case("no causal model", text(CONFIG, DistilBertConfig().to_json_string()), CONFIG, 2, "'distilbert'"),
    Case("sizes of no sense", configuration(hidden_size=10**12, intermediate_size=10**15), CONFIG, 2, "config.json"),
    Case("heads below zero", configuration(num_attention_heads=-2), CONFIG, 2, "config.json"),
    Case("heads that do not fit", configuration(num_attention_heads=3, head_dim=None), CONFIG, 2, "config.json"),
    # weights
    Case("a shard that is missing", saved(lambda f: shard(f).unlink()), FOLDER, 2, "is missing: model-00002-of-"),
    Case("a shard of nothing", saved(lambda f: shard(f).write_bytes(b"")), FOLDER, 2, "model-00002-of-"),
    Case("an index of nothing", saved(lambda f: (f / "model.safetensors.index.json").write_text("[]")), FOLDER, 2,
         "model.safetensors.index.json: not an index"),
    Case("a pickle of other things", pickled(torch.save), FOLDER, 2, "unpickles none of them"),
    Case("an old pickle of other things", pickled(lambda x, file: file.write_bytes(pickle.dumps(x))), FOLDER, 2,
         "unpickles none of them"),
    Case("code of its own", saved(auto_map), FOLDER, 2, "--trust-remote-code"),
    # subjects
    Case("a forward that raises", forward("raise KeyError('no\\nkey')"), SUBJECT, 3, "KeyError: 'no"),
    Case("a forward that returns NaN", forward("return x * float('nan')"), SUBJECT, 3, "NaN"),
    Case("a forward that returns nothing", forward("return None"), SUBJECT, 3, "returned no"),
    Case("a forward that ends the audit", forward("sys.exit(0)"), SUBJECT, 3, "sys.exit(0)"),
    Case("a forward that crashes", forward("ctypes.string_at(0)"), SUBJECT, 3, "SIGSEGV"),
    Case("a forward that never ends", forward("time.sleep(600)"), SUBJECT, 3, "no verdict after 3 seconds",
         ("--timeout", "3")),
    Case("a forward that eats memory", forward(GROW), SUBJECT, 3, "--memory-limit", ("--memory-limit", "1500MB")),
)  # fmt: skip


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.what)
def test_the_exit_code_and_one_line(case: Case, monkeypatch, capfd, tmp_path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    case.make()
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if not stat.S_ISDIR(path.stat().st_mode)}
    capfd.readouterr()

    arguments = ["leakcheck", "run", "--model", case.spec, "--report", "report.json", *case.options]
    monkeypatch.setattr(sys, "argv", arguments)
    with pytest.raises(SystemExit) as stop:
        cli.main()

    out, err = capfd.readouterr()
    assert err.startswith("leakcheck: ")
    assert case.said in err
    assert (stop.value.code, out, len(err.splitlines())) == (case.code, "", 1)
    after = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if not stat.S_ISDIR(path.stat().st_mode)}
    assert after == before
    assert not Path("executed").exists()
