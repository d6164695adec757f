"""What became of a policy under one configuration, and what each witness said of it by itself."""

from dataclasses import dataclass

from leakcheck.auditing.policies.question import Question
from leakcheck.findings import Control, Verdict, worst
from leakcheck.flow.blame import Blame
from leakcheck.flow.reports import Hole, SoftMask
from leakcheck.flow.trace import Violation
from leakcheck.probes.groups import Moved


@dataclass(frozen=True, eq=False)
class Answer:
    """What became of one question. `moved` is `None` if nothing was changed or compared, `violations` if not traced."""

    question: Question
    verdict: Verdict
    moved: Moved | None = None
    violations: tuple[Violation, ...] | None = None
    proven: bool = False
    holes: tuple[Hole, ...] = ()
    soft_masks: tuple[SoftMask, ...] = ()
    blame: Blame | None = None
    controls: tuple[Control, ...] = ()

    @property
    def contradicted(self) -> bool:
        """Whether a witness refutes what flow proves. A finite mask value may be crossed; what is not finite may too."""
        refuted = self.verdict is Verdict.LEAK and self.proven and not self.soft_masks
        return refuted and self.moved is not None and self.moved.worst is not None and self._finite

    @property
    def _finite(self) -> bool:
        return self.moved is not None and self.moved.worst is not None and self.moved.worst.delta < float("inf")


@dataclass(frozen=True, eq=False)
class PolicyOutcome:
    """What became of a policy: the worst of its answers; NOT_APPLICABLE if nothing was asked.

    `crash` says what the subject raised, if it does not run as the policy asks.
    """

    policy: str
    answers: tuple[Answer, ...] = ()
    crash: str = ""

    @property
    def verdict(self) -> Verdict:
        return Verdict.OPEN if self.crash else worst(answer.verdict for answer in self.answers)

    @property
    def worst(self) -> Answer | None:
        return next((answer for answer in self.answers if answer.verdict is self.verdict), None)

    @property
    def moved(self) -> float | None:
        """What the probes alone saw: how far an output moved that must not; `None` if they did not look."""
        seen = [answer.moved for answer in self.answers if answer.moved is not None and answer.moved.repeatable]
        return max((0.0 if m.worst is None else m.worst.delta for m in seen), default=None)

    @property
    def violations(self) -> tuple[Violation, ...] | None:
        """What flow alone says; `None` if it did not look."""
        told = [answer.violations for answer in self.answers if answer.violations is not None]
        return tuple(violation for each in told for violation in each) if told else None

    @property
    def holes(self) -> tuple[Hole, ...]:
        return tuple(hole for answer in self.answers for hole in answer.holes)

    @property
    def blame(self) -> Blame | None:
        return next((answer.blame for answer in self.answers if answer.blame is not None), None)

    @property
    def controls(self) -> tuple[Control, ...]:
        return tuple(control for answer in self.answers for control in answer.controls)

    @property
    def pairs(self) -> int:
        return sum(answer.question.pairs for answer in self.answers)
