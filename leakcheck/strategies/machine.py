"""Decoding as a state machine: Hypothesis looks for the shortest way to make a cache give something else."""

from itertools import product

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from leakcheck.laws import Append, Crop, Decoding, NotApplicable, Reorder, Reset, Step, twin
from leakcheck.strategies.inputs import VOCABULARY

_ROWS = 3
_ORDERS = sorted(product(range(_ROWS), repeat=_ROWS), key=lambda order: order != (1, 0, 2))


def decoding(model: object, *, vocab_size: int = VOCABULARY, max_length: int = 16) -> type[RuleBasedStateMachine]:
    """A machine that appends tokens and chunks to a cache, crops and reorders it, and begins anew.

    Each chunk has to give what it gives in a forward of all tokens without a cache, in float64. A step that the cache
    cannot do is not taken. Of a batch the first row is drawn; each other has the next token of the vocabulary, so that
    no two rows are alike.

    Raises:
        NotApplicable: the model keeps no cache.
    """
    both = twin(model)
    Decoding(both).take(Append(((0,),)))
    chunks = st.lists(st.integers(0, vocab_size - 1), min_size=1, max_size=5)
    batches = st.integers(1, _ROWS)

    class DecodingMachine(RuleBasedStateMachine):
        def __init__(self) -> None:
            super().__init__()
            self.decoding = Decoding(both)
            self.rows = 1

        @property
        def length(self) -> int:
            return self.decoding.tokens.shape[1]

        @initialize(rows=batches, chunk=chunks)
        def begin(self, rows: int, chunk: list[int]) -> None:
            self.rows = rows
            self.append(chunk)

        @precondition(lambda self: self.length < max_length)
        @rule(chunk=chunks)
        def append(self, chunk: list[int]) -> None:
            fitting = chunk[: max_length - self.length]
            rows = range(self.rows)
            self.decoding.take(Append(tuple(tuple((token + row) % vocab_size for token in fitting) for row in rows)))

        @precondition(lambda self: self.length > 1)
        @rule(count=st.integers(1, max_length - 1))
        def crop(self, count: int) -> None:
            self._try(Crop(min(count, self.length - 1)))

        @precondition(lambda self: self.rows > 1)
        @rule(order=st.sampled_from(_ORDERS))
        def reorder(self, order: tuple[int, ...]) -> None:
            self._try(Reorder(tuple(row % self.rows for row in order[: self.rows])))

        @precondition(lambda self: 2 * self.length > max_length)
        @rule(rows=batches, chunk=chunks)
        def reset(self, rows: int, chunk: list[int]) -> None:
            self.decoding.take(Reset())
            self.begin(rows, chunk)

        def _try(self, step: Step) -> None:
            try:
                self.decoding.take(step)
            except NotApplicable:
                return

    return DecodingMachine
