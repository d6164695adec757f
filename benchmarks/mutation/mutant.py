"""A mutant: one thing broken on purpose, in a process of its own."""

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Mutant:
    """`apply` breaks the running program; a process that called it is of no other use.

    `family` is what its score is counted under, `place` where it is, `change` what is other there. `touches` is what
    tests must run to notice it: an entry of the registry, or a statement as `file:line`. `direction`: whether the tool
    claims less than it must (`unsound`), more (`coarse`), or either (`source`).
    """

    family: str
    direction: str
    place: str
    change: str
    touches: str
    apply: Callable[[], None]

    @property
    def key(self) -> tuple[str, str, str]:
        return self.family, self.place, self.change

    @property
    def name(self) -> str:
        return f"{self.place}: {self.change}"
