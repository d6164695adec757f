"""Decoding as a state machine: Hypothesis looks for the shortest way to make a cache give something else."""


from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from leakcheck.laws import Append, Crop, Decoding, NotApplicable, Reorder, Reset, Step, twin
from leakcheck.strategies.inputs import VOCABULARY

_ROWS = 3


def decoding(model: object, *, vocab_size: int = VOCABULARY, max_length: int = 16) -> type[RuleBasedStateMachine]:
    """A machine that appends tokens and chunks to a cache, crops and reorders it, and begins anew.

    After each step what is cached has to give what a forward of the same tokens gives, in float64. A step that the cache
    cannot do is not taken.

    Raises:
        NotApplicable: the model keeps no cache.
    """
    both = twin(model)
    Decoding(both).take(Append(((0,),)))

    def rows(length: int) -> st.SearchStrategy[list[list[int]]]:
        """Chunks `[3, length]`, of which the batch takes as many rows as it has."""
        row = st.lists(st.integers(0, vocab_size - 1), min_size=length, max_size=length)
        return st.lists(row, min_size=_ROWS, max_size=_ROWS)

    chunk = st.integers(2, 5).flatmap(rows)

    class DecodingMachine(RuleBasedStateMachine):
        def __init__(self) -> None:
            super().__init__()
            self.decoding = Decoding(both)
            self.rows = 1

        @property
        def room(self) -> int:
            return max_length - self.length

        @property
        def length(self) -> int:
            return self.decoding.tokens.shape[1]

        @initialize(rows=st.integers(1, _ROWS), prompt=rows(1) | chunk)
        def begin(self, rows: int, prompt: list[list[int]]) -> None:
            self.rows = rows
            self._append(prompt)

        @precondition(lambda self: self.room > 0)
        @rule(token=rows(1))
        def append(self, token: list[list[int]]) -> None:
            self._append(token)

        @precondition(lambda self: self.room > 1)
        @rule(chunk=chunk)
        def append_chunk(self, chunk: list[list[int]]) -> None:
            self._append([row[: self.room] for row in chunk])

        @precondition(lambda self: self.length > 1)
        @rule(count=st.integers(1, max_length - 1))
        def crop(self, count: int) -> None:
            self._take(Crop(min(count, self.length - 1)))

        @rule(rows=st.lists(st.integers(0, _ROWS - 1), min_size=_ROWS, max_size=_ROWS))
        def reorder(self, rows: list[int]) -> None:
            self._take(Reorder(tuple(row % self.rows for row in rows[: self.rows])))

        @rule(rows=st.integers(1, _ROWS), prompt=rows(1) | chunk)
        def reset(self, rows: int, prompt: list[list[int]]) -> None:
            self._take(Reset())
            self.begin(rows, prompt)

        def _append(self, chunk: list[list[int]]) -> None:
            self.decoding.take(Append(tuple(map(tuple, chunk[: self.rows]))))

        def _take(self, step: Step) -> None:
            try:
                self.decoding.take(step)
            except NotApplicable:
                return

    return DecodingMachine
