"""The files of weights in a folder: which there are, and that they hold tensors and nothing else."""

import json
import pickle
import re
import zipfile
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open

from leakcheck.errors import UsageError
from leakcheck.subjects.refusal import one_line, refusing

# Whole or in shards, in the order in which they are looked for. Safetensors cannot hold code; a pickle can.
_NAMES = ("model.safetensors", "pytorch_model.bin")
_UNSUPPORTED = re.compile(r"Unsupported \w+|GLOBAL [\w.]+")


def weight_files(folder: Path) -> list[Path]:
    """The files of weights of a folder, all safetensors or all pickles; every one can be read.

    Of safetensors the headers are read. Pickles are read with `weights_only=True`: nothing but tensors comes out, and
    no code in them runs.

    Raises:
        UsageError: there are none, one of them is not there, or does not hold tensors alone.
    """
    for name in _NAMES:
        files = [folder / name] if (folder / name).is_file() else _shards(folder / f"{name}.index.json")
        for file in files:
            _check(file)
        if files:
            return files
    raise UsageError(
        f"{folder}: no weights in this folder ({' or '.join(_NAMES)}, whole or in shards); give its config.json to "
        "audit the architecture"
    )


def _shards(index: Path) -> list[Path]:
    if not index.is_file():
        return []
    with refusing(f"{index}: not an index of weights"):
        names = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
        files = [index.parent / name for name in names]
    missing = [file.name for file in files if not file.is_file()]
    if missing:
        raise UsageError(f"{index.parent}: of {len(files)} files of weights {len(missing)} is missing: {missing[0]}")
    return files


def _check(file: Path) -> None:
    try:
        if file.suffix == ".safetensors":
            with safe_open(file, "pt"):
                pass
        else:
            torch.load(file, map_location="meta", weights_only=True, mmap=zipfile.is_zipfile(file))
    except SafetensorError as error:
        raise UsageError(f"{file}: not a whole safetensors file: {one_line(error)}") from error
    except pickle.UnpicklingError as error:
        found = ", ".join(dict.fromkeys(_UNSUPPORTED.findall(str(error)))) or "no pickle of tensors"
        raise UsageError(
            f"{file}: holds other things than tensors, and leakcheck unpickles none of them ({found}); save the model "
            "again as safetensors"
        ) from error
    except Exception as error:
        raise UsageError(f"{file}: not a whole file of weights: {one_line(error)}") from error
