"""What all findings of a run have in common: the command that shows them again, and how a witness is written down."""

import math
import shlex
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

from leakcheck import codes
from leakcheck.checkpoints import source
from leakcheck.config import CAUSAL, Configuration, Settings
from leakcheck.errors import SubjectCrash
from leakcheck.findings import Finding, Step, Verdict, WorstCase, fingerprint
from leakcheck.flow.blame import Blame, Link
from leakcheck.flow.reports import CONTROL_FLOW, Hole, Place, SoftMask
from leakcheck.subjects.subject import Subject

# What kind of hole is which finding; whatever else flow may name is an op that it cannot look into.
_HOLES = {
    "op without a rule": codes.NO_RULE,
    "rule failed": codes.NO_RULE,
    CONTROL_FLOW: codes.CONTROL_FLOW,
}


class Configured(Protocol):
    """Whatever was examined, judged or tried under a configuration."""

    @property
    def configuration(self) -> Configuration: ...


@dataclass(frozen=True)
class Crashed:
    """A configuration under which the subject does not run, and what it raised."""

    configuration: Configuration
    error: SubjectCrash


def options(settings: Settings, policy: str = "") -> str:
    """The options of a command line that ask for the same audit, length and backend aside; or for one policy of it."""
    contracts = () if policy or settings.contract == CAUSAL else str(settings.contract).split("+")
    given = [
        *(("--policy", name) for name in (policy,) if name),
        *(("--seed", str(settings.seed)) for _ in range(bool(settings.seed))),
        *(("--contract", text) for text in contracts),
        *(("--accept-batch", name) for name in settings.accept_batch),
        *(("--input", text) for text in settings.inputs),
        *(("--output", text) for text in settings.outputs),
    ]
    return "".join(f" {name} {shlex.quote(value)}" for name, value in given)


class Context:
    """Makes findings of one run."""

    def __init__(self, subject: Subject, settings: Settings):
        self.spec, self.seq, self.settings = subject.spec, subject.seq_len, settings
        self.live = subject.live
        self.no_weights, self.full = settings.no_weights, subject.full

    def finding(
        self,
        code: codes.Code,
        verdict: Verdict,
        examined: Configured,
        message: str,
        policy: str = "",
        **where: Any,
    ) -> Finding:
        """A finding of the contract, or of the `policy` that is named."""
        attention = examined.configuration.attention
        seq = self.seq if self.full is None else self.full.seq_len
        command = f"leakcheck run --model {shlex.quote(self.spec)} --seq-len {seq}"
        if self.no_weights:
            command += " --no-weights"
        if self.settings.trust_remote_code:
            command += " --trust-remote-code"
        if attention != "default":
            command += f" --attn {attention}"
        command += options(self.settings, policy)
        if self.live:
            policies = f", policies=({policy!r},)" if policy else ""
            command = f"leakcheck.audit({self.spec}, Settings(seq_len={self.seq}, seed={self.settings.seed}{policies}))"
        place = {"module": "", "file": "", "line": None, "witness": None, **where}
        return Finding(
            code=code.id,
            verdict=verdict,
            policy=policy or str(examined.configuration.contract),
            configuration=examined.configuration.id,
            message=message,
            chain=(),
            reproduce=command,
            **place,
        )

    def witness(self, case: WorstCase | None) -> dict | None:
        if case is None:
            return None
        return {
            "seq_len": self.seq,
            "seed": self.settings.seed,
            "draw": case.draw,
            "cut": case.cut,
            "position": case.position,
            "channel": case.channel,
            "delta": case.delta,
            **({"changed": "before the cut"} if case.before else {}),
            **({} if self.full is None else {"model": "the shrunken copy"}),
        }

    def explained(self, finding: Finding, blame: Blame | None) -> Finding:
        """With why in a second sentence, and the way from the token that is read to the position that reads it."""
        if blame is None:
            return finding
        place = {**at(blame.place), "module": blame.module} if blame.place else {}
        why = blame.sentence if self.full is None else f"in the shrunken copy {blame.sentence}"
        message = f"{finding.message}. {why[:1].upper()}{why[1:]}"
        return replace(finding, message=message, operation=blame.op, steps=tuple(map(_step, blame.chain)), **place)

    def complete(self, finding: Finding) -> Finding:
        """With all that follows from the rest of it."""
        placed = bool(finding.file) and finding.line is not None
        whole = replace(
            finding,
            chain=tuple(map(str, finding.steps)),
            excerpt=source.excerpt(finding.file, finding.line or 1) if placed else None,
        )
        return replace(whole, fingerprint=fingerprint(whole, self.spec))

    def limits(
        self, examined: Configured, holes: Sequence[Hole], soft_masks: Sequence[SoftMask], policy: str = ""
    ) -> list[Finding]:
        """Where a proof ends, and the finite mask values that it rests on; neither changes the verdict by itself."""
        found = []
        for hole in holes:
            message = f"{hole.op}: {hole.carries}"
            code = _HOLES.get(hole.kind, codes.OPAQUE)
            found.append(
                self.finding(code, Verdict.OPEN, examined, message, policy, operation=hole.op, **at(hole.place))
            )
        for mask in soft_masks:
            message = (
                f"soft mask, value {mask.value:.3g}, margin {mask.margin:.3g}: a score that much higher crosses it"
            )
            if math.isnan(mask.margin):
                message = (
                    "soft mask: a score that is as much higher as it is low crosses it; how much weights would tell"
                )
            found.append(self.finding(codes.SOFT_MASK, Verdict.OPEN, examined, message, policy, **at(mask.place)))
        return found


def _step(link: Link) -> Step:
    place = source.excerpt(link.place.file, link.place.line) if link.place else None
    return Step(f"{link.op}, {link.effect}", link.module, place)


def at(place: Place | None) -> dict[str, Any]:
    """File and line of a finding."""
    return {} if place is None else {"file": source.short_path(place.file), "line": place.line}
