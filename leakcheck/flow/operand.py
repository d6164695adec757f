"""What a rule is given for each tensor argument: the tensor itself, and its labels."""

from typing import Any

from torch import Tensor

from leakcheck.flow.labels import KNOWN, Labels
from leakcheck.flow.storage import Mirror, by_value


class Operand:
    """One tensor argument. A rule may look at `value` only where the labels say KNOWN, or to report, never to decide.

    `labels` have no owners unless the rule is `rowwise`, and no soft labels unless it is `soft`. `structure` are the
    same labels with the zeros and the blocking constants of known values made visible.
    """

    __slots__ = ("_mirror", "_record", "_rowwise", "_soft", "_structure", "labels", "value")

    def __init__(self, value: Tensor, mirror: Mirror, *, rowwise: bool, soft: bool):
        self.value = value
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
    def structure(self) -> Labels:
        if self._structure is None:
            known = self.labels.uniform == KNOWN
            self._structure = self._mirror.structure(self.value) if known else self.labels
        return self._structure

    def freeze(self) -> None:
        """Keep the values as they are before the op overwrites them."""
        self.value = self.value.clone()
        self._structure = by_value(self.value) if self.labels.uniform == KNOWN else self.labels

    @property
    def facts(self) -> dict[str, Any]:
        """What routing rules know of the values, if this operand shows all of its storage."""
        whole = self.value.numel() * self.value.element_size() == self.value.untyped_storage().nbytes()
        return self._record.facts if whole else {}

    @property
    def shape(self) -> Any:
        return self.value.shape

    def dim(self) -> int:
        return self.value.dim()

    @property
    def known(self) -> bool:
        """Whether the values depend on nothing."""
        return self.labels.uniform is not None and self.labels.uniform < -1

    @property
    def size(self) -> int:
        """The label of what decides how large it is."""
        return self._record.size

    def state(self, **facts: Any) -> None:
        """Add to what is known of the values as a whole."""
        if self.value.numel() * self.value.element_size() == self.value.untyped_storage().nbytes():
            self._record.facts.update(facts)
