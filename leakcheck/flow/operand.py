"""What a rule is given for each tensor argument: the tensor itself, and its labels."""

from typing import Any

import torch
from torch import Tensor

from leakcheck.flow.absent import is_absent, stand_in
from leakcheck.flow.labels import KNOWN, Labels
from leakcheck.flow.storage import Mirror, by_value


class Operand:
    """One tensor argument. A rule may look at `value` only where the labels say KNOWN, or to report, never to decide.

    `value` is the `tensor`, as it was before the op, or a stand-in for one without values (`absent.py`).

    `labels` have no owners unless the rule is `rowwise`, and no soft labels unless it is `soft`. `structure` are the
    same labels with the zeros and the blocking constants of known values made visible.
    """

    __slots__ = ("_mirror", "_record", "_rowwise", "_soft", "_structure", "_value", "labels", "tensor")

    def __init__(self, value: Tensor, mirror: Mirror, *, rowwise: bool, soft: bool):
        self.tensor = value
        self._value: Tensor | None = None
        self._record = mirror.record(value)
        self._mirror, self._rowwise, self._soft = mirror, rowwise, soft
        self.labels = self._prepared(mirror.labels(self._record, value))
        self._structure: Labels | None = None

    def _prepared(self, labels: Labels) -> Labels:
        if labels.owners is not None and not (self._rowwise and labels.owners.complete()):
            labels = labels.settled()
        if labels.soft and not self._soft:
            labels = labels.hardened()
        return labels

    @property
    def absent(self) -> bool:
        """Whether the tensor has no values."""
        return is_absent(self.tensor)

    @property
    def is_mask(self) -> bool:
        """Whether it would choose elements, as an index."""
        return self.tensor.dtype in (torch.bool, torch.uint8)

    @property
    def value(self) -> Tensor:
        if self._value is None:
            self._value = stand_in(self.tensor, self.labels) if self.absent else self.tensor
        return self._value

    @value.setter
    def value(self, value: Tensor) -> None:
        self._value = value

    @property
    def structure(self) -> Labels:
        if self._structure is None:
            known = self.labels.uniform == KNOWN
            self._structure = self._mirror.structure(self.tensor) if known else self.labels
        return self._structure

    def shown(self, view: Tensor) -> Labels:
        """The labels of another view of the same storage."""
        return self._prepared(self._mirror.labels(self._record, view))

    def freeze(self) -> None:
        """Keep the values as they are before the op overwrites them."""
        self.value = self.value.clone()
        self._structure = by_value(self.value) if self.labels.uniform == KNOWN else self.labels

    @property
    def facts(self) -> dict[str, Any]:
        """What routing rules know of the values, if this operand shows all of its storage."""
        whole = self.tensor.numel() * self.tensor.element_size() == self.tensor.untyped_storage().nbytes()
        return self._record.facts if whole else {}

    @property
    def shape(self) -> Any:
        return self.tensor.shape

    def dim(self) -> int:
        return self.tensor.dim()

    @property
    def known(self) -> bool:
        """Whether the values depend on nothing."""
        return self.labels.uniform is not None and self.labels.uniform < -1 and not self.absent

    @property
    def size(self) -> int:
        """The label of what decides how large it is."""
        return self._record.size

    def state(self, **facts: Any) -> None:
        """Add to what is known of the values as a whole."""
        if self.tensor.numel() * self.tensor.element_size() == self.tensor.untyped_storage().nbytes():
            self._record.facts.update(facts)
