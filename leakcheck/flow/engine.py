"""The dispatch mode: runs every op, then its rule on the labels.

Where an op has no rule its decomposition into other ops is run for its labels. Where that does not exist either, its
outputs get HOLE labels, and the op is reported: unknown never means fine.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch._decomp import decomposition_table
from torch.utils._python_dispatch import TorchDispatchMode

import leakcheck.flow.rules  # noqa: F401  (registers the rules)
from leakcheck.flow import choices, foreach
from leakcheck.flow.absent import SHAPED_LIKE, Runner, is_absent, mapped, stand_in, unassumed
from leakcheck.flow.compiled import HIGHER_ORDER
from leakcheck.flow.context import Context, Instead, tensors_of
from leakcheck.flow.labels import GENERIC, HOLE, KNOWN, UNWRITTEN, Labels, join, unexpanded
from leakcheck.flow.operand import Operand
from leakcheck.flow.registry import Rule, rule_for
from leakcheck.flow.reports import CONTROL_FLOW, LEAVES, Reports
from leakcheck.flow.sizes import BY_MASK, Sizes
from leakcheck.flow.storage import Mirror

# Arguments that say where and as what to store a result: they change no dependence.
_STORING = frozenset({"dtype", "layout", "device", "pin_memory", "memory_format", "non_blocking", "generator"})


# Views whose schema does not say so.
_VIEWS = frozenset({"aten::_unsafe_view", "aten::_reshape_alias", "aten::lift_fresh"})


_NUMBERS = frozenset({"number", "bool", "int", "float", "complex"})


@dataclass(frozen=True, eq=False)
class _Plan:
    """What the schema says of an op, looked up once."""

    name: str
    rule: Rule | None
    view: bool
    random: bool
    pointwise: bool
    elementwise: bool  # a new tensor, each element of which is a function of those in its place
    written: tuple[tuple[int, str], ...]  # arguments that are written: position, name
    unreturned: tuple[tuple[int, str], ...]  # those that are not returned
    outs: frozenset[str]  # arguments that only say where to write
    mutates: bool
    allocates: bool  # returns memory without values
    functional: Any  # the op that computes the same and writes nothing
    decomposition: Callable[..., Any] | None
    parts: Callable[..., Any] | None = None  # run in place of the op
    leaves: bool = False  # it returns a Python number
    sizing: bool = False  # the values of its operands decide how large its outputs are


class Flow(TorchDispatchMode):
    """Keeps labels beside every tensor while it is active.

    `watch`, if set, is called after every op that has labels to compute, for provenance: with its name, its rule on the
    operands' present labels, the operands (of an op that was run as its parts: their results), and the outputs.
    If it is `weightless`, the model has tensors without values (`absent.py`).
    """

    supports_higher_order_operators = True
    strict = False  # tests want to see a rule fail

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """No: to skip it, torch would import the compiler and go through it for every op."""
        return False

    def __init__(self, mirror: Mirror, reports: Reports, *, weightless: bool = False):
        super().__init__()
        self.mirror, self.reports, self.weightless = mirror, reports, weightless
        self.runner = Runner()
        self.ops = 0
        self.watch: Callable[[str, Callable[[], Any], list[Operand], list[Tensor]], None] | None = None
        self._plans: dict[Any, _Plan] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        kwargs = kwargs or {}
        self.ops += 1
        plan = self._plans.get(func)
        if plan is None:
            plan = self._plans[func] = _plan(func)
        if plan.view:
            return func(*args, **kwargs)
        if plan.parts is not None:
            with self:
                return plan.parts(*args, **kwargs)
        with torch._C.DisableTorchFunction():  # what happens in here is not the program's
            return self._run(plan, func, args, kwargs)

    def _run(self, plan: _Plan, func: Any, args: tuple, kwargs: dict) -> Any:
        rule = plan.rule
        operands: list[Operand] = []
        rowwise, soft = (rule.rowwise, rule.soft) if rule else (plan.pointwise and not plan.random, False)

        def operand(tensor: Tensor) -> Operand:
            operands.append(Operand(tensor, self.mirror, rowwise=rowwise, soft=soft))
            return operands[-1]

        given = [_with_operands(value, operand) for value in args]
        named = {
            name: _with_operands(value, operand)
            for name, value in kwargs.items()
            if name not in _STORING and name not in plan.outs
        }
        if plan.mutates:
            for x in operands:  # the op overwrites values that labels may rest on
                if x.known and not all(other.known for other in operands):
                    x.freeze()

        decomposed = None
        known = all(x.known for x in operands) and not plan.allocates
        if not known and rule is None and not plan.pointwise and not plan.leaves and plan.decomposition is not None:
            decomposed = self._decomposed(plan, args, kwargs)
        sizing = plan.sizing and not (plan.name in BY_MASK and not any(x.is_mask for x in operands[1:]))
        result = self._call(plan, func, args, kwargs, operands, sizing) if self.weightless else func(*args, **kwargs)
        outputs = list(tensors_of(result))

        def values() -> Tensor:
            return _values(plan, result, operands, args, kwargs)

        def apply() -> Any:
            if rule is not None:
                if rule.context:
                    return rule.function(*given, **named, context=Context(result, self.reports, plan.name, values))
                return rule.function(*given, **named)
            if plan.leaves:
                return self._leaves(plan, operands)
            if decomposed is not None:
                return [part.labels for part in decomposed]
            if plan.pointwise:
                labels = join(*(x.labels for x in operands))
                return join(labels, Labels.full((), GENERIC)) if plan.random else labels
            return self._unknown(plan, operands)

        labels = (GENERIC if plan.random else KNOWN) if known else self._guarded(plan, apply, outputs)
        if isinstance(labels, Instead):
            self.reports.departed = True
            sizing = labels.sized
            result, labels = labels.result, labels.labels
            outputs = list(tensors_of(result))
            labels = _fitted(labels, outputs)
        if not known and not plan.allocates:
            self._look_for_unwritten(plan, operands, labels)
        sizes = None
        if self.mirror.sized or (sizing and not known):
            sizes = Sizes(self.mirror, plan.name, operands, outputs)
            if sizing:
                sizes.decided(plan.name)
            labels = sizes.join(labels)
        if self.watch is not None and not known:
            self.watch(plan.name, apply, decomposed or operands, outputs)
        self._store(outputs, labels, operands, plan, args, kwargs, values if plan.pointwise else None)
        if plan.elementwise and outputs and not known:
            choices.follow(func, args, kwargs, operands, outputs[0])
        if sizes is not None:
            sizes.store(in_place=plan.mutates and not plan.outs)
        return result

    def _call(
        self, plan: _Plan, func: Any, args: tuple, kwargs: dict, operands: Sequence[Operand], sizing: bool
    ) -> Any:
        """The op with tensors that may have no values."""
        labels = {id(x.tensor): x.labels for x in operands}
        given = (args[position] if position < len(args) else kwargs.get(name) for position, name in plan.written)
        return self.runner.run(
            func,
            args,
            kwargs,
            lambda tensor: labels.get(id(tensor)) or self.mirror.read(tensor),
            [tensor for value in given for tensor in tensors_of(value)],
            shaped_like=plan.name in SHAPED_LIKE,
            needs_values=plan.leaves or sizing,
        )

    def without_values(self, tensor: Tensor) -> Tensor:
        """The same tensor on the meta device, for what wants several on one device."""
        if is_absent(tensor):
            return tensor
        with torch._C.DisableTorchFunction():
            labels = self.mirror.read(tensor)
            moved = torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype, device="meta")
            self.mirror.write(moved, unassumed(labels))
        return moved

    def _guarded(self, plan: _Plan, apply: Callable[[], Any], outputs: list[Tensor]) -> Any:
        """A rule that fails is a hole, not a crash of the subject."""
        if self.strict:
            return _fitted(apply(), outputs)
        try:
            return _fitted(apply(), outputs)
        except Exception as error:  # whatever an unforeseen call made a rule raise
            reason = f"{type(error).__name__}: {error}".splitlines()[0]
            self.reports.hole(plan.name, "rule failed", f"the rule for this op cannot handle the call ({reason})")
            return HOLE

    def _look_for_unwritten(self, plan: _Plan, operands: Sequence[Operand], labels: Any) -> None:
        """Remember where memory that no op wrote was read; it counts if it reaches an output."""
        if any(x.labels.uniform == UNWRITTEN for x in operands):
            carries = [each for each in (labels if isinstance(labels, list) else [labels]) if not isinstance(each, int)]
            if any(each.highest == UNWRITTEN for each in carries):
                self.reports.note_unwritten(plan.name)

    def _unknown(self, plan: _Plan, operands: Sequence[Operand]) -> int:
        highest = max(x.labels.settled().highest for x in operands)
        if highest < 0:
            return GENERIC
        self.reports.hole(plan.name, "op without a rule", "every output may depend on every input of the op")
        return HOLE

    def _leaves(self, plan: _Plan, operands: Sequence[Operand]) -> int:
        """A token-dependent value becomes a Python number (`.item()`, `if tensor:`, `torch.equal`)."""
        if any(self.leaves_unknown(x.tensor, x.labels) for x in operands):
            self.reports.hole(plan.name, CONTROL_FLOW, LEAVES)
        return HOLE

    def leaves_unknown(self, tensor: Tensor, labels: Labels) -> bool:
        """Whether Python would see a value that depends on tokens, or one that is not there."""
        lowest = GENERIC if is_absent(tensor) or self.runner.invented else 0
        return labels.settled().highest >= lowest

    def _decomposed(self, plan: _Plan, args: tuple, kwargs: dict) -> list[Operand] | None:
        """The results of the op's parts, whose labels are the op's; `None` where they cannot be run."""
        assert plan.decomposition is not None
        kept = {name: value for name, value in kwargs.items() if name not in plan.outs}
        try:
            with self:
                parts = plan.decomposition(*args, **kept)
        except (NotImplementedError, RuntimeError, TypeError):
            return None
        return [Operand(part, self.mirror, rowwise=True, soft=True) for part in tensors_of(parts)]

    def _store(
        self,
        outputs: list[Tensor],
        labels: Any,
        operands: Sequence[Operand],
        plan: _Plan,
        args: tuple,
        kwargs: dict,
        values: Callable[[], Tensor] | None,
    ) -> None:
        several = labels if isinstance(labels, list) else [labels] * len(outputs)
        inputs = {id(x.tensor.untyped_storage()) for x in operands} if not plan.mutates else ()
        for output, each in zip(outputs, several, strict=False):
            if id(output.untyped_storage()) in inputs:
                continue  # a view, though the schema does not say so
            written = Labels.full(output.shape, each) if isinstance(each, int) else each
            if is_absent(output):
                written = unassumed(written, values if output.is_floating_point() else None)
            self.mirror.write(output, written)
        for output in outputs[len(several) :]:
            self.mirror.write(output, Labels.full(output.shape, self._unknown(plan, operands)))
        for position, name in plan.unreturned:
            value = args[position] if position < len(args) else kwargs.get(name)
            for tensor in tensors_of(value):
                highest = max((x.labels.settled().highest for x in operands), default=KNOWN)
                self.mirror.write(tensor, Labels.full(tensor.shape, max(highest, KNOWN)))


def _values(plan: _Plan, result: Tensor, operands: Sequence[Operand], args: tuple, kwargs: dict) -> Tensor:
    """What an elementwise op makes of values and stand-ins, in a shape that broadcasts to its result's."""
    if not is_absent(result):
        return result
    labels = {id(x.tensor): x.labels for x in operands}

    def core(tensor: Tensor) -> Tensor:
        return unexpanded(stand_in(tensor, labels[id(tensor)])) if is_absent(tensor) else tensor

    kept = {name: value for name, value in kwargs.items() if name not in ("device", *plan.outs)}
    return plan.functional(*mapped(args, core), **mapped(kept, core))


def _with_operands(value: Any, operand: Callable[[Tensor], Operand]) -> Any:
    """An argument with an operand in place of each tensor."""
    if isinstance(value, Tensor):
        return operand(value)
    if isinstance(value, (list, tuple)):
        return [_with_operands(item, operand) for item in value]
    return value


def _fitted(labels: Any, outputs: Sequence[Tensor]) -> Any:
    """Labels in the shapes of the outputs, in a list where a rule told them one by one.

    Raises:
        RuntimeError: a rule gave labels that do not broadcast to its output.
    """
    if isinstance(labels, (int, Instead)):
        return labels
    several = list(labels) if isinstance(labels, (list, tuple)) else [labels] * len(outputs)
    return [
        each if isinstance(each, int) or each.shape == output.shape else each.expand(output.shape)
        for each, output in zip(several, outputs, strict=False)
    ]


def _plan(func: Any) -> _Plan:
    schema = getattr(func, "_schema", None)
    if schema is None:  # a higher-order op
        name = f"higher_order::{func.name()}"
        return _Plan(
            name=name,
            rule=rule_for(name, ""),
            view=False,
            random=False,
            pointwise=False,
            elementwise=False,
            written=(),
            unreturned=(),
            outs=frozenset(),
            mutates=False,
            allocates=False,
            functional=None,
            decomposition=None,
            parts=HIGHER_ORDER.get(name),
        )
    returned = [r.alias_info for r in schema.returns]
    view = any(a is not None and not a.is_write for a in returned)
    names = {frozenset(a.before_set) for a in returned if a is not None}
    written = [
        (i, a.name, a.alias_info.before_set)
        for i, a in enumerate(schema.arguments)
        if a.alias_info is not None and a.alias_info.is_write
    ]
    tags = func.tags
    pointwise = torch.Tag.pointwise in tags or _functional_is_pointwise(schema)
    random = torch.Tag.nondeterministic_seeded in tags
    rule = rule_for(schema.name, schema.overload_name)
    composite = _is_composite(func)  # `reshape` says that it is a view, and copies where it must
    return _Plan(
        name=schema.name,
        rule=rule,
        view=(view and rule is None and not composite) or schema.name in _VIEWS,
        random=random,
        pointwise=pointwise,
        elementwise=(pointwise or schema.name in choices.COPIES) and not written and not random,
        written=tuple((i, name) for i, name, _ in written),
        unreturned=tuple((i, name) for i, name, aliases in written if frozenset(aliases) not in names),
        outs=frozenset(a.name for a in schema.arguments if a.is_out),
        mutates=bool(written),
        allocates=schema.name.startswith(("aten::empty", "aten::new_empty", "aten::resize")),
        functional=_functional(schema) if written else func,
        decomposition=_decomposition(func, schema),
        leaves=bool(schema.returns) and all(str(r.type) in _NUMBERS for r in schema.returns),
        sizing=torch.Tag.dynamic_output_shape in tags,
        parts=func.decompose if composite and rule is None else foreach.each(schema),
    )


def _is_composite(func: Any) -> bool:
    """Whether torch itself runs the op as others: below autograd, as in parts of parts, it comes here whole."""
    return torch._C._dispatch_has_kernel_for_dispatch_key(func.name(), "CompositeImplicitAutograd")


def _functional(schema: Any) -> Any:
    """The functional op of an in-place or out= one; `None` if there is none."""
    namespace, _, base = schema.name.partition("::")
    packet = getattr(getattr(torch.ops, namespace), base.removesuffix("_"), None)
    overload = schema.overload_name.removesuffix("_out")
    overload = "default" if overload in ("", "out") else overload
    return getattr(packet, overload, None)


def _functional_is_pointwise(schema: Any) -> bool:
    functional = _functional(schema)
    return functional is not None and torch.Tag.pointwise in functional.tags


def _decomposition(func: Any, schema: Any) -> Callable[..., Any] | None:
    if torch.Tag.nondeterministic_seeded in func.tags:
        return None
    found = decomposition_table.get(func)
    if found is not None and not any(a.alias_info is not None and a.alias_info.is_write for a in schema.arguments):
        return found
    functional = _functional(schema)
    return decomposition_table.get(functional) if functional is not None else None
