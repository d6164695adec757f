"""How a model can be made again without leakcheck, as plain data."""

import json
import sys
from pathlib import Path
from typing import Any

from torch import nn
from transformers import PreTrainedModel

from leakcheck.subjects.adapter import Adapter
from leakcheck.subjects.function import Function
from leakcheck.subjects.hub import PREFIX
from leakcheck.subjects.library import PreTrainedConfig
from leakcheck.subjects.pythonfile import candidate
from leakcheck.subjects.subject import Subject, unwrapped
from leakcheck.subjects.userimport import home


def recipe(subject: Subject, *, trusted: bool) -> dict[str, Any]:
    """The recipe of a subject's model; `why_not` alone where it takes more than a few lines.

    `class`: a model class with a configuration, both imported, and random weights. `factory`: a function, imported,
    that returns it, or a `function` in its place, or perhaps a `pair` of it and what it reads.
    `pretrained`: a folder, or a name on the hub, with its weights. `program`: an exported program. Imported is a `name`
    of a `module` that is found below the folder `root`, or anywhere if it is empty.
    """
    model, spec = unwrapped(subject.model), subject.spec
    if subject.live:
        return {"why_not": "the model was handed over in Python, no command line names it"}
    if subject.weights.startswith("random"):
        if not isinstance(model, PreTrainedModel):
            return {"why_not": f"{type(model).__name__} has no configuration to build it from"}
        if "transformers_modules" in type(model).__module__:
            return {"why_not": "its code was brought along by a folder or the hub"}
        fields = json.loads(model.config.to_json_string(use_diff=True))
        return {
            "kind": "class",
            "model": _imported(type(model), spec),
            "config": _imported(type(model.config), spec),
            "fields": fields,
        }
    if spec.endswith(".pt2"):
        return {"kind": "program", "path": spec}
    if spec.lower().endswith(".gguf"):
        return {"kind": "pretrained", "path": str(Path(spec).parent), "options": {"gguf_file": Path(spec).name}}
    if Path(spec).is_dir() or spec.startswith(PREFIX):
        options = {"trust_remote_code": True} if trusted else {}
        return {"kind": "pretrained", "path": spec.removeprefix(PREFIX), "options": options}
    target, _, name = spec.rpartition(":") if ":" in spec else (spec, "", "")
    if not target.endswith(".py") and not name:
        return {"why_not": f"{spec} names nothing that could be imported"}
    root, module = home(Path(target)) if target.endswith(".py") else ("", target)
    name = name or candidate(Path(target))
    return {
        "kind": "factory",
        "from": {"root": root, "module": module, "name": name},
        "function": isinstance(model, Function),
        "pair": isinstance(subject.model, Adapter),
    }


def _imported(of: type[nn.Module] | type[PreTrainedConfig], spec: str) -> dict[str, str]:
    file = Path(getattr(sys.modules[of.__module__], "__file__", None) or "")
    if ".py" in spec and "site-packages" not in file.parts:
        root, module = home(file)
        return {"root": root, "module": module, "name": of.__qualname__}
    return {"root": "", "module": of.__module__, "name": of.__qualname__}
