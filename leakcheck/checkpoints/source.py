"""Source locations of running code: file, lines, text; never written down, always looked up."""

import ast
import inspect
import linecache
import textwrap
from functools import cache
from pathlib import Path
from types import CodeType

from leakcheck.checkpoints.recorder import Position
from leakcheck.findings import Location


@cache
def syntax_of(code: CodeType) -> ast.AST | None:
    """The syntax tree of the function that `code` belongs to, with the file's line numbers and columns.

    `None` when its source cannot be read (a function made by `exec`, a file that changed).
    """
    try:
        lines, first = inspect.getsourcelines(code)
    except (OSError, TypeError):
        return None
    text = "".join(lines)
    indent = len(lines[0]) - len(lines[0].lstrip())
    try:
        tree = ast.parse(textwrap.dedent(text))
    except SyntaxError:
        return None
    for node in ast.walk(tree):
        if hasattr(node, "lineno"):
            node.lineno += first - 1
            node.end_lineno += first - 1
            node.col_offset += indent
            node.end_col_offset += indent
    return tree


def statement_at(code: CodeType, position: Position) -> ast.stmt | None:
    """The innermost statement that contains `position`."""
    return _innermost(code, position, ast.stmt)


def call_at(code: CodeType, position: Position) -> ast.Call | None:
    """The call expression that is exactly at `position`."""
    tree = syntax_of(code)
    for node in ast.walk(tree) if tree else ():
        if isinstance(node, ast.Call) and _range(node) == position:
            return node
    return None


def _innermost(code: CodeType, position: Position, kind: type) -> ast.stmt | None:
    best = None
    tree = syntax_of(code)
    for node in ast.walk(tree) if tree else ():
        if not isinstance(node, kind) or isinstance(node, ast.FunctionDef):
            continue
        first, last, column, end = _range(node)
        starts_before = (first, column) <= (position[0], position[2])
        ends_after = (last, end) >= (position[1], position[3])
        if starts_before and ends_after and (best is None or _range(best)[:1] <= (first,)):
            best = node
    return best


def _range(node: ast.AST) -> Position:
    return node.lineno, node.end_lineno, node.col_offset, node.end_col_offset


def locate(code: CodeType, node: ast.AST | None = None, *, lines: tuple[int, int] | None = None) -> Location:
    """The location of a node (or of given lines) in `code`'s function; of its `def` when neither is given."""
    if node is not None:
        lines = (node.lineno, node.end_lineno)
        if isinstance(node, (ast.If, ast.For)):  # the header says what it does; the body has stages of its own
            header_end = (node.test if isinstance(node, ast.If) else node.iter).end_lineno
            return Location(
                qualified_name(code), short_path(code.co_filename), lines, text_of(code, lines[0], header_end)
            )
    elif lines is None:
        first = code.co_firstlineno
        tree = syntax_of(code)
        definition = tree.body[0] if tree else None
        if definition is not None:
            first = definition.lineno
        return Location(
            qualified_name(code),
            short_path(code.co_filename),
            (first, definition.end_lineno if definition is not None else first),
            text_of(code, first, first),
        )
    return Location(qualified_name(code), short_path(code.co_filename), lines, text_of(code, *lines))


def text_of(code: CodeType, first: int, last: int) -> str:
    """The source of some lines on one line, white space collapsed."""
    lines = (linecache.getline(code.co_filename, number) for number in range(first, last + 1))
    return " ".join(" ".join(lines).split())


def qualified_name(code: CodeType) -> str:
    return code.co_qualname.replace(".<locals>", "")


def short_path(filename: str) -> str:
    """A path that reads the same on every machine.

    Below `site-packages` for an installed library, relative to the working directory for the user's own files, below
    the import root for a package elsewhere, absolute for anything else.
    """
    path = Path(filename)
    if "site-packages" in path.parts:
        return Path(*path.parts[path.parts.index("site-packages") + 1 :]).as_posix()
    if path.is_relative_to(Path.cwd()):
        return path.relative_to(Path.cwd()).as_posix()
    root = path.parent
    while (root / "__init__.py").exists():
        root = root.parent
    return path.as_posix() if root == path.parent else path.relative_to(root).as_posix()
