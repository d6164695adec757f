"""Findings: what leaks, the line that lets it in, the witness, one command to see it again."""

from collections.abc import Sequence

from leakcheck import codes
from leakcheck.auditing.examine import Examined
from leakcheck.findings import Checkpoint, Finding, Verdict, WorstCase
from leakcheck.lineage.trace import Passed
from leakcheck.subjects.subject import Subject


def findings(subject: Subject, examined: Sequence[Examined], *, seed: int) -> tuple[Finding, ...]:
    """The findings of every configuration, the root cause first."""
    found = [f for e in examined for f in _of_configuration(e, _Context(subject.spec, subject.seq_len, seed))]
    order = list(codes.CODES)
    causes = (codes.MASK_IS_NONE.id, codes.CONTROL_MISSED.id)
    return tuple(sorted(found, key=lambda f: (f.code not in causes, order.index(f.code))))


class _Context:
    def __init__(self, spec: str, seq: int, seed: int):
        self.spec, self.seq, self.seed = spec, seq, seed

    def finding(self, code: codes.Code, verdict: Verdict, examined: Examined, message: str, **where) -> Finding:
        attention = examined.configuration.attention
        command = f"leakcheck run --model {self.spec} --seq-len {self.seq}"
        if attention != "default":
            command += f" --attn {attention}"
        if self.seed:
            command += f" --seed {self.seed}"
        place = {"module": "", "file": "", "line": None, "chain": (), "witness": None, **where}
        return Finding(
            code=code.id,
            verdict=verdict,
            policy="causal",
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
            "seed": self.seed,
            "draw": case.draw,
            "cut": case.cut,
            "position": case.position,
            "channel": case.channel,
            "delta": case.delta,
        }


def _of_configuration(examined: Examined, context: _Context) -> list[Finding]:
    missed = [c for c in examined.probed.controls if not c.caught]
    found = [context.finding(codes.CONTROL_MISSED, Verdict.OPEN, examined, f"control missed: {c.name}") for c in missed]
    if examined.probed.vacuous:
        message = "changing every earlier token moved nothing at the last position"
        found.append(context.finding(codes.VACUOUS, Verdict.OPEN, examined, message))
    if examined.result.verdict is Verdict.LEAK:
        found.extend(_leaks(examined, context))
    elif examined.probed.logits.moved:
        found.append(
            context.finding(
                codes.FUTURE_DEPENDENCE, Verdict.SUSPECT, examined, f"the output moves, {examined.probed.unconfirmed}",
                witness=context.witness(examined.result.worst_case),
            )
        )  # fmt: skip
    elif examined.probed.logits.gradient:
        message = "the gradient of past logits with respect to a future embedding is not zero"
        found.append(context.finding(codes.GRADIENT_ONLY, Verdict.SUSPECT, examined, message))
    else:
        found.extend(_dead(examined, context))
    return found


def _leaks(examined: Examined, context: _Context) -> list[Finding]:
    witness = context.witness(examined.result.worst_case)
    found = []
    origins = examined.lineage.origins
    standard, recompute = examined.first_leak_on("standard"), examined.first_leak_on("recompute")
    if origins and all(origin.is_none for origin in origins) and standard is not None:
        origin = origins[0]
        found.append(
            context.finding(
                codes.MASK_IS_NONE,
                Verdict.LEAK,
                examined,
                f"the mask is None: made by {origin.location.function} at {origin.location.file}:"
                f"{origin.location.lines[0]} (`{origin.location.operation}`); the kernel called from "
                f"{standard.file}:{standard.lines[0]} masks only by the mask that it is given",
                module=standard.module,
                file=origin.location.file,
                line=origin.location.lines[0],
                chain=(*origin.chain, *_passed(examined, standard).chain),
                witness=witness,
            )
        )
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
    if not found:  # the leak lies between the checkpoints, or they could not be measured
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
    return found


def _passed(examined: Examined, stage: Checkpoint) -> Passed:
    return examined.lineage.stages[stage.stage, stage.path, stage.layer]


def _dead(examined: Examined, context: _Context) -> list[Finding]:
    moved = [c for c in examined.checkpoints if c.output_delta]
    if not moved:
        return []
    first = min(moved, key=lambda c: (c.layer or 0, c.stage))
    return [
        context.finding(
            codes.DEAD_DEPENDENCE,
            Verdict.OPEN,
            examined,
            f"stage {first.stage} ({first.title}) in {first.module or 'the model'} moves with the future, "
            "the output does not",
            module=first.module,
            file=first.file,
            line=first.lines[0],
            witness=context.witness(first.worst_case),
        )
    ]
