"""What became of a policy under one configuration, and what each witness said of it by itself."""

from dataclasses import dataclass, replace

from leakcheck.auditing.policies.question import Question
from leakcheck.config import Configuration
from leakcheck.findings import ConfigurationResult, Control, Verdict, worst
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
        """Whether a witness refutes what flow proves. A finite mask value may be crossed, any by what is not finite."""
        move = None if self.moved is None else self.moved.worst
        refuted = self.verdict is Verdict.LEAK and move is not None and move.delta < float("inf")
        return refuted and self.proven and not self.soft_masks


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


@dataclass(frozen=True)
class Policed:
    """One configuration: what became of each policy that was asked for."""

    configuration: Configuration
    outcomes: tuple[PolicyOutcome, ...]

    @property
    def verdict(self) -> Verdict:
        return worst(outcome.verdict for outcome in self.outcomes)

    def beside(self, result: ConfigurationResult | None) -> ConfigurationResult:
        """The result of the configuration with these policies; without any of its own if the contract was not asked."""
        configuration = self.configuration
        if result is None:
            result = ConfigurationResult(
                id=configuration.id,
                attention=configuration.attention,
                mask=configuration.mask,
                mode=configuration.mode,
                cache=configuration.cache,
                verdict=Verdict.NOT_APPLICABLE,
                policies={},
                paths={},
                output_delta=0.0,
                relative_delta=0.0,
                gradient_delta=0.0,
                rounding_delta=0.0,
                worst_case=None,
                pairs_covered=0,
                pairs_total=0,
                padded_queries=0,
                padded_queries_moved=0,
            )
        pairs = 0 if result.policies else sum(outcome.pairs for outcome in self.outcomes)
        return replace(
            result,
            verdict=worst((result.verdict, self.verdict)),
            policies={**result.policies, **{outcome.policy: outcome.verdict for outcome in self.outcomes}},
            policy_deltas={outcome.policy: outcome.moved for outcome in self.outcomes},
            pairs_covered=result.pairs_covered + pairs,
            pairs_total=result.pairs_total + pairs,
        )
