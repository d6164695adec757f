"""The 14 stages of the hand-written trace of Method1_v3, found in whatever class carries its method names."""

import ast
import inspect
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from types import CodeType
from typing import Any

from torch import nn

from leakcheck.checkpoints import source
from leakcheck.checkpoints.axes import Axes
from leakcheck.checkpoints.method1_v3_statements import find_statements
from leakcheck.checkpoints.reading import (
    RECOMPUTE,
    STANDARD,
    Reading,
    Stage,
    hidden_tensors,
    of_arguments,
    of_call,
    of_statement,
    pairwise_tensors,
)
from leakcheck.checkpoints.recorder import Call, Recording, Visit

STAGES = tuple(
    Stage(number, phase, title)
    for number, (phase, title) in enumerate(
        (
            ("generation", "request for the mask"),
            ("generation", "mask generation"),
            ("distribution", "layer loop"),
            ("distribution", "recompute branch"),
            ("standard", "hand-over to the layer"),
            ("standard", "hand-over to the attention"),
            ("standard", "hand-over to the parent class"),
            ("standard", "mask application"),
            ("recompute", "hand-over to the replay"),
            ("recompute", "hand-over to the fixed method"),
            ("recompute", "fixed method"),
            ("recompute", "re-mask and softmax"),
            ("merge", "merged layer output"),
            ("merge", "stored weights"),
        ),
        start=1,
    )
)


class Method1Plan:
    """The plan for a model whose decoder stack has `_recompute_previous_mlp_outputs`.

    Functions are found by the method names of the trace, statements by what they do in the syntax tree (the loop over
    the layers, the branch that calls the replay, the subscript that takes the layer's output), never by line.
    """

    name = "method1_v3"
    stages: tuple[Stage, ...] = STAGES
    paths: tuple[str, ...] = (STANDARD, RECOMPUTE)

    def __init__(self, model: nn.Module):
        self.stack_name, self.stack = next(
            (name, m) for name, m in model.named_modules() if hasattr(m, "_recompute_previous_mlp_outputs")
        )
        self.names = {module: name for name, module in model.named_modules()}
        self.layers = list(self.stack.layers)
        layer = type(self.layers[0])
        attention = type(self.layers[0].self_attn)
        self.root = self.forward = _code(type(self.stack), "forward")
        self.update_mask = _code(type(self.stack), "_update_causal_mask")
        self.recompute = _code(type(self.stack), "_recompute_previous_mlp_outputs")
        self.layer_forward = _code(layer, "forward")
        self.attention_forward = _code(attention, "forward")
        self.parent_forward = _parent_code(attention, "forward")
        self.precomputed = _code(attention, "forward_with_precomputed_weights")
        self.nodes = find_statements(self.forward, self.precomputed)

    @staticmethod
    def fits(model: nn.Module) -> bool:
        return any(hasattr(m, "_recompute_previous_mlp_outputs") and hasattr(m, "layers") for m in model.modules())

    def watch(self) -> Mapping[str, Any]:
        nodes = self.nodes
        return {
            "codes": {
                self.forward,
                self.update_mask,
                self.recompute,
                self.layer_forward,
                self.attention_forward,
                self.parent_forward,
                self.precomputed,
            },
            "callees_of": {self.parent_forward},
            "everything_below": {self.update_mask},
            "ranges": {
                self.forward: [source.lines_of(n) for n in (nodes.branch, nodes.take, nodes.store) if n],
                self.precomputed: [source.lines_of(n) for n in (nodes.remask, nodes.length_check) if n],
            },
        }

    def readings(self, recording: Recording, axes: Axes) -> list[Reading]:
        readings = [
            *self._generation(recording, axes),
            *self._distribution(recording),
            *self._standard(recording, axes),
            *self._recompute(recording, axes),
            *self._merge(recording, axes),
        ]
        return sorted(readings, key=lambda reading: (reading.span[0], reading.stage.number))

    def _generation(self, recording: Recording, axes: Axes) -> list[Reading]:
        readings = []
        for call in recording.of(self.update_mask):
            built = _mask_builder(recording, call)
            for path in self.paths:
                here = {"path": path, "layer": None, "module": self.stack_name}
                readings.append(of_arguments(call, hidden_tensors, axes, **self._site(call, 1), **here))
                inner = {"code": self.update_mask, "node": built, "stage": STAGES[1]}
                note = "returned None" if call.result is None else ""
                readings.append(of_call(call, pairwise_tensors, axes, **inner, **here, note=note))
        return readings

    def _distribution(self, recording: Recording) -> list[Reading]:
        loop, branch = self.nodes.loop, self.nodes.branch
        if loop is None or branch is None:
            return []
        tests = _visits(recording, self.forward, branch)
        body = set(range(branch.body[0].lineno, source.lines_of(branch.body[-1])[1] + 1))
        taken = sum(bool(visit.executed & body) for visit in tests)
        iterations = len(recording.of(self.layer_forward))
        return [
            Reading(STAGES[number - 1], path, None, self.stack_name, self.forward, node, runs=runs)
            for number, path, node, runs in (
                (3, STANDARD, loop, iterations),
                (3, RECOMPUTE, loop, taken),
                (4, STANDARD, branch, len(tests) - taken),
                (4, RECOMPUTE, branch, taken),
            )
        ]

    def _standard(self, recording: Recording, axes: Axes) -> list[Reading]:
        readings = []
        for call in recording.of(self.layer_forward):
            layer = self.layers.index(call.arguments["self"])
            for path, pick in ((STANDARD, hidden_tensors), (RECOMPUTE, pairwise_tensors)):
                chain = self._chain(recording, call, partial(pick, axes=axes))
                for number, inner in zip((5, 6, 7, 8), chain, strict=False):
                    module = self.names.get(inner.arguments.get("self"), self.names[call.arguments["self"].self_attn])
                    here = {**self._site(inner, number), "path": path, "layer": layer, "module": module}
                    readings.append(of_call(inner, pick, axes, **here))
                if chain[-1].code is self.parent_forward:  # it calls no kernel: it applies the mask itself
                    here |= {"stage": STAGES[7], "code": self.parent_forward, "node": None}
                    readings.append(of_call(chain[-1], pick, axes, **here))
        return readings

    def _chain(self, recording: Recording, layer_call: Call, pick: Callable[[Any], Iterable]) -> list[Call]:
        """Layer, attention, parent class, kernel: each the call inside the one before it.

        Where one of them is called more than once, the call counts whose tensors are what the outer one returns.
        """
        chain = [layer_call]
        for code in (self.attention_forward, self.parent_forward, None):
            inside = [c for c in recording.calls if c.parent is chain[-1]]
            if code is None:  # the kernel is whichever function the parent class hands its mask to
                inside = [c for c in inside if "attention_mask" in c.arguments]
            else:
                inside = [c for c in inside if c.code is code]
            if not inside:
                break
            returned = {id(tensor) for tensor in pick(chain[-1].result)}
            used = [c for c in inside if any(id(tensor) in returned for tensor in pick(c.result))]
            chain.append((used or inside)[0])
        return chain

    def _recompute(self, recording: Recording, axes: Axes) -> list[Reading]:
        readings = []
        layer_calls = recording.of(self.layer_forward)
        for call in recording.of(self.recompute):
            layer = sum(done.span[1] < call.span[0] for done in layer_calls)
            here = {"path": RECOMPUTE, "layer": layer}
            module = self.stack_name
            readings.append(of_call(call, hidden_tensors, axes, **self._site(call, 9), **here, module=module))
            for replay in (c for c in recording.of(self.precomputed) if c.parent is call):
                module = self.names[replay.arguments["self"]]
                replayed = next(i for i, m in enumerate(self.layers) if m.self_attn is replay.arguments["self"])
                inner = {**here, "module": module, "replayed_layer": replayed}
                readings.append(of_call(replay, hidden_tensors, axes, **self._site(replay, 10), **inner))
                body = {"stage": STAGES[10], "code": self.precomputed, "node": self.nodes.remask}
                readings.append(of_call(replay, hidden_tensors, axes, **body, **inner))
                readings.extend(self._remask(recording, replay, axes, inner))
        return readings

    def _remask(self, recording: Recording, replay: Call, axes: Axes, place: dict) -> list[Reading]:
        statement, applied, weights = self.nodes.remask, self.nodes.apply, self.nodes.remasked
        if statement is None or applied is None or weights is None:
            return []
        here = {**place, "stage": STAGES[11], "code": self.precomputed, "node": applied}
        return [
            of_statement(visit, statement, weights, axes, **here, runs=int(applied.lineno in visit.executed))
            for visit in _visits(recording, self.precomputed, statement)
            if visit.call is replay
        ]

    def _merge(self, recording: Recording, axes: Axes) -> list[Reading]:
        readings = []
        nodes = self.nodes
        here: dict[str, Any] = {"code": self.forward, "module": self.stack_name}
        if nodes.take is not None and nodes.taken is not None:
            here |= {"node": nodes.take, "stage": STAGES[12]}
            for layer, visit in enumerate(_visits(recording, self.forward, nodes.take)):
                path = RECOMPUTE if layer else STANDARD  # the first layer has nothing to replay
                readings.append(of_statement(visit, nodes.take, nodes.taken, axes, **here, path=path, layer=layer))
        if nodes.store is not None and nodes.stored is not None:
            here |= {"node": nodes.store, "stage": STAGES[13], "path": RECOMPUTE}
            # Run again without the append, which would grow the list.
            handed = ast.copy_location(ast.Expr(nodes.stored), nodes.store)
            for layer, visit in enumerate(_visits(recording, self.forward, nodes.store)):
                readings.append(of_statement(visit, handed, nodes.stored, axes, **here, layer=layer))
        return readings

    def _site(self, call: Call, number: int) -> dict[str, Any]:
        """Where a call stands: the statement in the calling function."""
        assert call.parent is not None  # the plan watches only calls below the model's forward
        code = call.parent.code
        return {"code": code, "node": source.statement_at(code, call.position), "stage": STAGES[number - 1]}


def _mask_builder(recording: Recording, update: Call) -> ast.stmt | None:
    """The statement in `_update_causal_mask` whose call made the mask, or returned `None` in its place."""

    def builds(call: Call) -> bool:
        made = call.result is None if update.result is None else getattr(call.result, "ndim", 0) == 4
        return made and source.call_at(update.code, call.position) is not None

    builders = [c for c in recording.calls if c.parent is update and builds(c)]
    return source.statement_at(update.code, builders[-1].position) if builders else None


def _visits(recording: Recording, code: CodeType, statement: ast.stmt) -> list[Visit]:
    return [v for v in recording.visits.get(code, ()) if v.lines == source.lines_of(statement)]


def _code(cls: type, method: str) -> CodeType:
    return inspect.unwrap(getattr(cls, method)).__code__


def _parent_code(cls: type, method: str) -> CodeType:
    owners = [c for c in cls.__mro__ if method in vars(c)]
    return inspect.unwrap(vars(owners[1])[method]).__code__
