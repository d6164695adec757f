"""AuditResult to JSON and back. The keys are the field names, except where a field says otherwise."""

import json
import math
import re
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from functools import cache
from pathlib import Path
from typing import Any

from pydantic import ConfigDict, TypeAdapter, ValidationError

from leakcheck.errors import UsageError
from leakcheck.findings import SCHEMA_VERSION, AuditResult
from leakcheck.report.registry import renders

# A dataclass takes no configuration from a TypeAdapter, but inherits that of the type around it: hence the dict.
_READER: TypeAdapter[dict[str, AuditResult]] = TypeAdapter(dict[str, AuditResult], config=ConfigDict(extra="forbid"))


_ENCODER = json.JSONEncoder(ensure_ascii=False, allow_nan=False)
_AS_IS = (str, int, type(None))


@renders(".json")
def render(result: AuditResult) -> str:
    """Indented at the top; below it one line per entry, so that two reports diff well and long ones stay small."""
    entries = [f"  {_line(key)}: {_block(value)}" for key, value in _plain(result).items()]
    return "{\n" + ",\n".join(entries) + "\n}\n"


def read(text: str) -> AuditResult:
    """The document that `render` wrote.

    Raises:
        UsageError: not JSON, another schema version, or keys or values that the schema does not have.
    """
    try:
        data = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UsageError(f"not a leakcheck report: not JSON ({error})") from error
    if not isinstance(data, dict) or "schema_version" not in data:
        raise UsageError("not a leakcheck report: it has no schema_version")
    if not _readable(data["schema_version"]):
        raise UsageError(
            f"report has schema_version {data['schema_version']!r}, this leakcheck reads {SCHEMA_VERSION!r} and older "
            "ones of the same number before the point: write it again, or use the leakcheck that wrote it"
        )
    subject = data.get("subject")
    if isinstance(subject, dict) and "class" in subject:
        data["subject"] = {"class_name" if key == "class" else key: value for key, value in subject.items()}
    try:
        return _READER.validate_python({"": data})[""]
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"] if part != "")
        raise UsageError(f"not a leakcheck report: {where}: {first['msg']}") from error


def load(path: str | Path) -> AuditResult:
    """The document in the file that `render` filled.

    Raises:
        UsageError: no such file, or not such a document.
    """
    try:
        return read(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        reason = error.strerror
    except (ValueError, UsageError) as error:  # ValueError: not UTF-8, or no path that a system could have
        reason = str(error)
    raise UsageError(
        f"cannot read report {str(path)!r}: {reason}; name one that `leakcheck run --report NAME.json` wrote"
    )


def _readable(version: object) -> bool:
    """Whether all keys of this version are known: within a major version they are only added."""
    if not isinstance(version, str) or not re.fullmatch(r"\d+\.\d+", version):
        return False
    major, minor = map(int, version.split("."))
    own_major, own_minor = map(int, SCHEMA_VERSION.split("."))
    return major == own_major and minor <= own_minor


def _plain(value: Any) -> Any:
    if isinstance(value, _AS_IS):
        return value
    if isinstance(value, float):
        return float(f"{value:.6g}") if math.isfinite(value) else json.dumps(value)
    if isinstance(value, list | tuple):
        return [_plain(entry) for entry in value]
    if isinstance(value, Mapping):
        return {key: _plain(entry) for key, entry in value.items()}
    if is_dataclass(value):
        found = ((key, getattr(value, name)) for key, name in _keys(value.__class__))
        # Most fields are as they should be: to ask here saves most of the calls.
        return {key: entry if isinstance(entry, _AS_IS) else _plain(entry) for key, entry in found}
    return value


@cache
def _keys(kind: type) -> tuple[tuple[str, str], ...]:
    """The keys that an object has in the report, each with the field that it stands for."""
    return tuple((field.metadata.get("json", field.name), field.name) for field in fields(kind))


def _block(value: Any) -> str:
    if isinstance(value, dict) and value:
        lines = [f"    {_line(key)}: {_line(entry)}" for key, entry in value.items()]
        return "{\n" + ",\n".join(lines) + "\n  }"
    if isinstance(value, list) and value:
        return "[\n" + ",\n".join(f"    {_line(entry)}" for entry in value) + "\n  ]"
    return _line(value)


def _line(value: Any) -> str:
    return _ENCODER.encode(value)
