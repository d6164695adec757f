"""Watch one forward pass: calls, their arguments and results, and the locals around chosen statements.

Built on `sys.settrace`, so nothing in the subject is patched and the line numbers are those of the running code.
"""

import inspect
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from itertools import islice
from types import CellType, CodeType, FrameType, FunctionType
from typing import Any

from torch.utils import _pytree as pytree

Position = tuple[int, int, int, int]  # first line, last line, first column, end column; lines are 1-based


@dataclass(eq=False)
class Call:
    """One call of a watched function.

    `arguments` are bound by name and their containers copied, so that later mutation does not reach them. `parent` is
    the nearest enclosing watched call and `position` the call expression in the parent's source. `span` orders calls:
    one encloses another when its span does.
    """

    code: CodeType
    arguments: dict[str, Any]
    parent: "Call | None"
    position: Position | None
    function: FunctionType
    result: Any = None
    return_line: int | None = None
    span: tuple[int, int] = (0, 0)

    @property
    def receiver(self) -> Any:
        """The first argument: of a method, the object that it is called on, whatever it is named."""
        return self.arguments[self.code.co_varnames[0]] if self.code.co_argcount else None

    def run(self, arguments: Mapping[str, Any]) -> Any:
        """Call the same function again with other arguments."""
        code = self.code
        positional = code.co_varnames[: code.co_argcount]
        keyword_only = code.co_varnames[code.co_argcount : code.co_argcount + code.co_kwonlyargcount]
        args = [arguments[name] for name in positional]
        kwargs = {name: arguments[name] for name in keyword_only}
        rest = code.co_varnames[code.co_argcount + code.co_kwonlyargcount :]
        if code.co_flags & 0x04:  # *args
            args.extend(arguments[rest[0]])
            rest = rest[1:]
        if code.co_flags & 0x08:  # **kwargs
            kwargs.update(arguments[rest[0]])
        return self.function(*args, **kwargs)


@dataclass(eq=False)
class Visit:
    """One run of a watched range of lines: the locals before it and after it."""

    lines: tuple[int, int]
    call: Call
    before: dict[str, Any]
    after: dict[str, Any] = field(default_factory=dict)
    executed: set[int] = field(default_factory=set)
    span: tuple[int, int] = (0, 0)


@dataclass
class Recording:
    """All that was watched in one forward, in order of entry; `visits` by code object.

    `clock` is the time in which spans are told: it ticks whenever a call or a visit begins or ends.
    """

    calls: list[Call] = field(default_factory=list)
    visits: dict[CodeType, list[Visit]] = field(default_factory=dict)
    clock: int = 0

    def of(self, code: CodeType) -> list[Call]:
        return [call for call in self.calls if call.code is code]


def record(
    run: Callable[[], Any],
    *,
    codes: Iterable[CodeType],
    callees_of: Iterable[CodeType] = (),
    everything_below: Iterable[CodeType] = (),
    wrappers: Iterable[CodeType] = (),
    ranges: Mapping[CodeType, Iterable[tuple[int, int]]] | None = None,
    into: Recording | None = None,
) -> tuple[Any, Recording]:
    """Run `run` and record the calls of `codes`.

    Functions that are called directly by one of `callees_of`, or anywhere below one of `everything_below`, are
    recorded too, except `wrappers`. `ranges` gives, by code object, the first and last lines of statements whose locals
    are kept. `into` is for whoever needs the recording's clock while the forward runs.

    Returns:
        what `run` returned, and the recording.
    """
    watched = set(codes)
    parents = set(callees_of)
    deep = set(everything_below)
    passed_through = set(wrappers)
    line_ranges = {code: tuple(spans) for code, spans in (ranges or {}).items()}
    recording = into or Recording()
    open_calls: dict[int, Call] = {}  # by id of the live frame
    open_deep = 0  # how many calls of `everything_below` are running

    def tick() -> int:
        recording.clock += 1
        return recording.clock

    def enclosing(frame: FrameType) -> tuple[Call | None, FrameType | None]:
        outer = frame.f_back
        while outer is not None:
            if id(outer) in open_calls:
                return open_calls[id(outer)], outer
            outer = outer.f_back
        return None, None

    def on_call(frame: FrameType, event: str, arg: Any):
        nonlocal open_deep
        code = frame.f_code
        if code not in watched:
            if not open_deep and (frame.f_back is None or frame.f_back.f_code not in parents):
                return None
            if code in passed_through or not _is_user_function(frame):
                return None
        open_deep += code in deep
        parent, parent_frame = enclosing(frame)
        call = Call(
            code=code,
            arguments=_copy_containers({name: frame.f_locals[name] for name in _parameter_names(code)}),
            parent=parent,
            position=position_in(parent_frame) if parent_frame else None,
            function=_function_of(frame),
            span=(tick(), 0),
        )
        open_calls[id(frame)] = call
        recording.calls.append(call)
        spans = line_ranges.get(code, ())
        if not spans:
            frame.f_trace_lines = False
        live: dict[tuple[int, int], Visit] = {}

        def on_event(frame: FrameType, event: str, arg: Any):
            nonlocal open_deep
            if event == "line":
                _follow_lines(frame, call, spans, live)
            elif event == "return":
                _close(live, frame.f_locals)
                call.result = arg
                call.return_line = frame.f_lineno
                call.span = (call.span[0], tick())
                open_calls.pop(id(frame), None)
                open_deep -= code in deep
            return on_event

        return on_event

    def _follow_lines(frame, call, spans, live) -> None:
        line = frame.f_lineno
        for span in spans:
            inside = span[0] <= line <= span[1]
            if not inside and span in live:
                _close({span: live.pop(span)}, frame.f_locals)
            elif inside:
                if span not in live:
                    visit = Visit(span, call, before=_copy_containers(dict(frame.f_locals)), span=(tick(), 0))
                    live[span] = visit
                    recording.visits.setdefault(call.code, []).append(visit)
                live[span].executed.add(line)

    def _close(live: dict[tuple[int, int], Visit], values: Mapping[str, Any]) -> None:
        for visit in live.values():
            visit.after = _copy_containers(dict(values))
            visit.span = (visit.span[0], tick())

    previous = sys.gettrace()
    sys.settrace(on_call)
    try:
        result = run()
    finally:
        sys.settrace(previous)
    return result, recording


def position_in(frame: FrameType) -> Position | None:
    """Where `frame` is now: the source range of the expression that its current instruction belongs to."""
    instruction = islice(frame.f_code.co_positions(), frame.f_lasti // 2, None)
    line, end_line, column, end_column = next(instruction)
    if line is None:
        return None
    return line, end_line or line, column or 0, end_column or 0


def _is_user_function(frame: FrameType) -> bool:
    """Not the machinery of torch, Python or leakcheck, not a comprehension or lambda, not a decorator's wrapper."""
    name = frame.f_code.co_name
    if name.startswith("<") or (name.startswith("__") and name != "__call__"):
        return False
    module = frame.f_globals.get("__name__", "")
    package = module.partition(".")[0]
    if package == "torch" or package in sys.stdlib_module_names:
        return False
    if package == "leakcheck" and not module.startswith("leakcheck.subjects."):
        return False
    return not _passes_everything_on(frame.f_code)


def _passes_everything_on(code: CodeType) -> bool:
    """Whether it is a closure that takes whatever comes, as decorators make."""
    anything = inspect.CO_VARARGS | inspect.CO_VARKEYWORDS
    named = code.co_argcount + code.co_kwonlyargcount
    return named <= 1 and bool(code.co_freevars) and code.co_flags & anything == anything


def _parameter_names(code: CodeType) -> tuple[str, ...]:
    count = code.co_argcount + code.co_kwonlyargcount
    count += bool(code.co_flags & 0x04) + bool(code.co_flags & 0x08)
    return code.co_varnames[:count]


def _function_of(frame: FrameType) -> FunctionType:
    """The function that `frame` runs, rebuilt from its code, globals and free variables (`__class__` among them)."""
    code = frame.f_code
    values = frame.f_locals
    closure = tuple(CellType(values[name]) if name in values else CellType() for name in code.co_freevars)
    return FunctionType(code, frame.f_globals, code.co_name, closure=closure)


def _copy_containers(values: dict[str, Any]) -> dict[str, Any]:
    return pytree.tree_map(lambda leaf: leaf, values)
