"""Report formats by the ending of a file's name, and the one way in which a report reaches the disk."""

import os
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from leakcheck.errors import LeakcheckError, UsageError
from leakcheck.findings import AuditResult

Renderer = Callable[[AuditResult], str]

RENDERERS: dict[str, Renderer] = {}


def renders(*suffixes: str) -> Callable[[Renderer], Renderer]:
    """Register the decorated function as the format of files that end in one of `suffixes`; the longest one wins."""

    def register(renderer: Renderer) -> Renderer:
        for suffix in suffixes:
            if suffix in RENDERERS:
                raise ValueError(f"report format {suffix} is registered twice")
            RENDERERS[suffix] = renderer
        return renderer

    return register


def check_writable(path: str | Path) -> None:
    """Find out before the audit, not after it, that its report cannot be written.

    Raises:
        UsageError: the suffix is unknown, or no file can be made in the folder.
    """
    path = Path(path)
    _renderer(path)
    if path.is_dir():
        raise UsageError(f"cannot write report {str(path)!r}: it is a folder; name a file in it")
    try:
        # Permission bits do not tell: root passes them, and a read-only file system has them set. So make a file.
        with _temporary_beside(path):
            pass
    except OSError as error:
        raise UsageError(
            f"cannot write report {str(path)!r}: no file can be made in folder {str(path.parent)!r} "
            f"({error.strerror}); name a folder that exists and is writable"
        ) from error


def write(result: AuditResult, path: str | Path) -> None:
    """Render `result` in the format that the suffix names, and put it at `path` whole or not at all."""
    put(_renderer(Path(path))(result), path)


def put(content: str | bytes, path: str | Path) -> None:
    """Write a file whole or not at all.

    Raises:
        LeakcheckError: it cannot be written.
    """
    path = Path(path)
    try:
        with _temporary_beside(path) as file:
            # A file name that is not UTF-8 holds lone surrogates; as \udcxx they are valid JSON and readable text.
            file.write(content if isinstance(content, bytes) else content.encode("utf-8", "backslashreplace"))
            file.close()
            os.replace(file.name, path)
    except OSError as error:
        raise LeakcheckError(f"cannot write report {str(path)!r}: {error.strerror}") from error


def _renderer(path: Path) -> Renderer:
    name = path.name.lower()
    suffixes = [suffix for suffix in RENDERERS if name.endswith(suffix)]
    if not suffixes:
        known = ", ".join(sorted(RENDERERS))
        raise UsageError(f"no report format for {str(path)!r}: the suffix picks it, one of {known}")
    return RENDERERS[max(suffixes, key=len)]


@contextmanager
def _temporary_beside(path: Path) -> Iterator[BinaryIO]:
    """A new file in the folder of `path`, gone afterwards unless it was renamed.

    Not `tempfile`: its files are private to the user, and the report would stay so.
    """
    temporary = path.parent / f".leakcheck-{secrets.token_hex(8)}.tmp"
    with temporary.open("xb") as file:
        try:
            yield file
        finally:
            temporary.unlink(missing_ok=True)
