"""A `.pt2` file: a program that `torch.export` wrote."""

import os
import zipfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from leakcheck.errors import UsageError
from leakcheck.subjects import state
from leakcheck.subjects.examples import Free, described
from leakcheck.subjects.inputs import Inputs
from leakcheck.subjects.refusal import refusing

_OBJECTS = ("constants/opaque_obj", "constants/custom_obj", "data/aotinductor/")  # in the archive


def load_program(path: Path) -> tuple[torch.nn.Module, str, Inputs]:
    """The program, a word on its weights, and what it reads: told from the example that it was exported with.

    A program is code, and runs. What else torch's loader would run is refused: pickled objects and compiled libraries.

    Raises:
        UsageError: not an exported program, or none of its inputs has an axis of positions.
    """
    with refusing(f"{path}: not a program that torch.export.save wrote"), state.process():
        _refuse_objects(path)
        os.environ["TORCH_FORCE_WEIGHTS_ONLY_LOAD"] = "1"  # the loader falls back to unpickling anything
        program = torch.export.load(path)
    model: Any = program.module()
    if program.example_inputs is None:
        raise UsageError(f"{path}: it was saved without example inputs, which say what it reads; export it again")
    return model, "given", _inputs(path, program)


def _refuse_objects(path: Path) -> None:
    with zipfile.ZipFile(path) as archive:
        for name in archive.namelist():
            if any(part in name.lower() for part in _OBJECTS):
                raise UsageError(f"{path}: it holds {name}, a pickled object or a library; leakcheck loads neither")


def _inputs(path: Path, program: Any) -> Inputs:
    """Sizes that were exported as such are held; the others are free."""
    positional, named = program.example_inputs
    names = [spec.arg.name for spec in program.graph_signature.input_specs if spec.kind.name == "USER_INPUT"]
    given = dict(zip(names, (*positional, *named.values()), strict=False))
    values = {node.name: node.meta.get("val") for node in program.graph.nodes}
    shapes = {name: value.shape for name, value in values.items() if isinstance(value, Tensor)}
    first = next((name for name, value in given.items() if isinstance(value, Tensor) and value.dim() >= 2), None)
    if first is None:
        raise UsageError(f"{path}: none of its inputs is a tensor with a batch and positions")
    batch, time = (not isinstance(size, int) for size in shapes[first][:2])
    return described(given, program.module(), Free(batch, time), _vocabulary(program, first))


def _vocabulary(program: Any, name: str) -> int | None:
    """How many rows the table has that an embedding looks this input up in."""
    for node in program.graph.nodes:
        if node.target is torch.ops.aten.embedding.default and node.args[1].name == name:
            return int(node.args[0].meta["val"].shape[0])
    return None
