"""A progress bar on standard error for whatever takes longer than two seconds."""

import time

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

_PATIENCE = 2.0  # seconds


class Bar:
    """Appears after two seconds, goes without a trace; nothing at all when standard error is not a terminal."""

    def __init__(self) -> None:
        self._started = time.monotonic()
        self._console = Console(stderr=True)
        self._progress: Progress | None = None
        self._task = TaskID(0)

    def __enter__(self) -> "Bar":
        return self

    def __exit__(self, *exception: object) -> None:
        if self._progress is not None:
            self._progress.stop()

    def step(self, done: int, total: int, what: str) -> None:
        if self._progress is None:
            if not self._console.is_terminal or time.monotonic() - self._started < _PATIENCE:
                return
            columns = (TextColumn("auditing"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
            self._progress = Progress(*columns, TextColumn("{task.description}"), console=self._console, transient=True)
            self._task = self._progress.add_task(what, total=total)
            self._progress.start()
        self._progress.update(self._task, completed=done, total=total, description=what)
