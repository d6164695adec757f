"""What became of policies, as findings: what reaches what, the line that lets it through, the witness, the command."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import PurePath
from typing import Any

from leakcheck import codes
from leakcheck.auditing.context import Context
from leakcheck.auditing.policies.outcome import Answer, Policed
from leakcheck.findings import Finding, Verdict
from leakcheck.flow.blame import Blame


def told(policed: Policed, context: Context) -> Iterator[Finding]:
    """The findings of one configuration."""
    for outcome in policed.outcomes:
        if outcome.crash:
            yield context.finding(codes.DID_NOT_RUN, Verdict.OPEN, policed, outcome.crash, outcome.policy)
        for answer in _causes(outcome.answers):
            yield from _of_answer(policed, outcome.policy, outcome.answers.index(answer), answer, context)
        yield from context.limits(
            policed,
            list(dict.fromkeys(outcome.holes)),
            list({mask.place: mask for a in outcome.answers for mask in a.soft_masks}.values()),
            outcome.policy,
        )


def _causes(answers: Sequence[Answer]) -> list[Answer]:
    """Without those that another one explains: what shows its future disagrees with what does not."""
    shown = [a.question.chunks for a in answers if a.question.orders and a.verdict is Verdict.LEAK]
    return [a for a in answers if a.question.orders or a.question.chunks not in shown]


def _of_answer(policed: Policed, policy: str, number: int, answer: Answer, context: Context) -> Iterator[Finding]:
    for control in answer.controls:
        if not control.caught:
            message = f"control missed: {control.name}"
            yield context.finding(codes.CONTROL_MISSED, Verdict.OPEN, policed, message, policy)
    if answer.verdict not in (Verdict.LEAK, Verdict.SUSPECT):
        return
    witness = _witness(number, answer, context)
    finding = context.finding(answer.question.code, answer.verdict, policed, _message(answer), policy, witness=witness)
    yield context.explained(finding, None if answer.blame is None else _told(answer.blame))
    if answer.contradicted:
        proved = "proved" if context.full is None else "proved at full size"
        message = f"flow {proved} policy {policy} of {policed.configuration.id}, and {_message(answer)}"
        yield context.finding(codes.CONTRADICTION, Verdict.LEAK, policed, message, policy, witness=witness)


def _told(blame: Blame) -> Blame:
    """With a sentence that is not about time."""
    where = f" in {blame.module}" if blame.module else ""
    line = f" at {PurePath(blame.place.file).name}:{blame.place.line}" if blame.place else ""
    return replace(blame, sentence=f"they meet in {blame.op}{where}{line}")


def _message(answer: Answer) -> str:
    what, move = answer.question.what, None if answer.moved is None else answer.moved.worst
    if move is None:
        violations = answer.violations or ()
        readers = len({(violation.batch, violation.position) for violation in violations})
        return f"flow admits that {readers} outputs read {what}; no change moved any of them"
    moves = f"position {move.position} of row {move.row}"
    unsure = f", {answer.moved.unconfirmed}" if answer.moved and answer.moved.unconfirmed else ""
    if not answer.question.orders:
        return f"with {what}, {moves} differs from the full forward{unsure}"
    return f"{moves} moves with {what} ({move.change}){unsure}"


def _witness(number: int, answer: Answer, context: Context) -> dict[str, Any] | None:
    move = None if answer.moved is None else answer.moved.worst
    if move is None:
        return None
    return {
        "seq_len": context.seq,
        "seed": context.settings.seed,
        **({"question": number} if number else {}),
        "changed": move.change,
        "draw": move.draw,
        "row": move.row,
        "position": move.position,
        "channel": move.channel,
        "delta": move.delta,
        **({"chunks": list(answer.question.chunks)} if answer.question.chunks else {}),
        **({} if context.full is None else {"model": "the shrunken copy"}),
    }
