"""What flow claims of a case, for every form of the call, and how that compares with the truth."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from leakcheck.flow.context import Context, tensors_of
from leakcheck.flow.engine import Flow
from leakcheck.flow.labels import BLOCKED, DTYPE, HOLE, KNOWN, ZERO, Labels
from leakcheck.flow.operand import Operand
from leakcheck.flow.registry import RULES
from leakcheck.flow.reports import Reports
from leakcheck.flow.storage import Mirror
from tests.flow.conformance.cases import Case
from tests.flow.conformance.oracle import FIXED, GENERIC, Input, Truth, horizons
from tests.flow.conformance.spec import Sample, Spec, fill

_STORING = ("dtype", "layout", "device", "pin_memory", "memory_format")


class Strict(Flow):
    """A rule that fails is an error here, not a hole."""

    strict = True

    def reached(self, key: str) -> bool:
        """Whether an op of this entry of the registry has run by its rule."""
        name = key.partition(".")[0].rstrip("_")
        rules = [plan.rule for plan in self._plans.values() if plan.name.rstrip("_") == name]
        return any(rule is not None and key in rule.ops for rule in rules)


@dataclass(frozen=True)
class Layout:
    """How an argument lies in its storage: what is stored for a tensor, and the view of it that the op is given."""

    name: str
    store: Callable[[Tensor], Tensor]
    view: Callable[[Tensor, torch.Size], Tensor]


CONTIGUOUS = Layout("contiguous", lambda t: t.clone(memory_format=torch.contiguous_format), lambda t, _: t)
TRANSPOSED = Layout("transposed", lambda t: t.movedim(0, -1).contiguous(), lambda t, _: t.movedim(-1, 0))
SLICED = Layout("sliced", lambda t: torch.stack([t, t], -1), lambda t, _: t[..., 0])
SHIFTED = Layout(
    "shifted", lambda t: torch.cat([t.reshape(-1)[:1], t.reshape(-1)]), lambda t, shape: t[-shape.numel() :].view(shape)
)
LAYOUTS = (CONTIGUOUS, TRANSPOSED, SLICED, SHIFTED)


def expanded(dim: int) -> Layout:
    return Layout("expanded", lambda t: t.narrow(dim, 0, 1).contiguous(), lambda t, shape: t.expand(shape))


@dataclass(frozen=True)
class Form:
    """One form of a call: `functional`, `views`, `in place` or `out`."""

    name: str
    op: Any
    layouts: tuple[Layout, ...]


def forms(case: Case) -> Iterator[Form]:
    """Functional on plain and on strided tensors; in place and with out= where the schema has it."""
    plain = tuple(expanded(i.tied) if i.tied is not None and i.value.shape[i.tied] else CONTIGUOUS for i in case.inputs)
    if case.sample.reference is not None:
        yield Form("by rule", None, plain)
        return
    op = case.sample.program or case.sample.overload
    tied = any(layout is not CONTIGUOUS for layout in plain)
    if not tied or (not case.sample.mutates and _takes(case, plain)):
        yield Form("functional", op, plain)
    if case.sample.program is not None or case.sample.mutates:
        return
    strided = tuple(
        layout
        if layout.name == "expanded" or not i.value.numel() or not i.value.dim()
        else LAYOUTS[(case.seed + n) % len(LAYOUTS)]
        for n, (i, layout) in enumerate(zip(case.inputs, plain, strict=True))
    )
    if any(layout is not CONTIGUOUS for layout in strided) and _takes(case, strided):
        yield Form("views", op, strided)
    in_place = variant(op, in_place=True)
    if in_place is not None and _fits_in_place(case):
        yield Form("in place", in_place, plain)
    out = variant(op, in_place=False)
    if out is not None:
        yield Form("out", out, plain)


def _takes(case: Case, layouts: tuple[Layout, ...]) -> bool:
    """Whether the op takes arguments that lie so: some kernels want them contiguous."""
    args, kwargs = _called(case.sample, _laid_out(case, layouts))
    try:
        case.sample.function(*args, **kwargs)
    except RuntimeError:
        return False
    return True


def _laid_out(case: Case, layouts: tuple[Layout, ...]) -> list[Tensor]:
    return [
        layout.view(layout.store(each.value), each.value.shape)
        for each, layout in zip(case.inputs, layouts, strict=True)
    ]


def variant(op: Any, *, in_place: bool) -> Any:
    """The in-place or out= variant of a functional op, if its schema has one."""
    schema = op._schema
    namespace, _, base = schema.name.partition("::")
    packet = getattr(getattr(torch.ops, namespace), base + "_" if in_place else base, None)
    if packet is None:
        return None
    wanted = [(a.name, str(a.type)) for a in schema.arguments if a.name not in _STORING]
    for name in packet.overloads():
        other = getattr(packet, name)._schema
        if torch.Tag.generated in getattr(packet, name).tags:
            continue  # a wrapper that calls the functional op and copies
        written = [a for a in other.arguments if a.alias_info is not None and a.alias_info.is_write]
        rest = [(a.name, str(a.type)) for a in other.arguments if in_place or a not in written]
        if in_place and rest == wanted and len(written) == 1 and other.arguments[0] in written:
            return getattr(packet, name)
        if (
            not in_place
            and all(str(r.type) == "Tensor" for r in schema.returns)
            and rest == wanted
            and len(written) == len(schema.returns)
            and all(a.is_out for a in written)
        ):
            return getattr(packet, name)
    return None


def _fits_in_place(case: Case) -> bool:
    """Whether the result can be written into the first argument."""
    first = case.sample.args[0] if case.sample.args else None
    if not isinstance(first, Spec) or case.inputs[0].tied is not None:
        return False
    results = run(case.sample)([i.value for i in case.inputs])
    return results[0].shape == case.inputs[0].value.shape and results[0].dtype == case.inputs[0].value.dtype


def run(sample: Sample) -> Callable[[Sequence[Tensor]], list[Tensor]]:
    """The sample as a function of the tensors for its specs."""

    def function(values: Sequence[Tensor]) -> list[Tensor]:
        copies = [v.clone() for v in values] if sample.mutates or sample.program else values
        args, kwargs = _called(sample, copies)
        return list(tensors_of(sample.function(*args, **kwargs)))

    return function


def truths(case: Case, bases: int = 3, until: list[Tensor] | None = None) -> list[Truth]:
    found = horizons(run(case.sample), case.inputs, seed=case.seed, bases=bases, until=until)
    if case.sample.random:
        return [Truth(t.horizon.clamp(min=GENERIC), t.zero & False, t.low & False) for t in found]
    return found


def claims(case: Case, form: Form) -> list[Tensor] | None:
    """The label planes of all outputs; `None` if the trace goes on with a result of its own (see `widening.py`)."""
    mirror, reports = Mirror(), Reports()
    values = []
    try:
        for each, plane, layout in zip(case.inputs, case.planes, form.layouts, strict=True):
            stored = layout.store(each.value)
            if bool((plane != KNOWN).any()):
                mirror.seed(stored, _labels(layout.store(plane)))
            values.append(layout.view(stored, each.value.shape))
        args, kwargs = _called(case.sample, values)
        torch.default_generator.manual_seed(0)
        if form.op is None:
            return _by_rule(case.sample, args, kwargs, mirror, reports)
        if form.name == "out":
            kwargs |= _outs(form.op, run(case.sample)([i.value for i in case.inputs]))
        flow = Strict(mirror, reports)
        result = dispatch(flow, form.op, args, kwargs)
        assert flow.reached(case.sample.key) or case.sample.key not in RULES, f"{case} does not reach its rule"
        if [t.shape for t in tensors_of(result)] != [t.shape for t in run(case.sample)([i.value for i in case.inputs])]:
            return None
        return [mirror.read(t).settled().hardened().plane for t in tensors_of(result)]
    finally:
        mirror.close()


def labelled_call(function: Callable[[Sequence[Tensor]], Sequence[Tensor]], inputs: Sequence[Input]) -> list[Tensor]:
    """The label planes of what a function of tensors returns."""
    mirror, values = Mirror(), [each.value.clone() for each in inputs]
    try:
        for value, each in zip(values, inputs, strict=True):
            mirror.seed(value, _labels(each.labels))
        torch.default_generator.manual_seed(0)
        with Strict(mirror, Reports()):
            results = function(values)
        return [mirror.read(t).settled().hardened().plane for t in results]
    finally:
        mirror.close()


def _labels(plane: Tensor) -> Labels:
    if plane.numel() and bool((plane == plane.reshape(-1)[0]).all()):
        return Labels.full(plane.shape, int(plane.reshape(-1)[0]))
    return Labels(plane.to(DTYPE))


def _called(sample: Sample, values: Sequence[Tensor]) -> tuple[list[Any], dict[str, Any]]:
    remaining = iter(values)

    def leaf(item: Any) -> Any:
        if isinstance(item, Spec):
            return next(remaining)
        return item.clone() if isinstance(item, Tensor) else item

    args = [fill(item, leaf) for item in sample.args]
    return args, {name: fill(item, leaf) for name, item in sample.kwargs.items()}


def _outs(op: Any, results: list[Tensor]) -> dict[str, Tensor]:
    """Where to write: uninitialised, and not contiguous."""
    names = [a.name for a in op._schema.arguments if a.is_out]
    made = [torch.empty([2, *t.shape], dtype=t.dtype)[1] for t in results]
    return dict(zip(names, made, strict=True))


def dispatch(flow: Flow, op: Any, args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
    """Through torch's dispatcher; but an op that torch itself would take apart is given to the mode as it is."""
    if isinstance(op, torch._ops.OpOverload) and torch._C._dispatch_has_kernel_for_dispatch_key(
        op.name(), "CompositeImplicitAutograd"
    ):
        return flow.__torch_dispatch__(op, (), tuple(args), kwargs)
    with flow:
        return op(*args, **kwargs)


def _by_rule(sample: Sample, args: list[Any], kwargs: dict[str, Any], mirror: Mirror, reports: Reports) -> list[Tensor]:
    """For an op that the CPU cannot run: its rule, on the result of the reference."""
    rule = RULES[sample.key]
    result = sample.reference(*args, **kwargs)  # type: ignore[misc]

    def leaf(item: Any) -> Any:
        return Operand(item, mirror, rowwise=rule.rowwise, soft=rule.soft) if isinstance(item, Tensor) else item

    more = {"context": Context(result, reports, sample.key, lambda: result)} if rule.context else {}
    made = rule.function(*fill(args, leaf), **fill(kwargs, leaf), **more)
    outputs = list(tensors_of(result))
    several = made if isinstance(made, (list, tuple)) else [made] * len(outputs)
    labels = [
        Labels.full(t.shape, each) if isinstance(each, int) else each for t, each in zip(outputs, several, strict=True)
    ]
    return [each.expand(t.shape).settled().hardened().plane for t, each in zip(outputs, labels, strict=True)]


def unsound(claimed: Sequence[Tensor], truth: Sequence[Truth]) -> str:
    """What flow claims and brute force refutes; empty if nothing."""
    if len(claimed) != len(truth):
        return f"{len(claimed)} outputs labelled, {len(truth)} seen"
    for number, (plane, seen) in enumerate(zip(claimed, truth, strict=True)):
        if plane.shape != seen.horizon.shape:
            return f"output {number}: labels of shape {list(plane.shape)} for {list(seen.horizon.shape)}"
        missed = plane.clamp(min=KNOWN) < seen.horizon
        missed |= (plane == ZERO) & ~seen.zero
        missed |= (plane == BLOCKED) & ~seen.low
        if bool(missed.any()):
            where = missed.nonzero()[0].tolist()
            at = tuple(where)
            return (
                f"output {number} at {where}: claims {int(plane[at])}, truth {int(seen.horizon[at])}, "
                f"zero {bool(seen.zero[at])}, low {bool(seen.low[at])}; {int(missed.sum())} of {missed.numel()}"
            )
    return ""


def coarse(claimed: Sequence[Tensor], truth: Sequence[Truth]) -> bool:
    """Whether a claim is above the truth; a hole claims nothing."""
    return any(bool(((p.clamp(min=KNOWN) > t.horizon) & (p < HOLE)).any()) for p, t in zip(claimed, truth, strict=True))


def unclaimed(claimed: Sequence[Tensor], truth: Sequence[Truth]) -> bool:
    """Whether a constant that is zero or blocks, among others that are not constant, is claimed to be no more than one.

    Where all of an output is constant its values say it.
    """
    return any(
        bool((p != KNOWN).any() & ((p == KNOWN) & (t.horizon == FIXED) & (t.zero | t.low)).any())
        for p, t in zip(claimed, truth, strict=True)
    )
