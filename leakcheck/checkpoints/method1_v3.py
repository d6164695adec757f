"""The 14 stages of the hand-written trace of Method1_v3, found in whatever class carries its method names."""

import ast
import inspect
from collections.abc import Mapping
from types import CodeType
from typing import Any

from torch import nn

from leakcheck.checkpoints import source
from leakcheck.checkpoints.axes import Axes, tensors_in
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
from leakcheck.checkpoints.recorder import Call, Recording

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
    stages = STAGES
    paths = (STANDARD, RECOMPUTE)

    def __init__(self, model: nn.Module):
        self.stack_name, self.stack = next(
            (name, m) for name, m in model.named_modules() if hasattr(m, "_recompute_previous_mlp_outputs")
        )
        self.names = {module: name for name, module in model.named_modules()}
        self.layers = list(self.stack.layers)
        layer = type(self.layers[0])
        attention = type(self.layers[0].self_attn)
        self.forward = _code(type(self.stack), "forward")
        self.update_mask = _code(type(self.stack), "_update_causal_mask")
        self.recompute = _code(type(self.stack), "_recompute_previous_mlp_outputs")
        self.layer_forward = _code(layer, "forward")
        self.attention_forward = _code(attention, "forward")
        self.parent_forward = _parent_code(attention, "forward")
        self.precomputed = _code(attention, "forward_with_precomputed_weights")
        self.nodes = _Statements(self.forward, self.precomputed)

    @staticmethod
    def fits(model: nn.Module) -> bool:
        return any(hasattr(m, "_recompute_previous_mlp_outputs") and hasattr(m, "layers") for m in model.modules())

    def watch(self) -> Mapping[str, Any]:
        nodes = self.nodes
        in_forward = [_lines(n) for n in (nodes.branch, nodes.take, nodes.store) if n is not None]
        in_precomputed = [_lines(n) for n in (nodes.remask, nodes.length_check) if n is not None]
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
            "ranges": {self.forward: in_forward, self.precomputed: in_precomputed},
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
        branches = [v for v in recording.visits.get(self.forward, ()) if v.lines == _lines(self.nodes.branch)]
        body = {line for line in range(self.nodes.branch.body[0].lineno, self.nodes.branch.body[-1].end_lineno + 1)}
        taken = sum(bool(visit.executed & body) for visit in branches)
        iterations = len(recording.of(self.layer_forward))
        runs = {
            (3, STANDARD): iterations,
            (3, RECOMPUTE): taken,
            (4, STANDARD): len(branches) - taken,
            (4, RECOMPUTE): taken,
        }
        node = {3: self.nodes.loop, 4: self.nodes.branch}
        return [
            Reading(STAGES[number - 1], path, None, self.stack_name, self.forward, node[number], runs=count)
            for (number, path), count in runs.items()
        ]

    def _standard(self, recording: Recording, axes: Axes) -> list[Reading]:
        readings = []
        for call in recording.of(self.layer_forward):
            layer = self.layers.index(call.arguments["self"])
            chain = self._chain(recording, call)
            for number, inner in zip((5, 6, 7, 8), chain, strict=False):
                module = self.names.get(inner.arguments.get("self"), self.names[call.arguments["self"].self_attn])
                here = {**self._site(inner, number), "layer": layer, "module": module}
                readings.append(of_call(inner, hidden_tensors, axes, **here, path=STANDARD))
                readings.append(of_call(inner, pairwise_tensors, axes, **here, path=RECOMPUTE))
        return readings

    def _chain(self, recording: Recording, layer_call: Call) -> list[Call]:
        """Layer, attention, parent class, kernel: each the call inside the one before it."""
        chain = [layer_call]
        for code in (self.attention_forward, self.parent_forward, None):
            inside = [c for c in recording.calls if c.parent is chain[-1]]
            if code is None:  # the kernel is whichever function the parent class hands its mask to
                inside = [c for c in inside if "attention_mask" in c.arguments]
            else:
                inside = [c for c in inside if c.code is code]
            if not inside:
                break
            returned = {id(t) for t in tensors_in(chain[-1].result)}
            used = [c for c in inside if any(id(t) in returned for t in tensors_in(c.result))]
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
                if self.nodes.remask is not None:
                    readings.extend(self._remask(recording, replay, axes, inner))
        return readings

    def _remask(self, recording: Recording, replay: Call, axes: Axes, place: dict) -> list[Reading]:
        statement, output = self.nodes.remask, self.nodes.remasked
        visits = [v for v in recording.visits.get(self.precomputed, ()) if v.lines == _lines(statement)]
        return [
            of_statement(
                visit, statement, output, axes, stage=STAGES[11], code=self.precomputed, node=self.nodes.apply, **place,
                runs=int(self.nodes.apply.lineno in visit.executed),
            )
            for visit in visits
            if visit.call is replay
        ]  # fmt: skip

    def _merge(self, recording: Recording, axes: Axes) -> list[Reading]:
        readings = []
        nodes = self.nodes
        visits = recording.visits.get(self.forward, ())
        place = {"code": self.forward, "module": self.stack_name}
        if nodes.take is not None:
            for layer, visit in enumerate(v for v in visits if v.lines == _lines(nodes.take)):
                path = RECOMPUTE if layer else STANDARD  # the first layer has nothing to replay
                readings.append(
                    of_statement(
                        visit,
                        nodes.take,
                        ast.Name(nodes.take.targets[0].id, ast.Load()),
                        axes,
                        node=nodes.take,
                        stage=STAGES[12],
                        path=path,
                        layer=layer,
                        **place,
                    )
                )
        if nodes.store is not None:
            for layer, visit in enumerate(v for v in visits if v.lines == _lines(nodes.store)):
                stored = nodes.store.value.args[0]
                readings.append(
                    of_statement(
                        visit, ast.copy_location(ast.Expr(stored), nodes.store), stored, axes,
                        node=nodes.store, stage=STAGES[13], path=RECOMPUTE, layer=layer, **place,
                    )
                )  # fmt: skip
        return readings

    def _site(self, call: Call, number: int) -> dict[str, Any]:
        """Where a call stands: the statement in the calling function."""
        code = call.parent.code
        return {"code": code, "node": source.statement_at(code, call.position), "stage": STAGES[number - 1]}


class _Statements:
    """The statements of the trace, found by what they do; `None` for one that the code does not have."""

    def __init__(self, forward: CodeType, precomputed: CodeType):
        tree = source.syntax_of(forward)
        self.loop = next(n for n in ast.walk(tree) if isinstance(n, ast.For) and _mentions(n.iter, "layers"))
        self.branch = next(
            n
            for n in ast.walk(self.loop)
            if isinstance(n, ast.If) and any(_mentions(s, "_recompute_previous_mlp_outputs") for s in n.body)
        )
        loop_names = {n.id for n in ast.walk(self.loop.target) if isinstance(n, ast.Name)}
        outputs = {
            target.id
            for n in ast.walk(self.loop)
            if isinstance(n, ast.Assign) and isinstance(n.value, ast.Call)
            for target in n.targets
            if isinstance(target, ast.Name) and any(_mentions(n.value, name) for name in loop_names)
        }
        self.take = next((n for n in ast.walk(self.loop) if _takes_first(n, outputs)), None)
        appends = [n for n in ast.walk(self.loop) if _appends(n)]
        self.store = next((n for n in appends if _mentions(n.value.func, "stored_weights")), None)

        tree = source.syntax_of(precomputed)
        conditions = [n for n in ast.walk(tree) if isinstance(n, ast.If)]
        self.remask = next((n for n in conditions if _mentions(n.test, "apply_strict_causal_mask")), None)
        self.length_check = self.apply = self.remasked = None
        if self.remask is None:
            return
        inner = [n for s in self.remask.body for n in ast.walk(s)]
        self.length_check = next((n for n in inner if isinstance(n, ast.If)), None)
        assignments = [n for n in inner if isinstance(n, ast.Assign)]
        additions = [n for n in assignments if isinstance(n.value, ast.BinOp) and isinstance(n.value.op, ast.Add)]
        self.apply = (additions or assignments or [self.remask])[0]
        after = {
            n.id
            for n in ast.walk(tree)
            if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Load) and n.lineno > self.remask.end_lineno
        }
        written = [t for n in assignments for t in n.targets if isinstance(t, ast.Name) and t.id in after]
        if written:
            self.remasked = ast.copy_location(ast.Name(written[-1].id, ast.Load()), self.remask)


def _mask_builder(recording: Recording, update: Call) -> ast.stmt | None:
    """The statement in `_update_causal_mask` whose call made the mask, or returned `None` in its place."""

    def builds(call: Call) -> bool:
        made = call.result is None if update.result is None else getattr(call.result, "ndim", 0) == 4
        return made and call.position is not None and source.call_at(update.code, call.position) is not None

    builders = [c for c in recording.calls if c.parent is update and builds(c)]
    return source.statement_at(update.code, builders[-1].position) if builders else None


def _code(cls: type, method: str) -> CodeType:
    return inspect.unwrap(getattr(cls, method)).__code__


def _parent_code(cls: type, method: str) -> CodeType:
    owners = [c for c in cls.__mro__ if method in vars(c)]
    return inspect.unwrap(vars(owners[1])[method]).__code__


def _lines(node: ast.AST) -> tuple[int, int]:
    return node.lineno, node.end_lineno


def _mentions(node: ast.AST, name: str) -> bool:
    return any(getattr(n, "id", getattr(n, "attr", None)) == name for n in ast.walk(node))


def _takes_first(node: ast.AST, outputs: set[str]) -> bool:
    return (
        isinstance(node, ast.Assign)
        and isinstance(node.value, ast.Subscript)
        and isinstance(node.value.value, ast.Name)
        and node.value.value.id in outputs
        and isinstance(node.value.slice, ast.Constant)
        and node.value.slice.value == 0
    )


def _appends(node: ast.AST) -> bool:
    return (
        isinstance(node, ast.Expr)
        and isinstance(node.value, ast.Call)
        and isinstance(node.value.func, ast.Attribute)
        and node.value.func.attr == "append"
    )
