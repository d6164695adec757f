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
        self.codes = {module: _decorated(type(module).forward)[-1].__code__ for module in self.names}
        self.root = next(iter(self.codes.values()))
        roles = dict.fromkeys(_INDEX.sub("*", name) for name in self.names.values())
        layered = [role for role in roles if "*" in role]
        self.stages_by_role = {
            role: Stage(number, _phase(role, list(roles), layered), role or type(model).__name__)
            for number, role in enumerate(roles, start=1)
        }
        self.stages = tuple(self.stages_by_role.values())

    def watch(self) -> Mapping[str, Any]:
        return {"codes": set(self.codes.values())}

    def watch_everything(self) -> Mapping[str, Any]:
        """Also every function below the model's forward; decorators of forwards belong to whoever calls them."""
        wrappers = {function.__code__ for module in self.names for function in _decorated(type(module).forward)[:-1]}
        return {**self.watch(), "everything_below": {self.root}, "wrappers": wrappers}

    def stage_of(self, name: str) -> Stage:
        """The stage of the module of that name."""
        return self.stages_by_role[_INDEX.sub("*", name)]

    def readings(self, recording: Recording, axes: Axes) -> list[Reading]:
        readings = []
        for call in recording.calls:
            module = call.receiver
            if not isinstance(module, nn.Module) or call.code is not self.codes.get(module):
                continue
            name = self.names[module]
            code: Any = call.parent.code if call.parent else call.code
            node = source.statement_at(code, call.position) if call.parent else None
            readings.append(
                of_call(
                    call,
                    hidden_tensors,
                    axes,
                    stage=self.stage_of(name),
                    path=STANDARD,
                    layer=layer_in(name),
                    module=name,
                    code=code,
                    node=node,
                )
            )
        return readings


def _decorated(function: Any) -> list[Any]:
    """The decorators of a forward, from outside in, and itself.

    Not all decorators tell what they wrap. One that passes on any arguments and closes over one method wraps that.
    """
    functions = [function]
    while function is not None:
        function = getattr(function, "__wrapped__", None) or _closed_over(function)
        functions += [] if function is None else [function]
    return functions


def _closed_over(function: Any) -> Any:
    passes_on = inspect.CO_VARARGS | inspect.CO_VARKEYWORDS
    if function.__code__.co_flags & passes_on != passes_on:
        return None
    try:
        held = [cell.cell_contents for cell in function.__closure__ or ()]
    except ValueError:  # one is empty
        return None
    methods = [f for f in held if inspect.isfunction(f) and f.__code__.co_varnames[:1] == ("self",)]
    return methods[0] if len(methods) == 1 else None


def layer_in(name: str) -> int | None:
    """The layer that a module's name speaks of."""
    index = _INDEX.search(name)
    return int(index.group()) if index else None


def _phase(role: str, roles: list[str], layered: list[str]) -> str:
    if not role:
        return "model"
    if "*" in role or not layered:
        return "layers"
    if any(other.startswith(f"{role}.") for other in layered):
        return "model"
    return "input" if roles.index(role) < roles.index(layered[0]) else "output"
