"""What the laws are tried on: a model, with one of its attention backends."""

import copy
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import pytest
import torch

from leakcheck.errors import LeakcheckError, SubjectCrash, crashed
from leakcheck.laws import Twin
from leakcheck.subjects import backends
from leakcheck.subjects.adapter import Adapter
from leakcheck.subjects.load import load
from leakcheck.subjects.subject import Subject, unwrapped

_CLEAN = ("llama", "method1_v3")
_SHORT = 16
# These run the model on parts of what they are given.
_IN_PARTS = ("cache_consistent", "documents_independent", "padding_invariant", "prefix_consistent")


@dataclass(frozen=True, eq=False, repr=False)
class Audited:
    """A subject under one attention backend."""

    name: str
    subject: Subject
    backend: str

    def __repr__(self) -> str:
        return self.name

    @cached_property
    def twin(self) -> Twin:
        model = copy.deepcopy(self.subject.model)
        inner: Any = unwrapped(model)
        if self.backend != "default":
            backends.switch(inner, self.backend)
        return Twin(model)

    @cached_property
    def lengths(self) -> list[int]:
        """At which lengths the model is run: all short ones that it takes, and the length of an audit."""
        if isinstance(self.subject.model, Adapter):
            return [self.subject.seq_len]
        return [length for length in self._wanted if self._takes(length)]

    @property
    def _wanted(self) -> list[int]:
        longest = self.subject.seq_len
        return sorted({*range(2, min(_SHORT, longest) + 1), longest})

    @property
    def drawn(self) -> dict[str, Any]:
        """What `strategies.arguments` has to know."""
        model = self.subject.model
        step = model.step if isinstance(model, Adapter) else 1
        return {"vocab_size": self.subject.vocab_size, "lengths": self.lengths, "step": step}

    def without(self, law: str) -> str:
        """Why the law cannot be tried; empty if it can."""
        if law in _IN_PARTS and self.lengths != self._wanted:
            return f"the model is not run at every length, but at {', '.join(map(str, self.lengths))}"
        return ""

    def _takes(self, length: int) -> bool:
        try:
            self.twin.single(torch.zeros(1, length, dtype=torch.long))
        except SubjectCrash:
            return length == self.subject.seq_len  # then a law says why
        return True


def of_spec(spec: str) -> list[Audited]:
    """The model that a SPEC names, under each of its backends.

    Raises:
        pytest.UsageError: it cannot be loaded; one line.
    """
    try:
        subject = load(spec)
    except LeakcheckError as error:
        raise pytest.UsageError(str(error)) from None
    except Exception as error:
        raise pytest.UsageError(f"{spec}: {crashed(error)}") from None
    return [Audited(backend, subject, backend) for backend in subject.attention_backends]


def built_in() -> list[Audited]:
    """The built-in models that do not leak."""
    subjects = [load(name) for name in _CLEAN]
    return [Audited(f"{s.spec}-{backend}", s, backend) for s in subjects for backend in s.attention_backends]
