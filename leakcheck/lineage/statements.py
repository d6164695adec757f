"""The statements around a hand-over: what decides whether it happens, and what takes up what it returned."""

import ast
from collections.abc import Callable
from functools import cache
from types import CodeType

from leakcheck.checkpoints import source

_LOOPS = (ast.For, ast.While)


def deciding(code: CodeType, statement: ast.stmt | None) -> tuple[ast.stmt, ...]:
    """The loops and branches of the function that `statement` stands in, the outermost first."""
    return tuple(s for s in _around(code, statement) if isinstance(s, (*_LOOPS, ast.If)) and s is not statement)


def taking_up(code: CodeType, statement: ast.stmt | None, hands_on: Callable[[ast.stmt], bool]) -> tuple[ast.stmt, ...]:
    """The statements of the same turn of a loop that pass on what `statement` assigns.

    They follow it in its own block or in a block around it, so that they ran if it did. Only inside a loop: there the
    next turn starts from them. Not those of which `hands_on` is true, nor what comes out of these.
    """
    around = _around(code, statement)
    loop = next((s for s in reversed(around) if isinstance(s, _LOOPS) and s is not statement), None)
    if loop is None:
        return ()
    names = _assigned(statement)
    found = []
    for inner in reversed(around[around.index(loop) + 1 :]):
        for following in _after(inner, around[around.index(inner) - 1]):
            compound = isinstance(following, (*_LOOPS, ast.If, ast.With, ast.Try))
            if names & _read(following) and not compound and not hands_on(following):
                names |= _assigned(following)
                found.append(following)
    return tuple(found)


def asking(code: CodeType, parameter: str, before: int) -> tuple[ast.If, ...]:
    """The branches of a function whose test reads a parameter; only those that any call that gets to `before` runs."""
    function = source.syntax_of(code)
    body = function.body if function else []
    names = {parameter}
    return tuple(s for s in body if isinstance(s, ast.If) and s.lineno < before and names & _read(ast.Expr(s.test)))


def sources_of(code: CodeType, statement: ast.stmt | None, expression: ast.expr | None) -> tuple[ast.stmt, ...]:
    """The statements of the function that assign a name which `expression` reads, the last first."""
    function = source.syntax_of(code)
    if function is None or statement is None or expression is None:
        return ()
    wanted = {n.id for n in ast.walk(expression) if isinstance(n, ast.Name)}
    assigning = [s for s in ast.walk(function) if isinstance(s, ast.stmt) and _assigned(s) & wanted]
    return tuple(sorted(assigning, key=lambda s: -s.lineno))


def _around(code: CodeType, statement: ast.stmt | None) -> list[ast.stmt]:
    """The statements that enclose one, itself included, the outermost first."""
    function = source.syntax_of(code)
    return [] if function is None or statement is None else _enclosing(function, statement)


@cache
def _enclosing(function: ast.FunctionDef, statement: ast.stmt) -> list[ast.stmt]:
    outer_first = (n for n in ast.walk(function) if isinstance(n, ast.stmt) and n is not function)
    return [s for s in outer_first if any(inner is statement for inner in ast.walk(s))]


def _after(statement: ast.stmt, parent: ast.stmt) -> list[ast.stmt]:
    """What follows `statement` in the block of `parent` that it belongs to."""
    for name in ("body", "orelse", "finalbody"):
        block = getattr(parent, name, [])
        if statement in block:
            return block[block.index(statement) + 1 :]
    return []


def _assigned(statement: ast.stmt | None) -> set[str]:
    match statement:
        case ast.Assign(targets=targets):
            nodes: list[ast.expr] = targets
        case ast.AnnAssign(target=target) | ast.AugAssign(target=target):
            nodes = [target]
        case _:
            return set()
    return {n.id for node in nodes for n in ast.walk(node) if isinstance(n, ast.Name)}


def _read(statement: ast.stmt) -> set[str]:
    return {n.id for n in ast.walk(statement) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Load)}
