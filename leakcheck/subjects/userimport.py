"""Imports of the user's code: a file as part of its package, a file on its own, a module by name."""

import ast
import hashlib
import importlib
import importlib.util
import sys
import sysconfig
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

from leakcheck.errors import UsageError
from leakcheck.subjects.refusal import one_line

# What was imported from each folder. Two folders may both have a `helper.py`: while one of them is in use, the other's
# module of that name is put aside; it comes back unchanged when its folder is used again.
_MODULES: dict[Path, dict[str, ModuleType]] = {}

_INSTALLED = {Path(sysconfig.get_path(name)).resolve() for name in ("stdlib", "purelib", "platlib")}


@contextmanager
def imported_file(path: Path) -> Iterator[ModuleType]:
    """The module in a file; inside the context its imports are found, also those that a factory makes late.

    A file inside a package is imported under its dotted name, so that relative imports work. A file with relative
    imports in a folder without `__init__.py` is given a package of its own.

    Raises:
        UsageError: the file is not valid Python, or importing it raised.
    """
    path = path.resolve()
    package = _enclosing_package(path)
    root = path.parents[len(package)]
    with _imports_from(root):
        try:
            depth = _relative_import_depth(path)
            if depth > len(package):
                top = path.parents[depth - 1]
                module = _import_in_package(".".join([_own_package(top), *path.parent.relative_to(top).parts]), path)
            elif package:
                _refuse_shadowed(package[0], root, path)
                module = _import_in_package(".".join(package), path)
            else:
                module = _import_alone(_unique_name(path), path)
        except UsageError:
            raise
        except (Exception, SystemExit) as error:
            raise UsageError(_import_failure(path, root, error)) from error
        yield module


def home(path: Path) -> tuple[str, str]:
    """The folder below which a file is imported, relative to the working folder if it is in it; and the dotted name."""
    path = path.resolve()
    package = _enclosing_package(path)
    root = path.parents[len(package)]
    shown = root.relative_to(Path.cwd()) if root.is_relative_to(Path.cwd()) else root
    return str(shown), ".".join([*package, *(() if path.stem == "__init__" else (path.stem,))])


@contextmanager
def imported_module(name: str) -> Iterator[ModuleType]:
    """The module of a dotted name, looked for in the current folder first.

    Raises:
        UsageError: there is none, or importing it raised.
    """
    root = Path.cwd()
    with _imports_from(root):
        try:
            module = importlib.import_module(name)
        except (Exception, SystemExit) as error:
            raise UsageError(_import_failure(Path(name), root, error)) from error
        yield module


@contextmanager
def _imports_from(root: Path) -> Iterator[None]:
    for other in _MODULES.keys() - {root}:
        for name, module in _MODULES[other].items():
            if sys.modules.get(name) is module and _can_come_from(root, name):
                del sys.modules[name]
    own = _MODULES.setdefault(root, {})
    sys.modules.update(own)
    before = {name.partition(".")[0] for name in sys.modules.keys() - own.keys()}
    write_bytecode, sys.dont_write_bytecode = sys.dont_write_bytecode, True  # leave no trace in the user's folders
    sys.path.insert(0, str(root))
    importlib.invalidate_caches()
    try:
        yield
    finally:
        sys.dont_write_bytecode = write_bytecode
        if str(root) in sys.path:
            sys.path.remove(str(root))
        own |= {
            name: module
            for name, module in sys.modules.items()
            if name.partition(".")[0] not in before and _can_come_from(root, name)
        }


def _can_come_from(root: Path, name: str) -> bool:
    """Whether `root` has a module of this name. Never one of libraries: some of them cannot be imported twice."""
    top = name.partition(".")[0]
    return root not in _INSTALLED and ((root / top).is_dir() or (root / f"{top}.py").is_file())


def _enclosing_package(path: Path) -> list[str]:
    """The names of the packages around a file, outermost first: its folders up to the last with an `__init__.py`."""
    names: list[str] = []
    folder = path.parent
    while (folder / "__init__.py").is_file():
        names.insert(0, folder.name)
        folder = folder.parent
    return names


def _relative_import_depth(path: Path) -> int:
    """How many folders up a file's relative imports reach: 1 for `from . import x`; 0 without any."""
    tree = ast.parse(path.read_bytes(), filename=str(path))
    levels = [node.level for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    return min(max(levels, default=0), len(path.parents))


def _own_package(folder: Path) -> str:
    """A package made of a folder that is none, whatever characters its name has."""
    name = _unique_name(folder)
    if name not in sys.modules:
        package = ModuleType(name)
        package.__path__ = [str(folder)]
        sys.modules[name] = package
    return name


def _unique_name(path: Path) -> str:
    return f"leakcheck_subject_{hashlib.sha256(str(path).encode()).hexdigest()[:12]}"


def _refuse_shadowed(top: str, root: Path, path: Path) -> None:
    present = sys.modules.get(top)
    folders = [Path(folder).resolve() for folder in getattr(present, "__path__", [])]
    if present is not None and root / top not in folders:
        raise UsageError(f"{path}: its package {top!r} has the name of one that is already imported; rename it")


def _import_in_package(package: str, path: Path) -> ModuleType:
    importlib.import_module(package)
    if path.name == "__init__.py":
        return sys.modules[package]
    return _import_alone(f"{package}.{path.stem}", path)


def _import_alone(name: str, path: Path) -> ModuleType:
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise UsageError(f"{path}: not a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def _import_failure(path: Path, root: Path, error: BaseException) -> str:
    """One line that says where in the user's own code the import failed."""
    if isinstance(error, SyntaxError) and error.filename:
        return f"{error.filename}:{error.lineno}: {error.msg}"
    frames = traceback.extract_tb(error.__traceback__)
    lines = [frame for frame in frames if _is_users(Path(frame.filename), root)]
    where = f"{lines[-1].filename}:{lines[-1].lineno}" if lines else str(path)
    return f"{where}: importing {path.name} raised {one_line(error)}"


def _is_users(file: Path, root: Path) -> bool:
    return file.is_relative_to(root) and not any(file.is_relative_to(folder) for folder in _INSTALLED)
