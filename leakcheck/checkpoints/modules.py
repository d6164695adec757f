"""The plan for any other model: every module call is a checkpoint, layers folded into one stage by their names."""

import inspect
import re
from collections.abc import Mapping
from typing import Any

from torch import nn

from leakcheck.checkpoints import source
from leakcheck.checkpoints.axes import Axes
from leakcheck.checkpoints.reading import STANDARD, Reading, Stage, hidden_tensors, of_call
from leakcheck.checkpoints.recorder import Recording

_INDEX = re.compile(r"(?<=\.)\d+(?=\.|$)")


class ModulesPlan:
    """Stages are the module names with layer numbers replaced by `*`, in the order in which they were registered."""

    name = "modules"
    paths: tuple[str, ...] = (STANDARD,)

    def __init__(self, model: nn.Module):
        self.names = {module: name for name, module in model.named_modules()}
        roles = dict.fromkeys(_INDEX.sub("*", name) for name in self.names.values())
        layered = [role for role in roles if "*" in role]
        self.stages_by_role = {
            role: Stage(number, _phase(role, list(roles), layered), role or type(model).__name__)
            for number, role in enumerate(roles, start=1)
        }
        self.stages = tuple(self.stages_by_role.values())

    def watch(self) -> Mapping[str, Any]:
        return {"codes": {inspect.unwrap(type(module).forward).__code__ for module in self.names}}

    def readings(self, recording: Recording, axes: Axes) -> list[Reading]:
        readings = []
        for call in recording.calls:
            name = self.names.get(call.arguments.get("self"))
            if name is None:
                continue
            code: Any = call.parent.code if call.parent else call.code
            node = source.statement_at(code, call.position) if call.parent else None
            index = _INDEX.search(name)
            readings.append(
                of_call(
                    call,
                    hidden_tensors,
                    axes,
                    stage=self.stages_by_role[_INDEX.sub("*", name)],
                    path=STANDARD,
                    layer=int(index.group()) if index else None,
                    module=name,
                    code=code,
                    node=node,
                )
            )
        return readings


def _phase(role: str, roles: list[str], layered: list[str]) -> str:
    if not role:
        return "model"
    if "*" in role or not layered:
        return "layers"
    if any(other.startswith(f"{role}.") for other in layered):
        return "model"
    return "input" if roles.index(role) < roles.index(layered[0]) else "output"
