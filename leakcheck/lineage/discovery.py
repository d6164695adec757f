"""The stages of a mask's way through any model: where it is born, who hands it to whom, where it acts.

Found in one watched forward. A plan of its own is needed only to measure: the modules' stages keep their readings, and
what is discovered stands around them.
"""

import ast
from collections import defaultdict
from collections.abc import Iterable, Mapping
from types import CodeType, FunctionType

from torch import nn

from leakcheck.checkpoints import source
from leakcheck.checkpoints.modules import ModulesPlan, layer_in
from leakcheck.checkpoints.reading import STANDARD, Spot, Stage
from leakcheck.checkpoints.recorder import Call, Recording
from leakcheck.findings import Location
from leakcheck.lineage import passing, statements
from leakcheck.lineage.family import Birth, Masks
from leakcheck.lineage.masks import Op, OpLog, describe
from leakcheck.lineage.passing import Application, Origin, Passed

GENERATION, DISTRIBUTION, APPLICATION, MERGE = "generation", "distribution", "application", "merge"
_RANKS = {GENERATION: 0, DISTRIBUTION: 1, APPLICATION: 3, MERGE: 4}
MODULES = 2  # the rank of a stage that has a module, or a function that one calls


class Discovery:
    """What one recorded forward shows of its masks."""

    def __init__(
        self, recording: Recording, log: OpLog, masks: Masks, plan: ModulesPlan, modules: Mapping[Spot, Passed]
    ):
        """`modules` are the stages of the plan; what is found of them is noted there."""
        self.recording, self.log, self.masks, self.plan, self.modules = recording, log, masks, plan, modules
        self.stages: dict[tuple, Passed] = {}
        self.makers = self._makers()
        self.nothing_made = self._makers_of_none()
        self.applications = masks.applications(masks.roots)
        self.kernels = [op for op in log.ops if op.is_causal]
        self._moments = [op.moment for op, _ in self.applications] + [op.moment for op in self.kernels]
        self.making = [*self.makers, *self.nothing_made]
        self._generation()
        self._hand_overs()
        self._applications()

    @property
    def origins(self) -> tuple[Origin, ...]:
        """One for each mask that was born, and for each call that returned `None` in a mask's place."""
        acting = self._acting()
        found = [
            Origin(describe(birth.mask), False, self._birthplace(birth)[1], (), acts=number in acting)
            for number, birth in self.masks.births.items()
        ]
        return (*found, *(passing.origin(self.recording, call, self.log) for call in self.nothing_made))

    @property
    def acted(self) -> tuple[Application, ...]:
        return (
            *(Application(op.code, op.location, describe(mask)) for op, mask in self.applications),
            *(Application(op.code, op.location, "is_causal=True") for op in self.kernels),
        )

    # where masks come from

    def _makers(self) -> list[Call]:
        """The calls that returned a mask which was born inside them."""
        roots = self.masks.roots
        found = []
        for call in self.recording.calls:
            born = {n for n, b in self.masks.births.items() if b.op and _within(b.op.moment, call)}
            if not born or self._is_module(call):
                continue
            if passing.returned(call, {mask for mask, births in roots.items() if births & born}):
                found.append(call)
        return found

    def _makers_of_none(self) -> list[Call]:
        """The calls that returned the `None` which is handed on as a mask: found where the caller assigns it."""
        found: dict[int, Call] = {}
        for call in self.recording.calls:
            code, statement = passing.site_of(call)
            for said in passing.handed_on(call, ()):
                name = said.partition("=")[0]
                expression = passing.expressions_of(call).get(name) or _positional(call, name)
                for assignment in statements.sources_of(code, statement, expression):
                    for made in self.recording.calls:
                        inside = made.parent is call.parent and made.position and made.span[1] < call.span[0]
                        if inside and made.result is None and _stands_in(made, assignment):
                            found[id(made)] = made
        outer = [*self.makers, *found.values()]
        return [call for call in found.values() if not any(_encloses(other, call) for other in outer)]

    def _generation(self) -> None:
        for made in self.making:
            calls = passing.descent(self.recording, made) if made.result is None else [made]
            for call in calls:
                returns = "returns None" if call.result is None else "returns the mask"
                self._site(call, GENERATION, "call", (returns, *self._handed(call, tensors=True)))
            if made.result is None:
                location = passing.return_of(calls[-1])
                self._add(calls[-1].code, location, GENERATION, "no mask is made", calls[-1], (), calls[-1].span[1])
                statement = passing.return_statement(calls[-1])
                self._deciding(calls[-1].code, statement, calls[-1], calls[-1].span[1], GENERATION)
        acting = self._acting()
        for number, birth in self.masks.births.items():
            code, location = self._birthplace(birth)
            notes = [] if number in acting else ["never met data in this forward"]
            moment = birth.op.moment if birth.op else 0
            caller = self._innermost(birth.first_use.moment)
            self._add(code, location, GENERATION, "birth", caller, (describe(birth.mask),), moment, notes)

    def _birthplace(self, birth: Birth) -> tuple[CodeType, Location]:
        """The op that made the mask; the registration of a buffer; else where it is first used."""
        op = birth.op or birth.first_use
        if birth.op is None:
            for module in self.plan.names:
                for name, buffer in module._buffers.items():
                    if buffer is birth.mask:
                        return _registration(type(module), name)
        code = op.code or self.recording.calls[0].code
        return code, op.location or source.locate(code)

    def _acting(self) -> frozenset[int]:
        return frozenset[int]().union(*(self.masks.roots[id(mask)] for _, mask in self.applications))

    # who hands them to whom

    def _hand_overs(self) -> None:
        handing = [call for call in self.recording.calls if self._handed(call) and not self._only_asks(call)]
        outer = {id(call.parent) for call in handing}
        for call in handing:
            generating = any(_encloses(made, call) for made in self.making)
            handed = self._handed(call, tensors=generating)
            beyond = generating and call.parent not in self.making
            if not handed or beyond or call in self.making or call.parent is None:
                continue
            notes = []
            if id(call) not in outer and all(said.endswith("=None") for said in handed):
                notes = self._instead(call)
                self._asking(call, handed)
            if self._is_module(call):
                name = self._module_of(call)
                self.modules[self.plan.stage_of(name).number, STANDARD, layer_in(name)].notes.extend(notes)
            else:
                phase = GENERATION if generating else self.plan.stage_of(self._module_of(call)).phase
                self._site(call, phase, "hand-over", handed, notes)
            if not generating:
                self._around(call)

    def _only_asks(self, call: Call) -> bool:
        """Whether it answers a question about the mask and does nothing with it."""
        return self._is_idle(call) and (call.result is None or isinstance(call.result, bool))

    def _is_idle(self, call: Call) -> bool:
        """Whether no mask acts in it."""
        return not any(_within(moment, call) for moment in self._moments)

    def _instead(self, call: Call) -> list[str]:
        """What masks in a function that was handed `None`."""
        if any(_within(op.moment, call) for op in self.kernels):
            return ["the kernel masks by is_causal"]
        makes = any(birth.op and _within(birth.op.moment, call) for birth in self.masks.births.values())
        return ["no mask acts here"] if self._is_idle(call) and not makes else []

    def _around(self, call: Call) -> None:
        """The control flow that a hand-over stands in, and the statements that take up what it returned."""
        code, statement = passing.site_of(call)
        self._deciding(code, statement, call.parent, call.span[0])
        beside = [c for c in self.recording.calls if c.parent is call.parent and self._handed(c)]
        for following in statements.taking_up(code, statement, lambda s: any(_stands_in(c, s) for c in beside)):
            location = source.locate(code, following)
            self._add(code, location, MERGE, "takes up what came back", call, (), call.span[1])

    def _asking(self, call: Call, handed: tuple[str, ...]) -> None:
        """The branches that ask for a mask which is `None`, but for torch's own."""
        if call.function.__module__.partition(".")[0] == "torch":
            return
        for said in handed:
            name = said.partition("=")[0]
            for branch in statements.asking(call.code, name, call.return_line or 0):
                location = source.locate(call.code, branch)
                self._add(call.code, location, DISTRIBUTION, "branch", call, (said,), call.span[1])

    def _deciding(
        self, code: CodeType, statement: ast.stmt | None, caller: Call | None, moment: int, phase: str = DISTRIBUTION
    ) -> None:
        for around in statements.deciding(code, statement):
            title = "branch" if isinstance(around, ast.If) else "loop"
            self._add(code, source.locate(code, around), phase, title, caller, (), moment)

    # where they act

    def _applications(self) -> None:
        for op, mask in self.applications:
            self._acts(op, describe(mask))
        for op in self.kernels:
            self._acts(op, "is_causal=True", "the mask is born in the kernel")

    def _acts(self, op: Op, mask: str, *notes: str) -> None:
        caller = self._innermost(op.moment)
        code = op.code or (caller.code if caller else self.recording.calls[0].code)
        location = op.location or source.locate(code)
        self._add(code, location, APPLICATION, "application", caller, (mask,), op.moment, notes)
        statement = source.statement_at(code, op.position)
        self._deciding(code, statement, caller, op.moment)

    @property
    def summary(self) -> str:
        """What is to be said of the whole model where nothing masks."""
        if self._moments:
            return ""
        if self.masks.births:
            return "a mask is made and none acts"
        return "the mask is None and nothing masks" if self.nothing_made else "no mask was found"

    # rows

    def _site(self, call: Call, phase: str, title: str, passes: tuple[str, ...], notes: Iterable[str] = ()) -> None:
        code, statement = passing.site_of(call)
        location = source.locate(code, statement)
        passed = self._add(code, location, phase, title, call, passes, call.span[0], notes)
        passed.inside = passed.library = source.locate(call.code)
        passed.chain = passed.chain or passing.chain(call, self.masks.roots)

    def _add(
        self,
        code: CodeType,
        location: Location,
        phase: str,
        title: str,
        call: Call | None,
        passes: tuple[str, ...],
        moment: int,
        notes: Iterable[str] = (),
    ) -> Passed:
        module = self._module_of(call)
        layer = layer_in(module)
        role = self.plan.stage_of(module).number
        key = (phase, role, location, layer)
        passed = self.stages.get(key)
        if passed is None:
            passed = self.stages[key] = Passed(Stage(0, phase, title), module, code, location, location)
            passed.identity = key[:-1]
            passed.order = (_RANKS.get(phase, MODULES), 0 if phase in _RANKS else role, moment)
        passed.runs += 1
        passed.passes = tuple(dict.fromkeys((*passed.passes, *passes)))
        passed.notes.extend(note for note in notes if note not in passed.notes)
        return passed

    def numbered(self, first: int) -> dict[Spot, Passed]:
        """The stages by number, layers folded."""
        folded: dict[tuple, dict[int | None, Passed]] = defaultdict(dict)
        for (*stage, layer), passed in self.stages.items():
            folded[tuple(stage)][layer] = passed
        return {
            (number, STANDARD, layer): passed
            for number, layers in enumerate(folded.values(), start=first)
            for layer, passed in layers.items()
        }

    def _handed(self, call: Call, *, tensors: bool = False) -> tuple[str, ...]:
        handed = passing.handed_on(call, self.masks.roots)
        return tuple(said for said in handed if not (tensors and said.endswith("=None")))

    def _is_module(self, call: Call) -> bool:
        module = call.receiver
        return isinstance(module, nn.Module) and self.plan.codes.get(module) is call.code

    def _innermost(self, moment: int) -> Call | None:
        return max((c for c in self.recording.calls if _within(moment, c)), key=lambda c: c.span[0], default=None)

    def _module_of(self, call: Call | None) -> str:
        """The module that a call is of, or is made by."""
        while call is not None:
            module = call.receiver
            if isinstance(module, nn.Module) and module in self.plan.names:
                return self.plan.names[module]
            call = call.parent
        return ""


def _registration(cls: type, buffer: str) -> tuple[CodeType, Location]:
    """The statement of a constructor that names a buffer."""
    constructors = [vars(c).get("__init__") for c in cls.__mro__]
    owners = [function.__code__ for function in constructors if isinstance(function, FunctionType)]
    for code in owners:
        function = source.syntax_of(code)
        for node in ast.walk(function) if function else ():
            named = [n for n in ast.walk(node) if isinstance(n, ast.Constant) and n.value == buffer]
            stored = [n for n in ast.walk(node) if isinstance(n, ast.Attribute) and n.attr == buffer]
            if isinstance(node, ast.Expr | ast.Assign) and (named or stored):
                return code, source.locate(code, node)
    code = owners[0]
    return code, source.locate(code)


def _positional(call: Call, name: str) -> ast.expr | None:
    """The expression of a positional argument, where the call has no starred one before it."""
    if call.parent is None or call.position is None:
        return None
    node = source.call_at(call.parent.code, call.position)
    names = [n for n in call.code.co_varnames[: call.code.co_argcount] if n != "self"]
    if node is None or name not in names or any(isinstance(a, ast.Starred) for a in node.args):
        return None
    index = names.index(name)
    return node.args[index] if index < len(node.args) else None


def _stands_in(call: Call, statement: ast.stmt) -> bool:
    if call.position is None:
        return False
    first, last = source.lines_of(statement)
    return first <= call.position[0] and call.position[1] <= last


def _within(moment: int, call: Call) -> bool:
    return call.span[0] <= moment < call.span[1]


def _encloses(outer: Call, inner: Call) -> bool:
    return outer is not inner and outer.span[0] < inner.span[0] and inner.span[1] < outer.span[1]
