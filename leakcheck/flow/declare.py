"""Declared functions: what flow cannot look into (numpy, a compiled kernel, an FFT), believed once it is checked.

    @flow.declare("causal", dim=1)
    def long_convolution(x, kernel): ...

A trace runs a declared function as one opaque op and labels its results by the declaration, where `x` is any labelled
argument and `...` are all other dimensions, which mix:

    pointwise           out[i] = x[i], with broadcasting
    positionwise        out[b, t, ...] = max of x[b, t, ...]
    causal              out[b, t, ...] = max of x[b, s, ...] over s <= t

`dim` is the dimension of the positions t and `batch` that of b (`None`: batch rows mix as well). An argument or a
result that lacks one of them, or differs in its size there, counts as a whole.

The declaration is not taken on trust (`counterexample.py`): where brute force on the function alone, on the shapes with
which this trace calls it, moves a result that the declaration does not allow to move, it is a hole that says so. What
brute force may miss is what happens only at values that it did not try.

A declared function must depend on nothing but its arguments and parameters, and must write to none of them; what the
trace can see of the contrary is a hole as well. Outside of a trace it is the plain function.

Where the function is an op (`torch.library.custom_op`), a rule says more than a declaration: `leakcheck.flow.rule`.
"""

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode, handle_torch_function, has_torch_function
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes
from torch.utils._pytree import tree_flatten, tree_leaves

from leakcheck.flow import labels as L
from leakcheck.flow.context import tensors_of
from leakcheck.flow.counterexample import Check, same
from leakcheck.flow.escapes import HANDLERS, VALUES, Escapes
from leakcheck.flow.labels import GENERIC, HOLE, KNOWN, Labels
from leakcheck.flow.operand import Operand
from leakcheck.flow.rules.sorting import running
from leakcheck.flow.sizes import Sizes

Kind = Literal["pointwise", "positionwise", "causal"]
Function = TypeVar("Function", bound=Callable[..., Any])


def declare(kind: Kind, *, dim: int | None = None, batch: int | None = 0) -> Callable[[Function], Function]:
    """Declare how positions of a function's results depend on positions of its arguments; see above.

    Raises:
        ValueError: the kind is unknown, or `dim` is missing or has no meaning for it.
    """
    if kind not in ("pointwise", "positionwise", "causal"):
        raise ValueError(f"unknown kind of function {kind!r}: pointwise, positionwise or causal")
    if (dim is None) != (kind == "pointwise"):
        raise ValueError("a pointwise function has no dim" if kind == "pointwise" else f"{kind} along which dim?")

    def decorate(function: Function) -> Function:
        @functools.wraps(function)
        def declared(*args: Any, **kwargs: Any) -> Any:
            tensors = tuple(leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor))
            if has_torch_function(tensors):  # a trace is active (or an argument is of a subclass of Tensor)
                return handle_torch_function(declared, tensors, *args, **kwargs)
            return function(*args, **kwargs)

        declaration = Declaration(function, kind, dim, batch)
        HANDLERS[declared] = lambda escapes, _, args, kwargs: declaration.traced(escapes, args, kwargs)
        return declared  # type: ignore[return-value]

    return decorate


@dataclass(frozen=True, eq=False)
class Declaration:
    """What is said of one function, and how a trace runs it."""

    function: Callable[..., Any]
    kind: Kind
    dim: int | None
    batch: int | None

    def __str__(self) -> str:
        return self.kind if self.dim is None else f"{self.kind} along dim {self.dim}"

    @property
    def name(self) -> str:
        return getattr(self.function, "__qualname__", repr(self.function))

    def traced(self, escapes: Escapes, args: tuple, kwargs: dict) -> Any:
        """Run as one op: its results are labelled by the declaration, or HOLE where that does not hold."""
        mirror, reports = escapes.flow.mirror, escapes.flow.reports
        leaves = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        with torch._C.DisableTorchFunction(), _disable_current_modes():
            operands = [Operand(leaf, mirror, rowwise=True, soft=False) for leaf in leaves]
            labelled = any(x.labels.settled().highest >= 0 for x in operands)
            before = [leaf.clone() for leaf in leaves]
        inside = _Inside(escapes, leaves, max((x.labels.settled().highest for x in operands), default=KNOWN))
        with _disable_current_modes(), inside.functions, inside:
            result = self.function(*args, **kwargs)
        with torch._C.DisableTorchFunction(), _disable_current_modes():
            outputs = tree_leaves(result)
            written = [x for x, old in zip(leaves, before, strict=True) if not same(x, old)]
            faults = []
            if inside.captured:
                faults.append("it reads a token-dependent tensor that is no argument")
            if written:
                faults.append("it writes to its arguments")
            if labelled and any(leaf is not None and not isinstance(leaf, Tensor) for leaf in outputs):
                faults.append("it returns more than tensors")
            if labelled and not faults:
                key = (self, *_signature(args, kwargs, operands))
                if key not in escapes.declared:
                    escapes.declared[key] = Check(
                        self.function, self.label, self.cells, args, kwargs, operands
                    ).counterexample()
                if refuted := escapes.declared[key]:
                    faults.append(refuted)
            for fault in faults:
                reports.hole(self.name, "refuted declaration", f"declared {self}, but {fault}")
            tensors = [leaf for leaf in outputs if isinstance(leaf, Tensor)]
            sizes = Sizes(mirror, self.name, operands, tensors)
            labels = sizes.join([self.label([x.labels for x in operands], t.shape) for t in tensors])
            for tensor, label in zip(tensors, labels, strict=True):
                mirror.write(tensor, Labels.full(tensor.shape, HOLE) if faults else label.expand(tensor.shape))
            for tensor in written:
                mirror.write(tensor, Labels.full(tensor.shape, HOLE))
            sizes.store(in_place=False)
        return result

    def label(self, several: Sequence[Labels], shape: torch.Size) -> Labels:
        """The labels of a result of `shape` from those of the tensor arguments; parameters may be in it in any case."""
        if self.kind == "pointwise":
            parts = [x if _broadcasts(x.shape, shape) else x.everywhere(shape) for x in several]
        else:
            parts = [self._by_position(x, shape) for x in several]
        return L.join(*parts, Labels.full((), GENERIC)).expand(shape)

    def _by_position(self, x: Labels, shape: torch.Size) -> Labels:
        pairs = self._aligned(x.shape, shape)  # dimension of the argument, dimension of the result
        mixed = [d for d in range(len(x.shape)) if d not in dict(pairs)]
        cells = x.over(mixed, keepdim=True) if mixed else x
        positions = None if self.dim is None else _dimension(self.dim, x.shape)
        if self.kind == "causal" and positions in dict(pairs):
            assert positions is not None
            cells = running(L.floor(cells.settled()), positions)
        pairs = sorted(pairs, key=lambda pair: pair[1])
        laid = [shape[d] if d in dict(pairs).values() else 1 for d in range(len(shape))]
        return cells.view(lambda t: t.permute([a for a, _ in pairs] + mixed).reshape(laid).expand(shape))

    def _aligned(self, x: torch.Size, out: torch.Size) -> list[tuple[int, int]]:
        pairs: list[tuple[int, int]] = []
        for axis in (self.dim, self.batch):
            if axis is None:
                continue
            a, b = _dimension(axis, x), _dimension(axis, out)
            if a is not None and b is not None and x[a] == out[b] and a not in dict(pairs):
                pairs.append((a, b))
        return pairs

    def cells(self, shape: torch.Size) -> Tensor:
        """Numbers, of the shape of an argument: what is changed together has the same."""
        if self.kind == "pointwise":
            return torch.arange(shape.numel()).reshape(shape)
        number = torch.zeros(shape, dtype=torch.int64)
        for axis in {_dimension(axis, shape) for axis in (self.dim, self.batch) if axis is not None} - {None}:
            assert axis is not None
            along = torch.arange(shape[axis]).reshape([-1 if d == axis else 1 for d in range(len(shape))])
            number = number * shape[axis] + along
        return number


class _Inside(TorchDispatchMode):
    """Watches the ops of a declared function: which tensors they read that came in by another way than the arguments.

    What they make or write to gets the `highest` label of the arguments, should it outlive the call.
    """

    def __init__(self, escapes: Escapes, arguments: Sequence[Tensor], highest: int):
        super().__init__()
        self.mirror, self.highest, self.captured = escapes.flow.mirror, highest, False
        self._given = {_storage(t) for t in arguments}
        self._made: set[int] = set()
        self.functions = _ValuesInside(self)

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        read = [t for t in tree_leaves((args, kwargs)) if isinstance(t, Tensor)]
        for tensor in read:
            self.look(tensor)
        result = func(*args, **(kwargs or {}))
        before = {_storage(t) for t in read}
        with torch._C.DisableTorchFunction():
            for tensor in tensors_of(result):
                storage = _storage(tensor)
                if storage not in before:
                    self._made.add(storage)
                if storage not in self._given and not func.is_view:
                    self.mirror.write(tensor, Labels.full(tensor.shape, max(self.highest, GENERIC)))
        return result

    def look(self, tensor: Tensor) -> None:
        if _storage(tensor) not in self._given | self._made:
            with torch._C.DisableTorchFunction():
                self.captured |= self.mirror.read(tensor).settled().highest >= 0


class _ValuesInside(TorchFunctionMode):
    """The same for what leaves torch inside a declared function, as it may if it is an argument."""

    def __init__(self, inside: _Inside):
        super().__init__()
        self.inside = inside

    def __torch_function__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        if func in VALUES:
            self.inside.look(args[0])
        return func(*args, **(kwargs or {}))


def _storage(tensor: Tensor) -> int:
    with torch._C.DisableTorchFunction():
        return tensor.untyped_storage()._cdata


def _dimension(axis: int, shape: torch.Size) -> int | None:
    return axis % len(shape) if -len(shape) <= axis < len(shape) else None


def _broadcasts(shape: torch.Size, to: torch.Size) -> bool:
    return len(shape) <= len(to) and all(n in (1, m) for n, m in zip(reversed(shape), reversed(to), strict=False))


def _signature(args: tuple, kwargs: dict, operands: Sequence[Operand]) -> tuple:
    """Calls that are alike in it are checked once: shapes, known values, and every other argument."""
    tensors = tuple((x.shape, x.value.dtype, tuple(x.value.flatten().tolist()) if x.known else None) for x in operands)
    leaves, spec = tree_flatten((args, kwargs))
    plain = (int, float, bool, str, type(None))
    others = tuple(leaf if isinstance(leaf, plain) else id(leaf) for leaf in leaves if not isinstance(leaf, Tensor))
    return tensors, others, str(spec)
