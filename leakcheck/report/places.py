"""Where the files of a document are: in the repository, in an installed package, or somewhere else on the machine."""

import os
import sys
from enum import Enum
from pathlib import Path, PurePosixPath
from urllib.parse import quote

_INSTALLED = ("site-packages", "dist-packages")


class Base(Enum):
    """What a path is relative to."""

    REPOSITORY = "%SRCROOT%"
    INSTALLED = "SITE_PACKAGES"
    MACHINE = ""


def place_of(file: str) -> tuple[Base, str]:
    """What a file of the document is relative to, and its path from there.

    The audit names files of installed packages as it does the user's own, relative to where they were found. So the
    disk has to tell them apart; a file that it does not know is taken for the user's.
    """
    parts = PurePosixPath(file).parts
    for name in _INSTALLED:
        if name in parts:
            return Base.INSTALLED, "/".join(parts[parts.index(name) + 1 :])
    path = Path.cwd() / file
    root = Path(os.environ.get("GITHUB_WORKSPACE", "/nowhere"))  # of the repository, where a job runs below it
    for folder in (root, Path.cwd()):
        if path.is_relative_to(folder) and _exists(path):
            return Base.REPOSITORY, path.relative_to(folder).as_posix()
    if path == Path(file):
        return Base.MACHINE, path.as_posix()
    if any(_exists(Path(entry) / file) for entry in sys.path if entry.endswith(_INSTALLED)):
        return Base.INSTALLED, file
    return Base.REPOSITORY, file


def file_of(spec: str) -> str | None:
    """The file that a SPEC names, if it does."""
    file = spec.rpartition(":")[0] if ".py:" in spec else spec
    if file.endswith((".py", ".json", ".pt2", ".gguf")):
        return file
    return f"{file}/config.json" if _exists(Path(file) / "config.json") else None


def uri(path: str) -> str:
    """A path as a URI, relative if it is; bytes that are no UTF-8 are those of the file's name."""
    try:
        data = path.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:  # no name of a file: half of a character outside of the basic plane
        data = path.encode("utf-8", "backslashreplace")
    return ("file://" if path.startswith("/") else "") + quote(data)


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except (OSError, ValueError):  # a name that no file can have
        return False
