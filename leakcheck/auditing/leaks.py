"""Findings: what leaks, the line that lets it in, the witness, one command to see it again."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from leakcheck import codes
from leakcheck.auditing.context import Context, Crashed, at
from leakcheck.auditing.examine import Examined
from leakcheck.auditing.policies import Policed
from leakcheck.auditing.policies.telling import told
from leakcheck.auditing.proof import Proof
from leakcheck.auditing.verdicts import contradicted, unseeing
from leakcheck.checkpoints import source
from leakcheck.config import Settings
from leakcheck.findings import Checkpoint, Finding, Location, Verdict
from leakcheck.flow.reports import Place
from leakcheck.lineage.passing import Passed
from leakcheck.subjects.subject import Subject


def findings(
    subject: Subject,
    examined: Sequence[Examined],
    settings: Settings,
    crashed: Sequence[Crashed] = (),
    policed: Sequence[Policed] = (),
) -> tuple[Finding, ...]:
    """The findings of every configuration, the root cause first."""
    context = Context(subject, settings)
    found = [f for e in examined for f in _of_configuration(e, context)]
    found += [f for p in policed for f in told(p, context)]
    found += [context.finding(codes.DID_NOT_RUN, Verdict.OPEN, c, str(c.error)) for c in crashed]
    order = list(codes.CODES)
    causes = (codes.MASK_IS_NONE.id, codes.MASK_UNUSED.id, codes.CONTROL_MISSED.id)
    ordered = sorted(found, key=lambda f: (f.code not in causes, order.index(f.code)))
    return tuple(context.complete(f) for f in ordered)


def _of_configuration(examined: Examined, context: Context) -> list[Finding]:
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
    return [*found, *context.limits(examined, proof.holes, proof.soft_masks)]


def _unseeing(examined: Examined, context: Context) -> list[Finding]:
    missing = sorted(unseeing(examined.probed))
    if not missing:
        return []
    proven = examined.result.verdict is Verdict.LEAK
    message = (
        f"{len(missing)} of {len(examined.probed.with_later)} positions, the first is {missing[0]}: no later input "
    )
    message += "moved them, and flow proves that none can" if proven else "moved them; flow does not say that none can"
    return [context.finding(codes.SEES_NO_LATER, examined.result.verdict, examined, message)]


def _contradiction(examined: Examined, context: Context) -> Finding:
    proved, where = ("proved", "") if context.full is None else ("proved at full size", " of the shrunken copy")
    message = (
        f"flow {proved} {examined.configuration.id}, and a change of future tokens moved a past output{where} by "
        f"{examined.result.output_delta:.2g} in float64"
    )
    witness = context.witness(examined.result.worst_case)
    return context.finding(codes.CONTRADICTION, Verdict.LEAK, examined, message, witness=witness)


def _admitted(examined: Examined, context: Context) -> Finding:
    widest = examined.proof.widest
    readers = len({violation.position for violation in examined.proof.violations})
    who = "1 position" if readers == 1 else f"{readers} positions"
    at = "" if context.full is None else "at full size "
    if widest.source < widest.position:
        what = f"one before its window, position {widest.position} as early a one as {widest.source}"
    else:
        what = f"a later one, position {widest.position} as late a one as {widest.source}"
    message = f"{at}{who} may read {what}; {examined.sought}"
    return context.explained(context.finding(codes.ADMITTED, Verdict.SUSPECT, examined, message), examined.blame)


def _gradient_only(examined: Examined, context: Context) -> Finding:
    message = "the gradient of past logits with respect to a future embedding is not zero"
    if examined.proof.hard:
        message += (
            ", though flow proves that no value depends on it: it belongs to the backward pass alone (a custom one, or "
            "0 * inf on a masked path)"
        )
    verdict = Verdict.PROVEN if examined.result.verdict is Verdict.PROVEN else Verdict.SUSPECT
    return context.finding(codes.GRADIENT_ONLY, verdict, examined, message)


def _leaks(examined: Examined, context: Context) -> list[Finding]:
    witness = context.witness(examined.result.worst_case)
    case = examined.result.worst_case
    if case is not None and case.before:
        message = f"position {case.position} moves with inputs before {case.cut}"
        return [
            context.explained(
                context.finding(codes.BEYOND_WINDOW, Verdict.LEAK, examined, message, witness=witness),
                examined.blame,
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
                    steps=_passed(examined, first).chain,
                    witness=context.witness(first.worst_case) or witness,
                )
            )
    if not (standard or recompute):  # the leak lies between the checkpoints, or they could not be measured
        moved = [c for c in examined.checkpoints if c.output_delta]
        first = min(moved, key=lambda c: (c.layer or 0, c.stage), default=None)
        message = "past logits move with future tokens"
        place: dict[str, Any] = {}
        if first is not None:
            message += f"; the first stage that carries it is {first.module or 'the model'}"
            place = {"module": first.module, "file": first.file, "line": first.lines[0]}
        found.append(
            context.finding(codes.FUTURE_DEPENDENCE, Verdict.LEAK, examined, message, witness=witness, **place)
        )
    first_told = next(number for number, finding in enumerate(found) if finding.code not in _LOST)
    if examined.blame is None:
        first = standard or recompute
        leaking = _passed(examined, first).inside if first else None
        found[first_told] = _unexplained(found[first_told], leaking, examined.proof)
    elif examined.blame.place:  # where it should have been applied
        unused = [number for number, finding in enumerate(found) if finding.code == codes.MASK_UNUSED.id]
        for number in unused:
            found[number] = replace(found[number], **at(examined.blame.place), module=examined.blame.module)
    found[first_told] = context.explained(found[first_told], examined.blame)
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
    return replace(finding, message=f"{finding.message}. Line {place.line}: {limit}", **at(place))


def _lies_in(place: Place, location: Location) -> bool:
    return source.short_path(place.file) == location.file and location.lines[0] <= place.line <= location.lines[1]


_LOST = (codes.MASK_IS_NONE.id, codes.MASK_UNUSED.id)


def _lost_mask(examined: Examined, leak: Checkpoint | None, context: Context) -> list[Finding]:
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
            steps=(*origin.chain, *(passed.chain if passed else ())),
            witness=context.witness(examined.result.worst_case),
        )
    ]


def _passed(examined: Examined, stage: Checkpoint) -> Passed:
    return examined.lineage.stages[stage.stage, stage.path, stage.layer]


def _dead(examined: Examined, context: Context) -> list[Finding]:
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
