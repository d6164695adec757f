"""Put the questions of a policy to the witnesses: probes refute, flow proves, controls say whether they can see."""

from collections.abc import Sequence
from dataclasses import replace

from leakcheck.auditing.policies import following
from leakcheck.auditing.policies.following import Followed
from leakcheck.auditing.policies.outcome import Answer, PolicyOutcome
from leakcheck.auditing.policies.question import Question
from leakcheck.auditing.policies.registry import Policy
from leakcheck.config import Configuration
from leakcheck.errors import SubjectCrash
from leakcheck.findings import Control, Verdict
from leakcheck.probes.groups import MORE_DRAWS, Change, Mix, Moved, differing, moved, sees
from leakcheck.probes.probe import Prober


class Judge:
    """Judges policies of one model under any number of configurations.

    Where the model is a shrunken copy of `full`, probes and blame speak of the copy, and flow of the full size.
    """

    def __init__(self, prober: Prober, full: Prober | None = None):
        self.prober, self.full = prober, full
        self._controls: dict[tuple, tuple[Control, ...]] = {}

    def judge(self, policy: Policy, configuration: Configuration) -> PolicyOutcome:
        """A crash of the subject is part of the outcome: it may run under other policies.

        Cost of each question: some ten forwards of a few rows for the probes, twice that if something moves; two
        traces; four for flow's controls, once for each attention backend.
        """
        try:
            questions = policy.questions(self.prober, configuration)
            at_full_size = questions if self.full is None else policy.questions(self.full, configuration)
            answers = [
                self._answer(configuration, question, large)
                for question, large in zip(questions, at_full_size, strict=True)
            ]
        except SubjectCrash as error:
            return PolicyOutcome(policy.name, crash=str(error))
        return PolicyOutcome(policy.name, tuple(answers))

    def _answer(self, configuration: Configuration, question: Question, large: Question) -> Answer:
        if not question.orders:
            return self._compared(configuration, question)
        found = self._moved(configuration, question)
        seen = self._sees(configuration, question) if found.repeatable else ()
        flow = following.follow(self.full or self.prober, configuration, large, self.prober, question)
        if found.worst is None and found.repeatable and flow.violations:
            found = self._moved(configuration, question, more=True)
        other, whole = question.otherwise, large.otherwise
        if other is not None and whole is not None and (found.worst or flow.violations):
            # What the other way to run it shows as well is no matter of this policy.
            if self._moved(configuration, other).worst:
                found = replace(found, worst=None)
            if following.follow(self.full or self.prober, configuration, whole, self.prober, other).violations:
                flow = replace(flow, violations=())
        controls = (
            Control("two equal inputs", "no delta", found.repeatable),
            *seen,
            *self._flow_controls(configuration, large, flow),
        )
        blame = None
        if flow.violations:
            story = flow if self.full is None else following.follow(self.prober, configuration, question)
            blame = following.why(self.prober, configuration, question, story)
        return Answer(
            question=question,
            verdict=_verdict(found, flow, controls),
            moved=found,
            violations=flow.violations if flow.traced else None,
            proven=flow.proven,
            holes=flow.holes,
            soft_masks=flow.soft_masks,
            blame=blame,
            controls=controls,
        )

    def _compared(self, configuration: Configuration, question: Question) -> Answer:
        """Of two ways to run the same inputs: there is no proof that they agree."""
        assert question.same_as is not None
        found = differing(self.prober, configuration, question.run, question.same_as, question.tokens, question.valid)
        verdict = Verdict.OPEN
        if found.worst is not None:
            verdict = Verdict.SUSPECT if found.unconfirmed else Verdict.LEAK
        return Answer(question, verdict, moved=found)

    def _moved(self, configuration: Configuration, question: Question, *, more: bool = False) -> Moved:
        draws = {"draws": MORE_DRAWS} if more else {}
        return moved(
            self.prober,
            configuration,
            question.run,
            question.tokens,
            question.changes,
            question.valid,
            **draws,
        )

    def _sees(self, configuration: Configuration, question: Question) -> tuple[Control, ...]:
        mix = question.leak(question.orders[0])
        if mix is None:
            return ()
        change = _showing(question.changes, mix)
        caught = sees(self.prober, configuration, question.run, question.tokens, change, mix)
        return (Control(f"an output reads a thousandth of {question.what}", "delta", caught),)

    def _flow_controls(self, configuration: Configuration, question: Question, flow: Followed) -> tuple[Control, ...]:
        key = (configuration.attention, configuration.mask, question.code.id)
        if flow.complete and key not in self._controls:
            self._controls[key] = following.planted(self.full or self.prober, configuration, question, flow)
        return self._controls.get(key, ()) if flow.complete else ()


def _showing(changes: Sequence[Change], mix: Mix) -> Change:
    """A change of the source that the planted leak alone lets through."""
    return next(c for c in changes if c.inputs[mix.row, mix.position] and (c.blind & mix.targets).any())


def _verdict(found: Moved, flow: Followed, controls: Sequence[Control]) -> Verdict:
    if found.repeatable and found.worst is not None:
        return Verdict.SUSPECT if found.unconfirmed else Verdict.LEAK
    if flow.violations:
        return Verdict.SUSPECT
    planted = {control.expected for control in controls}
    trusted = {"delta", "violation"} <= planted and all(control.caught for control in controls)
    return Verdict.PROVEN if flow.proven and trusted else Verdict.OPEN
