"""Source locations of running code: file, lines, text; never written down, always looked up."""

import ast
import linecache
from functools import cache
from pathlib import Path
from types import CodeType

from leakcheck.checkpoints.recorder import Position
from leakcheck.findings import Excerpt, Location


def syntax_of(code: CodeType) -> ast.FunctionDef | None:
    """The syntax tree of the function that `code` belongs to; `None` when its source cannot be read."""
    filename = code.co_filename
    linecache.checkcache(filename)  # the file may have been edited and imported again
    linecache.getlines(filename)
    version = linecache.cache.get(filename, (0, None))[:2]  # size and time
    return _function(filename, version, code.co_name, code.co_firstlineno)


@cache
def _function(filename: str, version: tuple, name: str, first_line: int) -> ast.FunctionDef | None:
    """The function that begins, decorators included, at a line of one version of a file."""
    tree = _file(filename, version)
    for node in ast.walk(tree) if tree else ():
        if isinstance(node, ast.FunctionDef) and node.name == name and _first_line(node) == first_line:
            return node
    return None


def _first_line(function: ast.FunctionDef) -> int:
    return min([function.lineno, *(decorator.lineno for decorator in function.decorator_list)])


@cache
def _file(filename: str, version: tuple) -> ast.Module | None:
    try:
        return ast.parse("".join(linecache.getlines(filename)))
    except SyntaxError:
        return None


def lines_of(node: ast.stmt | ast.expr) -> tuple[int, int]:
    """First and last line, 1-based."""
    return node.lineno, node.end_lineno or node.lineno


def position_of(node: ast.stmt | ast.expr) -> Position:
    """Where a node stands, in the form in which the recorder tells where a frame is."""
    first, last = lines_of(node)
    return first, last, node.col_offset, node.end_col_offset or 0


def statement_at(code: CodeType, position: Position | None) -> ast.stmt | None:
    """The innermost statement of `code`'s function that contains `position`."""
    function = syntax_of(code)
    return None if function is None or position is None else _statement(function, position)


@cache
def _statement(function: ast.FunctionDef, position: Position) -> ast.stmt | None:
    best: ast.stmt | None = None
    for node in ast.walk(function):
        if not isinstance(node, ast.stmt) or node is function:
            continue
        first, last, column, end = position_of(node)
        starts_before = (first, column) <= (position[0], position[2])
        ends_after = (last, end) >= (position[1], position[3])
        if starts_before and ends_after and (best is None or node.lineno >= best.lineno):
            best = node
    return best


def call_at(code: CodeType, position: Position | None) -> ast.Call | None:
    """The call expression that is exactly at `position`."""
    function = syntax_of(code)
    return None if function is None or position is None else _call(function, position)


@cache
def _call(function: ast.FunctionDef, position: Position) -> ast.Call | None:
    for node in ast.walk(function):
        if isinstance(node, ast.Call) and position_of(node) == position:
            return node
    return None


def locate(code: CodeType, node: ast.stmt | None = None, *, lines: tuple[int, int] | None = None) -> Location:
    """The location of a statement (or of given lines) in `code`'s function; of its `def` when neither is given.

    Of a compound statement the text is the header: its body has statements of its own.
    """
    if node is None and lines is None:
        node = syntax_of(code)
    if node is None:
        lines = lines or (code.co_firstlineno, code.co_firstlineno)
        shown = lines[1]
    else:
        lines = lines_of(node)
        header = {ast.If: "test", ast.While: "test", ast.For: "iter"}.get(type(node))
        shown = lines_of(getattr(node, header))[1] if header else lines[1]
        if isinstance(node, ast.FunctionDef):
            shown = lines[0]
    text = text_of(code, lines[0], shown)
    return Location(qualified_name(code), short_path(code.co_filename), lines, text)


_AROUND = 3  # lines of an excerpt before and after its region
_LONGEST = 12  # lines of a region


def excerpt(file: str, line: int) -> Excerpt:
    """The source around a line of a file, by its path or by what `short_path` made of it.

    Marked is the line; all of the statement, as far as it has no body of its own, where it begins there.
    """
    filename = _SHORTENED.get(file, file)
    linecache.checkcache(filename)
    text = [one.rstrip("\n") for one in linecache.getlines(filename)]
    if not 0 < line <= len(text):
        return Excerpt(short_path(filename), (line, 1, line, 1), line, ())
    last = min(_end_of_statement(filename, line), line + _LONGEST - 1, len(text))
    first = max(1, line - _AROUND)
    marked, end = text[line - 1], text[last - 1]
    column = len(marked) - len(marked.lstrip()) + 1
    region = (line, column, last, len(end) + 1)
    return Excerpt(short_path(filename), region, first, tuple(text[first - 1 : last + _AROUND]))


def _end_of_statement(filename: str, line: int) -> int:
    """The last line of the statement that begins at `line`, without its body; `line` where none does."""
    version = linecache.cache.get(filename, (0, None))[:2]
    return _ends(filename, version).get(line, line)


@cache
def _ends(filename: str, version: tuple) -> dict[int, int]:
    """The last line of each statement of a file, by its first."""
    ends: dict[int, int] = {}
    tree = _file(filename, version)
    for node in ast.walk(tree) if tree else ():
        if isinstance(node, ast.stmt):
            body = getattr(node, "body", None)
            last = lines_of(node)[1]
            ends.setdefault(node.lineno, max(node.lineno, min(last, body[0].lineno - 1)) if body else last)
    return ends


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
    short = path
    if "site-packages" in path.parts:
        short = Path(*path.parts[path.parts.index("site-packages") + 1 :])
    elif path.is_relative_to(Path.cwd()):
        short = path.relative_to(Path.cwd())
    else:
        root = path.parent
        while (root / "__init__.py").exists():
            root = root.parent
        short = path if root == path.parent else path.relative_to(root)
    if path.is_absolute():
        _SHORTENED[short.as_posix()] = filename
    return short.as_posix()


_SHORTENED: dict[str, str] = {}  # the files that short paths stand for
