"""The single statements of Method1_v3's trace, found by what they do in the syntax tree, never by line."""

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from types import CodeType

from leakcheck.checkpoints import source


@dataclass(frozen=True, eq=False)
class Statements:
    """`None` stands for a statement that the code does not have."""

    loop: ast.For | None = None  # for ... in ...layers
    branch: ast.If | None = None  # the `if` whose body calls the replay
    take: ast.Assign | None = None  # hidden_states = layer_outputs[0]
    taken: ast.expr | None = None  # hidden_states
    store: ast.Expr | None = None  # stored_weights.append(current_weights)
    stored: ast.expr | None = None  # current_weights
    remask: ast.If | None = None  # if apply_strict_causal_mask ...
    length_check: ast.If | None = None  # the first `if` inside it
    apply: ast.stmt | None = None  # the statement inside it that adds the mask
    remasked: ast.Name | None = None  # the weights that the method goes on with


def find_statements(forward: CodeType, precomputed: CodeType) -> Statements:
    """Look through the model's forward and `forward_with_precomputed_weights`."""
    return Statements(**_in_forward(source.syntax_of(forward)), **_in_precomputed(source.syntax_of(precomputed)))


def _in_forward(function: ast.FunctionDef | None) -> dict:
    loop = next((n for n in _walk(function) if isinstance(n, ast.For) and _mentions(n.iter, "layers")), None)
    branch = next((n for n in _walk(loop) if isinstance(n, ast.If) and _replays(n)), None)
    take = next((n for n in _walk(loop) if isinstance(n, ast.Assign) and _takes_first(n, _layer_outputs(loop))), None)
    found: dict[str, ast.AST | None] = {"loop": loop, "branch": branch, "take": take}
    if take is not None and isinstance(take.targets[0], ast.Name):
        found["taken"] = _load(take.targets[0].id)
    for node in _walk(loop):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Call) and _appends_record(node.value):
            found |= {"store": node, "stored": node.value.args[0]}
            break
    return found


def _in_precomputed(function: ast.FunctionDef | None) -> dict:
    conditions = [n for n in _walk(function) if isinstance(n, ast.If)]
    remask = next((n for n in conditions if _mentions(n.test, "apply_strict_causal_mask")), None)
    if remask is None:
        return {}
    inside = [n for statement in remask.body for n in _walk(statement)]
    assignments = [n for n in inside if isinstance(n, ast.Assign)]
    additions = [n for n in assignments if isinstance(n.value, ast.BinOp) and isinstance(n.value.op, ast.Add)]
    _, last = source.lines_of(remask)
    read_later = {
        n.id for n in _walk(function) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Load) and n.lineno > last
    }
    written = [t.id for n in assignments for t in n.targets if isinstance(t, ast.Name) and t.id in read_later]
    return {
        "remask": remask,
        "length_check": next((n for n in inside if isinstance(n, ast.If)), None),
        "apply": next(iter(additions or assignments), None),
        "remasked": _load(written[-1]) if written else None,
    }


def _layer_outputs(loop: ast.For | None) -> set[str]:
    """Names that are assigned what a call with the loop's own variables returned."""
    if loop is None:
        return set()
    variables = [n.id for n in _walk(loop.target) if isinstance(n, ast.Name)]
    return {
        target.id
        for n in _walk(loop)
        if isinstance(n, ast.Assign) and isinstance(n.value, ast.Call)
        for target in n.targets
        if isinstance(target, ast.Name) and any(_mentions(n.value, name) for name in variables)
    }


def _replays(branch: ast.If) -> bool:
    return any(_mentions(statement, "_recompute_previous_mlp_outputs") for statement in branch.body)


def _takes_first(node: ast.Assign, outputs: set[str]) -> bool:
    return any(
        isinstance(n, ast.Subscript)
        and isinstance(n.value, ast.Name)
        and n.value.id in outputs
        and isinstance(n.slice, ast.Constant)
        and n.slice.value == 0
        for n in _walk(node.value)
    )


def _appends_record(call: ast.Call) -> bool:
    function = call.func
    return isinstance(function, ast.Attribute) and function.attr == "append" and _mentions(function, "stored_weights")


def _mentions(node: ast.AST, name: str) -> bool:
    return any(getattr(n, "id", getattr(n, "attr", None)) == name for n in ast.walk(node))


def _walk(node: ast.AST | None) -> Iterator[ast.AST]:
    return ast.walk(node) if node is not None else iter(())


def _load(name: str) -> ast.Name:
    return ast.Name(name, ast.Load())
