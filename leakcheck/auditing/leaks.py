"""Findings: what leaks, the line that lets it in, the witness, one command to see it again."""

import math
import shlex
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from leakcheck import codes
from leakcheck.auditing.examine import Examined
from leakcheck.auditing.proof import Proof
from leakcheck.auditing.verdicts import contradicted, unseeing
from leakcheck.checkpoints import source
from leakcheck.config import CAUSAL, Configuration, Settings
from leakcheck.errors import SubjectCrash
from leakcheck.findings import Checkpoint, Finding, Location, Verdict, WorstCase
from leakcheck.flow.blame import Blame, Link
from leakcheck.flow.reports import CONTROL_FLOW, Place
from leakcheck.lineage.passing import Passed
from leakcheck.subjects.subject import Subject


@dataclass(frozen=True)
class Crashed:
    """A configuration under which the subject does not run, and what it raised."""

    configuration: Configuration
    error: SubjectCrash


def findings(
    subject: Subject, examined: Sequence[Examined], settings: Settings, crashed: Sequence[Crashed] = ()
) -> tuple[Finding, ...]:
    """The findings of every configuration, the root cause first."""
    context = _Context(subject, settings)
    found = [f for e in examined for f in _of_configuration(e, context)]
    found += [context.finding(codes.DID_NOT_RUN, Verdict.OPEN, c, str(c.error)) for c in crashed]
    order = list(codes.CODES)
    causes = (codes.MASK_IS_NONE.id, codes.MASK_UNUSED.id, codes.CONTROL_MISSED.id)
    return tuple(sorted(found, key=lambda f: (f.code not in causes, order.index(f.code))))


def options(settings: Settings) -> str:
    """The options of a command line that ask for the same audit, length and backend aside."""
    contracts = () if settings.contract == CAUSAL else str(settings.contract).split("+")
    given = [
        *(("--seed", str(settings.seed)) for _ in range(bool(settings.seed))),
        *(("--contract", text) for text in contracts),
        *(("--accept-batch", name) for name in settings.accept_batch),
        *(("--input", text) for text in settings.inputs),
        *(("--output", text) for text in settings.outputs),
    ]
    return "".join(f" {name} {shlex.quote(value)}" for name, value in given)


class _Context:
    def __init__(self, subject: Subject, settings: Settings):
        self.spec, self.seq, self.settings = subject.spec, subject.seq_len, settings
        self.live = subject.live
        self.no_weights, self.full = settings.no_weights, subject.full

    def finding(
        self, code: codes.Code, verdict: Verdict, examined: Examined | Crashed, message: str, **where
    ) -> Finding:
        attention = examined.configuration.attention
        seq = self.seq if self.full is None else self.full.seq_len
        command = f"leakcheck run --model {shlex.quote(self.spec)} --seq-len {seq}"
        if self.no_weights:
            command += " --no-weights"
        if self.settings.trust_remote_code:
            command += " --trust-remote-code"
        if attention != "default":
            command += f" --attn {attention}"
        command += options(self.settings)
        if self.live:
            command = f"leakcheck.audit({self.spec}, Settings(seq_len={self.seq}, seed={self.settings.seed}))"
        place = {"module": "", "file": "", "line": None, "chain": (), "witness": None, **where}
        return Finding(
            code=code.id,
            verdict=verdict,
            policy=str(examined.configuration.contract),
            configuration=examined.configuration.id,
            message=message,
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


def _of_configuration(examined: Examined, context: _Context) -> list[Finding]:
    probed, proof = examined.probed, examined.proof
    missed = [c for c in (*probed.controls, *proof.controls) if not c.caught]
    found = [context.finding(codes.CONTROL_MISSED, Verdict.OPEN, examined, f"control missed: {c.name}") for c in missed]
    if probed.vacuous:
        message = "changing every earlier token moved nothing at the last position"
        found.append(context.finding(codes.VACUOUS, Verdict.OPEN, examined, message))
    if examined.configuration.contract.bidirectional:
        found.extend(_unseeing(examined, context))
    elif examined.result.verdict is Verdict.LEAK:
        found.extend(_leaks(examined, context))
        if contradicted(probed, proof):
            found.append(_contradiction(examined, context))
    elif probed.repeatable and probed.logits.moved:
        found.append(
            context.finding(
                codes.FUTURE_DEPENDENCE, Verdict.SUSPECT, examined, f"the output moves, {probed.unconfirmed}",
                witness=context.witness(examined.result.worst_case),
            )
        )  # fmt: skip
    elif proof.violations:
        found.append(_admitted(examined, context))
    elif probed.logits.gradient:
        found.append(_gradient_only(examined, context))
    else:
        found.extend(_dead(examined, context))
    return [*found, *_limits(examined, context)]


def _unseeing(examined: Examined, context: _Context) -> list[Finding]:
    missing = sorted(unseeing(examined.probed))
    if not missing:
        return []
    proven = examined.result.verdict is Verdict.LEAK
    message = (
        f"{len(missing)} of {len(examined.probed.with_later)} positions, the first is {missing[0]}: no later input "
    )
    message += "moved them, and flow proves that none can" if proven else "moved them; flow does not say that none can"
    return [context.finding(codes.SEES_NO_LATER, examined.result.verdict, examined, message)]


def _contradiction(examined: Examined, context: _Context) -> Finding:
    proved, where = ("proved", "") if context.full is None else ("proved at full size", " of the shrunken copy")
    message = (
        f"flow {proved} {examined.configuration.id}, and a change of future tokens moved a past output{where} by "
        f"{examined.result.output_delta:.2g} in float64"
    )
    witness = context.witness(examined.result.worst_case)
    return context.finding(codes.CONTRADICTION, Verdict.LEAK, examined, message, witness=witness)


def _admitted(examined: Examined, context: _Context) -> Finding:
    widest = examined.proof.widest
    readers = len({violation.position for violation in examined.proof.violations})
    who = "1 position" if readers == 1 else f"{readers} positions"
    at = "" if context.full is None else "at full size "
    if widest.source < widest.position:
        what = f"one before its window, position {widest.position} as early a one as {widest.source}"
    else:
        what = f"a later one, position {widest.position} as late a one as {widest.source}"
    message = f"{at}{who} may read {what}; {examined.sought}"
    return _explained(context.finding(codes.ADMITTED, Verdict.SUSPECT, examined, message), examined.blame, context)


def _explained(finding: Finding, blame: Blame | None, context: _Context) -> Finding:
    """With why in a second sentence, and the way from the token that is read to the position that reads it."""
    if blame is None:
        return finding
    place = {**_at(blame.place), "module": blame.module} if blame.place else {}
    why = blame.sentence if context.full is None else f"in the shrunken copy {blame.sentence}"
    message = f"{finding.message}. {why[:1].upper()}{why[1:]}"
    return replace(finding, message=message, chain=tuple(map(_step, blame.chain)), **place)


def _step(link: Link) -> str:
    where = f"{source.short_path(link.place.file)}:{link.place.line}: " if link.place else ""
    return f"{where}{link.op}, {link.effect}" + (f" in {link.module}" if link.module else "")


def _gradient_only(examined: Examined, context: _Context) -> Finding:
    message = "the gradient of past logits with respect to a future embedding is not zero"
    if examined.proof.hard:
        message += (
            ", though flow proves that no value depends on it: it belongs to the backward pass alone (a custom one, or "
            "0 * inf on a masked path)"
        )
    verdict = Verdict.PROVEN if examined.result.verdict is Verdict.PROVEN else Verdict.SUSPECT
    return context.finding(codes.GRADIENT_ONLY, verdict, examined, message)


# What kind of hole is which finding; whatever else flow may name is an op that it cannot look into.
_HOLES = {
    "op without a rule": codes.NO_RULE,
    "rule failed": codes.NO_RULE,
    CONTROL_FLOW: codes.CONTROL_FLOW,
}


def _limits(examined: Examined, context: _Context) -> list[Finding]:
    """Where the proof ends, and the finite mask values that it rests on; neither changes the verdict by itself."""
    found = []
    for hole in examined.proof.holes:
        message = f"{hole.op}: {hole.carries}"
        code = _HOLES.get(hole.kind, codes.OPAQUE)
        found.append(context.finding(code, Verdict.OPEN, examined, message, **_at(hole.place)))
    for mask in examined.proof.soft_masks:
        message = f"soft mask, value {mask.value:.3g}, margin {mask.margin:.3g}: a score that much higher crosses it"
        if math.isnan(mask.margin):
            message = "soft mask: a score that is as much higher as it is low crosses it; how much weights would tell"
        found.append(context.finding(codes.SOFT_MASK, Verdict.OPEN, examined, message, **_at(mask.place)))
    return found


def _at(place: Place | None) -> dict[str, Any]:
    return {} if place is None else {"file": source.short_path(place.file), "line": place.line}


def _leaks(examined: Examined, context: _Context) -> list[Finding]:
    witness = context.witness(examined.result.worst_case)
    case = examined.result.worst_case
    if case is not None and case.before:
        message = f"position {case.position} moves with inputs before {case.cut}"
        return [
            _explained(
                context.finding(codes.BEYOND_WINDOW, Verdict.LEAK, examined, message, witness=witness),
                examined.blame,
                context,
            )
        ]
    standard, recompute = examined.first_leak_on("standard"), examined.first_leak_on("recompute")
    found = _lost_mask(examined, standard, context)
    for path, code, first in (
        ("standard", codes.FUTURE_DEPENDENCE, standard),
        ("recompute", codes.RECOMPUTE_LEAK, recompute),
    ):
        if first is not None:
            inside = _passed(examined, first).inside
            found.append(
                context.finding(
                    code,
                    Verdict.LEAK,
                    examined,
                    f"{path} path: stage {first.stage} ({first.title}) in {first.module or 'the model'} "
                    f"lets the future in, inside {inside.function} ({inside.file}:{inside.lines[0]}-{inside.lines[1]})",
                    module=first.module,
                    file=inside.file,
                    line=inside.lines[0],
                    chain=_passed(examined, first).chain,
                    witness=context.witness(first.worst_case) or witness,
                )
            )
    if not (standard or recompute):  # the leak lies between the checkpoints, or they could not be measured
        moved = [c for c in examined.checkpoints if c.output_delta]
        first = min(moved, key=lambda c: (c.layer or 0, c.stage), default=None)
        message = "past logits move with future tokens"
        place = {}
        if first is not None:
            message += f"; the first stage that carries it is {first.module or 'the model'}"
            place = {"module": first.module, "file": first.file, "line": first.lines[0]}
        found.append(
            context.finding(codes.FUTURE_DEPENDENCE, Verdict.LEAK, examined, message, witness=witness, **place)
        )
    told = next(number for number, finding in enumerate(found) if finding.code not in _LOST)
    if examined.blame is None:
        first = standard or recompute
        leaking = _passed(examined, first).inside if first else None
        found[told] = _unexplained(found[told], leaking, examined.proof)
    elif examined.blame.place:  # where it should have been applied
        unused = [number for number, finding in enumerate(found) if finding.code == codes.MASK_UNUSED.id]
        for number in unused:
            found[number] = replace(found[number], **_at(examined.blame.place), module=examined.blame.module)
    found[told] = _explained(found[told], examined.blame, context)
    return found


def _unexplained(finding: Finding, inside: Location | None, proof: Proof) -> Finding:
    """Where flow sees no violation: with the line that its proof ends at or rests on, in the function that leaks."""
    places: dict[Place, str] = {}
    limits = [(hole.place, f"flow is blind behind {hole.op}: {hole.carries}") for hole in proof.holes]
    limits += [(mask.place, f"a mask of {mask.value:.3g}, which scores cross") for mask in proof.soft_masks]
    for place, limit in limits:
        if place and (inside is None or _lies_in(place, inside)):
            places.setdefault(place, limit)
    if not places or (inside is None and len(places) > 1):
        return finding
    place, limit = next(iter(places.items()))
    return replace(finding, message=f"{finding.message}. Line {place.line}: {limit}", **_at(place))


def _lies_in(place: Place, location: Location) -> bool:
    return source.short_path(place.file) == location.file and location.lines[0] <= place.line <= location.lines[1]


_LOST = (codes.MASK_IS_NONE.id, codes.MASK_UNUSED.id)


def _lost_mask(examined: Examined, leak: Checkpoint | None, context: _Context) -> list[Finding]:
    """What became of the mask, where nothing masks: it is `None`, or it was made and never met scores."""
    lineage, passed = examined.lineage, _passed(examined, leak) if leak else None
    if not lineage.origins or lineage.applications:
        return []
    origin = next((o for o in lineage.origins if not o.is_none), lineage.origins[0])
    place = f"{origin.location.function} at {origin.location.file}:{origin.location.lines[0]}"
    if not origin.is_none:
        code = codes.MASK_UNUSED
        message = (
            f"a mask is made by {place} (`{origin.location.operation}`), {origin.mask}; no op that was seen applies it"
        )
    elif leak and passed and any(said.endswith("=None") for said in passed.passes):
        code = codes.MASK_IS_NONE
        message = (
            f"the mask is None: made by {place} (`{origin.location.operation}`); the kernel called from "
            f"{leak.file}:{leak.lines[0]} masks only by the mask that it is given"
        )
    else:
        return []
    return [
        context.finding(
            code,
            Verdict.LEAK,
            examined,
            message,
            module=leak.module if leak else "",
            file=origin.location.file,
            line=origin.location.lines[0],
            chain=(*origin.chain, *(passed.chain if passed else ())),
            witness=context.witness(examined.result.worst_case),
        )
    ]


def _passed(examined: Examined, stage: Checkpoint) -> Passed:
    return examined.lineage.stages[stage.stage, stage.path, stage.layer]


def _dead(examined: Examined, context: _Context) -> list[Finding]:
    """The first stage that sees the future though the output does not: it moves, or flow admits that it may."""
    seeing = [c for c in examined.checkpoints if c.output_delta or (examined.proof.holds and c.horizon)]
    if not seeing:
        return []
    first = min(seeing, key=lambda c: (c.layer or 0, c.stage))
    sees = "moves with the future" if first.output_delta else f"may see {first.horizon} positions ahead"
    return [
        context.finding(
            codes.DEAD_DEPENDENCE,
            Verdict.OPEN,
            examined,
            f"stage {first.stage} ({first.title}) in {first.module or 'the model'} {sees}, the output does not",
            module=first.module,
            file=first.file,
            line=first.lines[0],
            witness=context.witness(first.worst_case),
        )
    ]
