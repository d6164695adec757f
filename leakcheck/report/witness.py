"""Witnesses as files: what is said of each as JSON, its tensors beside it as safetensors."""

import base64
import hashlib
import json
import math
import shlex
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy
from pydantic import ConfigDict, TypeAdapter, ValidationError
from safetensors import SafetensorError
from safetensors.numpy import load, save

from leakcheck.errors import LeakcheckError, UsageError
from leakcheck.findings import Array, AuditResult, Witness
from leakcheck.report.inputs import values
from leakcheck.report.registry import put

FOLDER = ".leakcheck/witnesses"
SCHEMA_VERSION = "1.0"

_TENSORS = ("tokens", "changed", "scale", "arguments")
_READER: TypeAdapter[dict[str, Witness]] = TypeAdapter(dict[str, Witness], config=ConfigDict(extra="forbid"))


def store(result: AuditResult, folder: str | Path) -> AuditResult:
    """Write every witness of an audit into a folder, which is made; the findings then end with the command to replay.

    Raises:
        LeakcheckError: a file cannot be written.
    """
    folder = Path(folder)
    if result.witnesses:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            if folder.parent.name == ".leakcheck" and not (folder.parent / ".gitignore").exists():
                put("*\n", folder.parent / ".gitignore")
        except OSError as error:
            raise LeakcheckError(f"cannot make folder {str(folder)!r}: {error.strerror}") from error
    for witness in result.witnesses:
        tensors = save(dict(_named(witness)), {"witness": witness.id})
        put(tensors, folder / f"{witness.id}.safetensors")
        put(_text(witness, tensors), folder / f"{witness.id}.json")
    return replayable(result, folder)


def replayable(result: AuditResult, folder: str | Path) -> AuditResult:
    """The audit, whose findings name the files that their witnesses have in this folder."""
    known = {witness.id for witness in result.witnesses}
    return replace(
        result,
        findings=tuple(
            replace(f, reproduce=f"leakcheck replay {shlex.quote(str(Path(folder) / f'{id_}.json'))}")
            if (id_ := (f.witness or {}).get("id")) in known
            else f
            for f in result.findings
        ),
    )


def read(path: str | Path) -> Witness:
    """The witness in a JSON file, with its tensors from the file beside it.

    Raises:
        UsageError: a file cannot be read, is no witness, or the two do not belong together.
    """
    path = Path(path)
    beside = path.with_suffix(".safetensors")
    data = _parsed(path)
    try:
        content = beside.read_bytes()
    except OSError as error:
        raise UsageError(f"{path}: its tensors cannot be read from {beside}: {error.strerror}") from error
    if data.pop("tensors_sha256", None) != hashlib.sha256(content).hexdigest():
        raise UsageError(f"{beside}: not the tensors of {path.name}; keep both files of a witness together")
    try:
        tensors = {name: _array(values) for name, values in load(content).items()}
        arguments = [
            {
                name.removeprefix(f"arguments.{n}."): a
                for name, a in tensors.items()
                if name.startswith(f"arguments.{n}.")
            }
            for n in range(2)
        ]
        data |= {name: asdict(tensors[name]) for name in ("tokens", "changed", "scale")}
        data["arguments"] = [{k: asdict(a) for k, a in each.items()} for each in arguments if each]
        data["delta"] = float(data["delta"])
        return _READER.validate_python({"": data})[""]
    except (ValidationError, SafetensorError, KeyError, TypeError, ValueError) as error:
        where = error.errors()[0]["loc"][1:] if isinstance(error, ValidationError) else error
        raise UsageError(f"{path}: not a witness: {where}; audit again to have a new one") from error


def _parsed(path: Path) -> dict[str, Any]:
    try:
        data = json.loads(path.read_bytes())
    except OSError as error:
        raise UsageError(f"{path}: no such witness can be read: {error.strerror}") from error
    except ValueError as error:
        raise UsageError(f"{path}: not a witness: not JSON ({error})") from error
    if not isinstance(data, dict) or "tensors_sha256" not in data:
        raise UsageError(f"{path}: not a witness; give a file that `leakcheck run` wrote into {FOLDER}")
    if data.pop("schema_version", None) != SCHEMA_VERSION:
        raise UsageError(f"{path}: a witness of another leakcheck; audit again to have a new one")
    for name in ("tokens", "changed"):
        data.pop(name, None)  # for people; the tensors are read from their file
    return data


def _text(witness: Witness, tensors: bytes) -> str:
    told = {name: value for name, value in asdict(witness).items() if name not in _TENSORS}
    told["delta"] = witness.delta if math.isfinite(witness.delta) else str(witness.delta)
    data = {
        "schema_version": SCHEMA_VERSION,
        **told,
        "tokens": values(witness.tokens).tolist(),
        "changed": values(witness.changed).tolist(),
        "tensors_sha256": hashlib.sha256(tensors).hexdigest(),
    }
    entries = [f"  {json.dumps(name)}: {json.dumps(value, ensure_ascii=False)}" for name, value in data.items()]
    return "{\n" + ",\n".join(entries) + "\n}\n"


def _named(witness: Witness) -> Iterator[tuple[str, numpy.ndarray]]:
    for name in ("tokens", "changed", "scale"):
        yield name, values(getattr(witness, name))
    for number, arguments in enumerate(witness.arguments):
        for name, array in arguments.items():
            yield f"arguments.{number}.{name}", values(array)


def _array(array: numpy.ndarray) -> Array:
    data = base64.b64encode(numpy.ascontiguousarray(array).tobytes()).decode()
    return Array(str(array.dtype), tuple(array.shape), data)
