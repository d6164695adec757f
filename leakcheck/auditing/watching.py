"""Audit the calls that the user's own code makes."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from leakcheck.auditing import audit
from leakcheck.config import Settings
from leakcheck.errors import NothingChecked
from leakcheck.findings import AuditResult, Verdict, worst
from leakcheck.subjects import state
from leakcheck.subjects.examples import described
from leakcheck.subjects.function import bound
from leakcheck.subjects.load import prepared

_LONGEST = 64  # of an own input that is audited whole, unless other arguments have its length too


@dataclass
class Watched:
    """What became of the calls: one audit for each, after the block."""

    results: list[AuditResult] = field(default_factory=list)

    @property
    def verdict(self) -> Verdict:
        return worst(result.verdict for result in self.results)


@contextmanager
def watch(model: nn.Module, settings: Settings | None = None) -> Iterator[Watched]:
    """Audit `model` on the inputs that it is called with inside the block, once for each combination of their shapes.

    The audits run when the block ends, unless it raised: each begins with the first row of the call's own input, and
    hands over every other argument as it was. They are in `Watched.results`.

    Raises:
        NothingChecked: the model was not called.
        UsageError, SubjectCrash: as `audit`.
    """
    calls: dict[Any, dict[str, Any]] = {}

    def seen(module: nn.Module, args: tuple, kwargs: dict) -> None:
        arguments = bound(module, args, kwargs)
        shapes = [leaf.shape if isinstance(leaf, Tensor) else None for leaf in pytree.tree_leaves(arguments)]
        calls.setdefault((tuple(arguments), tuple(shapes)), pytree.tree_map(_copied, arguments))

    watched = Watched()
    handle = model.register_forward_pre_hook(seen, with_kwargs=True)
    try:
        yield watched
    finally:
        handle.remove()
    if not calls:
        raise NothingChecked(f"nothing to audit: {type(model).__name__} was not called inside the block")
    for arguments in calls.values():
        watched.results.append(_audit_call(model, arguments, settings or Settings()))


def _audit_call(model: nn.Module, arguments: Mapping[str, Any], settings: Settings) -> AuditResult:
    with state.preserved(model):
        inputs = described(arguments, model)
        ((name, audited),) = inputs.audited.items()
        steps = arguments[name].shape[audited.axes.index("time")]
        length = settings.seq_len or (steps if steps <= _LONGEST else None)
        name_of = f"a call of {type(model).__qualname__}"
        subject = prepared(name_of, model, "as built", inputs=inputs, examples={name: arguments[name]}, seq_len=length)
        return audit(replace(subject, live=True), settings)


def _copied(value: Any) -> Any:
    return value.detach().clone() if isinstance(value, torch.Tensor) else value
