"""The JSON Schema of the JSON report, for whoever reads it without leakcheck.

python -m leakcheck.report.schema > leakcheck/report/report.v1.json
"""

import json
import re
from dataclasses import fields
from typing import Any

from pydantic import TypeAdapter
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue

from leakcheck.findings import SCHEMA_VERSION, AuditResult

_ABOUT = """An audit by leakcheck, in the JSON that `leakcheck run --report NAME.json` writes.

Within version 1 keys are only added: ignore those that you do not know, and expect what has a default to be missing
in reports of an earlier minor version. Where JSON has no word for a number it is one of the strings NaN, Infinity and
-Infinity."""
_MAJOR = SCHEMA_VERSION.partition(".")[0]


def schema() -> dict[str, Any]:
    """Draft 2020-12; objects may have keys that it does not name."""
    body = TypeAdapter(AuditResult).json_schema(schema_generator=_Generator)
    body["properties"]["schema_version"]["pattern"] = rf"^{re.escape(_MAJOR)}\.[0-9]+$"
    head = {"$schema": _Generator.schema_dialect, "title": f"leakcheck report, version {_MAJOR}", "description": _ABOUT}
    return {**head, **{key: value for key, value in body.items() if key not in head}}


class _Generator(GenerateJsonSchema):
    def float_schema(self, schema: Any) -> JsonSchemaValue:
        return {"anyOf": [{"type": "number"}, {"enum": ["NaN", "Infinity", "-Infinity"]}]}

    def dataclass_schema(self, schema: Any) -> JsonSchemaValue:
        """With the keys of the report, which for some fields differ from their names."""
        found = super().dataclass_schema(schema)
        names = {field.name: field.metadata.get("json", field.name) for field in fields(schema["cls"])}
        found["properties"] = {names[name]: value for name, value in found["properties"].items()}
        found["required"] = [names[name] for name in found["required"]]
        return found

    def field_title_should_be_set(self, schema: Any) -> bool:
        return False  # it would only repeat the key


def render() -> str:
    return json.dumps(schema(), indent=1) + "\n"


if __name__ == "__main__":
    print(render(), end="")
