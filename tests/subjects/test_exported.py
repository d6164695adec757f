"""A `.pt2` file runs as the program that it is; what is pickled in it beside tensors is never unpickled."""

import io
import os
import warnings
import zipfile

import pytest
import torch
from torch import nn

from leakcheck.subjects.load import load

from .helpers import refusal


class Sums(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed, self.head = nn.Embedding(11, 8), nn.Linear(8, 11)

    def forward(self, tokens):
        return self.head(self.embed(tokens).cumsum(1))


class Make:
    """Unpickled, it makes a folder."""

    def __reduce__(self):
        return os.mkdir, ("executed",)


@pytest.fixture
def saved(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    tokens, free = torch.zeros(2, 13, dtype=torch.long), {0: torch.export.Dim.AUTO, 1: torch.export.Dim.AUTO}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.export.save(torch.export.export(Sums(), (tokens,), dynamic_shapes={"tokens": free}), "saved.pt2")
    return "saved.pt2"


def changed(path: str, *, added: dict[str, bytes], replaced: dict[str, bytes]) -> str:
    """A copy with more records, and with other content in those whose names hold a word."""
    with zipfile.ZipFile(path) as before, zipfile.ZipFile("changed.pt2", "w") as after:
        folder = before.namelist()[0].partition("/")[0]
        for name in before.namelist():
            content = next((content for word, content in replaced.items() if word in name), before.read(name))
            after.writestr(name, content)
        for name, content in added.items():
            after.writestr(f"{folder}/{name}", content)
    return "changed.pt2"


def test_an_exported_program(saved):
    forced = os.environ.get("TORCH_FORCE_WEIGHTS_ONLY_LOAD")
    assert load(saved).weights == "given"
    assert load(changed(saved, added={}, replaced={})).weights == "given"
    assert os.environ.get("TORCH_FORCE_WEIGHTS_ONLY_LOAD") == forced


def test_its_example_inputs_are_tensors_or_nothing(saved):
    buffer = io.BytesIO()
    torch.save(((Make(),), {}), buffer)
    path = changed(saved, added={}, replaced={"sample_inputs": buffer.getvalue()})
    assert "UnpicklingError" in refusal(path)
    assert not os.path.exists("executed")


@pytest.mark.parametrize("name", ["data/constants/opaque_obj_0", "data/aotinductor/model/model.so"])
def test_what_is_neither_program_nor_tensor(name, saved):
    assert "leakcheck loads neither" in refusal(changed(saved, added={name: b""}, replaced={}))


def test_what_is_no_archive(tmp_path):
    (tmp_path / "text.pt2").write_text("no archive")
    assert "not a program that torch.export.save wrote" in refusal(tmp_path / "text.pt2")
