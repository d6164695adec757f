"""Checkpoints: where a running model is measured, found live in its frames.

`recorder` watches one forward, `source` turns frames into file, lines and source text, a plan (`method1_v3`,
`modules`) turns what was watched into `Reading`s: tensors with a place, and a way to run that place again.
"""

from torch import nn

from leakcheck.checkpoints.method1_v3 import Method1Plan
from leakcheck.checkpoints.modules import ModulesPlan
from leakcheck.checkpoints.reading import Plan
from leakcheck.subjects.adapter import Adapter
from leakcheck.subjects.function import Function


def plan_for(model: nn.Module) -> Plan:
    """The 14 stages where the model has Method1_v3's replay, else one checkpoint for each module."""
    if isinstance(model, Adapter):
        # Rows that run one by one show no batch to measure at a stage.
        return ModulesPlan(nn.Module()) if model.by_rows else plan_for(model.audited)
    if isinstance(model, Function):
        return ModulesPlan(model.parts)
    return Method1Plan(model) if Method1Plan.fits(model) else ModulesPlan(model)
