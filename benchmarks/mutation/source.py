"""Mutants of source: in one function one comparison, constant, operator, call or statement is another.

A mutated function is compiled and its code put in the place of the running one's, so that nothing has to be imported
anew. Signatures, decorators, annotations, assertions and what runs at import only stay as they are.
"""

import ast
import copy
import gc
import sys
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import CodeType, FunctionType
from typing import Any

from benchmarks.mutation.mutant import Mutant

_COMPARISONS: dict[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot, ast.IsNot: ast.Is, ast.In: ast.NotIn, ast.NotIn: ast.In,
}  # fmt: skip
_OPERATORS: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.BitAnd: ast.BitOr, ast.BitOr: ast.BitAnd, ast.Mult: ast.FloorDiv,
    ast.Div: ast.Mult, ast.FloorDiv: ast.Mult, ast.Mod: ast.Add,
}  # fmt: skip
_NAMES = {"max": "min", "amax": "amin", "maximum": "minimum", "any": "all", "logical_or": "logical_and"}
_LEFT = (ast.Assert, ast.Raise, ast.JoinedStr, ast.arguments)
_NAMES |= {new: old for old, new in _NAMES.items()}


@dataclass(frozen=True)
class Module:
    """A file of the running program: its functions, which may be broken, and the objects that run them."""

    path: Path
    root: Path

    @property
    def name(self) -> str:
        return str(self.path.relative_to(self.root))

    def functions(self) -> Iterator[tuple[str, ast.stmt]]:
        """Qualified name and definition of every function that stands at the top or in a class at the top."""
        for top in ast.parse(self.path.read_text()).body:
            if isinstance(top, ast.FunctionDef):
                yield top.name, top
            elif isinstance(top, ast.ClassDef):
                for each in top.body:
                    if isinstance(each, ast.FunctionDef):
                        yield (
                            f"{top.name}.{each.name}",
                            ast.ClassDef(
                                name=top.name,
                                bases=[],
                                keywords=[],
                                body=[each],
                                decorator_list=[],
                                lineno=1,
                                col_offset=0,
                            ),
                        )


def mutants(module: Module, family: str, apart: dict[str, str] | None = None) -> Iterator[Mutant]:
    """Of all functions of a module but those that are set `apart`."""
    count: dict[str, int] = defaultdict(int)
    for qualname, definition in module.functions():
        if qualname in (apart or {}):
            continue
        for number, (node, changes) in enumerate(_sites(definition)):
            for which, change in enumerate(changes):
                said = _said(node, change)
                count[qualname + said] += 1
                again = f" ({count[qualname + said]})" if count[qualname + said] > 1 else ""
                yield Mutant(
                    family,
                    "source",
                    f"{module.name} {qualname}",
                    said + again,
                    f"{module.name}:{_line(definition, node)}",
                    _replacing(module, qualname, definition, number, which),
                )


def _replacing(module: Module, qualname: str, definition: ast.stmt, number: int, which: int) -> Callable[[], None]:
    def apply() -> None:
        broken = copy.deepcopy(definition)
        node, changes = list(_sites(broken))[number]
        _Put(node, changes[which]()).visit(broken)
        run_instead(module, qualname, broken)

    return apply


def run_instead(module: Module, qualname: str, definition: ast.stmt) -> int:
    """Have the running program's functions of this name run the code of another definition; returns how many did.

    Raises:
        SyntaxError: the definition does not compile.
    """
    tree = ast.Module(body=[ast.fix_missing_locations(definition)], type_ignores=[])
    made = next(code for code in _codes(compile(tree, str(module.path), "exec")) if code.co_qualname == qualname)
    running = _running(str(module.root)).get((made.co_filename, qualname, made.co_firstlineno), [])
    for function in running:
        function.__code__ = made
    return len(running)


def warm(root: Path) -> None:
    """Look for the functions now, not in every fork."""
    _running(str(root))


@cache
def _running(root: str) -> dict[tuple[str, str, int], list[FunctionType]]:
    """The functions of the running program, by file, qualified name and first line."""
    found = defaultdict(list)
    for each in gc.get_objects():
        if type(each) is FunctionType and each.__code__.co_filename.startswith(root):
            code = each.__code__
            found[code.co_filename, code.co_qualname, code.co_firstlineno].append(each)
    return found


def _codes(code: CodeType) -> Iterator[CodeType]:
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield constant
            yield from _codes(constant)


def _sites(definition: ast.AST) -> Iterator[tuple[ast.AST, list[Callable[[], ast.AST | None]]]]:
    """The nodes that can be changed, in a fixed order, each with its changes; `None` drops a statement."""
    for node in _inner(definition):
        changes = list(_changes(node))
        if changes:
            yield node, changes


def _inner(node: ast.AST) -> Iterator[ast.AST]:
    """The nodes of bodies, without signatures, annotations, assertions and messages."""
    if isinstance(node, ast.Raise):
        yield node
    if isinstance(node, _LEFT) or (isinstance(node, ast.keyword) and node.arg == "strict"):
        return
    yield node
    for name, value in ast.iter_fields(node):
        if name in ("decorator_list", "annotation", "returns", "args") and not isinstance(node, ast.Call):
            continue
        for child in value if isinstance(value, list) else [value]:
            if isinstance(child, ast.AST):
                yield from _inner(child)


def _changes(node: ast.AST) -> Iterator[Callable[[], ast.AST | None]]:
    def like(**fields: Any) -> Callable[[], ast.AST]:
        def made() -> ast.AST:
            other = copy.copy(node)
            for name, value in fields.items():
                setattr(other, name, value)
            return other

        return made

    def drop() -> None:
        return None

    if isinstance(node, ast.Compare):
        for n, op in enumerate(node.ops):
            yield like(ops=[*node.ops[:n], _COMPARISONS[type(op)](), *node.ops[n + 1 :]])
    elif isinstance(node, ast.Constant):
        if isinstance(node.value, bool):
            yield like(value=not node.value)
        elif isinstance(node.value, int):
            yield like(value=node.value + 1)
        elif isinstance(node.value, float):
            yield like(value=2 * node.value or 1.0)
    elif isinstance(node, ast.BoolOp):
        yield like(op=ast.Or() if isinstance(node.op, ast.And) else ast.And())
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, (ast.Not, ast.Invert, ast.USub)):
        if not (isinstance(node.op, ast.USub) and isinstance(node.operand, ast.Constant)):
            yield lambda: node.operand
    elif isinstance(node, ast.BinOp) and type(node.op) in _OPERATORS:
        if not any(isinstance(side, (ast.JoinedStr, ast.List)) for side in (node.left, node.right)):
            yield like(op=_OPERATORS[type(node.op)]())
    elif isinstance(node, ast.Call):
        called = node.func
        if isinstance(called, ast.Name) and called.id in _NAMES:
            yield like(func=ast.Name(_NAMES[called.id], ast.Load()))
        elif isinstance(called, ast.Attribute) and called.attr in _NAMES:
            yield like(func=ast.Attribute(called.value, _NAMES[called.attr], ast.Load()))
    elif isinstance(node, (ast.If, ast.IfExp)) and isinstance(node.test, (ast.Name, ast.Attribute, ast.Call)):
        yield like(test=ast.UnaryOp(ast.Not(), node.test))
    elif (
        isinstance(node, (ast.AugAssign, ast.Raise))
        or (isinstance(node, ast.Expr) and isinstance(node.value, ast.Call))
        or (isinstance(node, ast.Assign) and isinstance(node.targets[0], (ast.Attribute, ast.Subscript)))
    ):
        yield drop


class _Put(ast.NodeTransformer):
    """One node in the place of another; for nothing, `pass`."""

    def __init__(self, old: ast.AST, new: ast.AST | None):
        self.old, self.new = old, new

    def visit(self, node: ast.AST) -> ast.AST:
        if node is not self.old:
            return self.generic_visit(node)
        return ast.copy_location(ast.Pass() if self.new is None else self.new, node)


def _said(node: ast.AST, change: Callable[[], ast.AST | None]) -> str:
    new = change()
    old = ast.unparse(node)
    if new is None:
        return f"without `{_short(old)}`"
    if isinstance(node, (ast.If, ast.IfExp)):
        return f"`if {_short(ast.unparse(node.test))}` turned round"
    return f"`{_short(old)}` is `{_short(ast.unparse(ast.fix_missing_locations(ast.copy_location(new, node))))}`"


def _short(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= 90 else line[:87] + "..."


def _line(definition: ast.AST, node: ast.AST) -> int:
    """The first line of the innermost statement that the node stands in."""
    found = 0
    for each in ast.walk(definition):
        if isinstance(each, ast.stmt) and not isinstance(each, ast.ClassDef):
            own = list(_header(each))
            if each is node or any(inner is node for inner in own):
                found = each.lineno
    return found


def _header(statement: ast.stmt) -> Iterator[ast.AST]:
    """The expressions of a statement itself, not those of statements inside it."""
    for child in ast.iter_child_nodes(statement):
        if not isinstance(child, ast.stmt):
            yield from (each for each in ast.walk(child) if not isinstance(each, ast.stmt))


class Statements:
    """While it is active, statements of the modules that run are noted: `ran()` names those since the last call."""

    def __init__(self, modules: list[Module]):
        self.modules = modules
        self._names: list[str] = []
        self._hits = bytearray()

    def __enter__(self) -> "Statements":
        for module in self.modules:
            for qualname, definition in module.functions():
                _Noting(self._names, module.name).visit(definition)
                run_instead(module, qualname, definition)
        self._hits = bytearray(len(self._names))
        for loaded in list(sys.modules.values()):
            if getattr(loaded, "__file__", None) in {str(module.path) for module in self.modules}:
                loaded.__dict__["_statements_that_ran"] = self._hits
        return self

    def __exit__(self, *_: object) -> None:
        for module in self.modules:
            for qualname, definition in module.functions():
                run_instead(module, qualname, definition)

    def ran(self) -> set[str]:
        found = {name for name, hit in zip(self._names, self._hits, strict=True) if hit}
        self._hits[:] = bytes(len(self._hits))
        return found


class _Noting(ast.NodeTransformer):
    """Before each statement of a body: a note that it runs."""

    def __init__(self, names: list[str], module: str):
        self.names, self.module = names, module

    def visit(self, node: ast.AST) -> ast.AST:
        self.generic_visit(node)
        if isinstance(node, ast.ClassDef) or not isinstance(node, (ast.stmt, ast.ExceptHandler)):
            return node
        for name in ("body", "orelse", "finalbody"):
            body = getattr(node, name, None)
            if body:
                setattr(node, name, [new for statement in body for new in self._noted(statement)])
        return node

    def _noted(self, statement: ast.stmt) -> list[ast.stmt]:
        if isinstance(statement, ast.Nonlocal) or (
            isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant)
        ):
            return [statement]
        self.names.append(f"{self.module}:{statement.lineno}")
        note = ast.parse(f"_statements_that_ran[{len(self.names) - 1}] = 1").body[0]
        for node in ast.walk(note):
            ast.copy_location(node, statement)
        return [note, statement]
