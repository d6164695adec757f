"""Run a recorded counterexample again."""

import base64
from dataclasses import fields
from typing import Any

import torch
from torch import Tensor

from leakcheck.auditing.policies import POLICIES, Judge
from leakcheck.auditing.proof import Prover
from leakcheck.auditing.smallest import asked
from leakcheck.auditing.witnesses import versions, weights_hash
from leakcheck.checkpoints import plan_for
from leakcheck.config import Configuration, parse_contract
from leakcheck.errors import UsageError
from leakcheck.findings import Array, Replayed, Verdict, Witness
from leakcheck.probes.groups import Pair, shown
from leakcheck.probes.probe import Prober
from leakcheck.subjects import running, state
from leakcheck.subjects.inputs import declared
from leakcheck.subjects.load import load
from leakcheck.subjects.subject import Subject, unwrapped


def replay(witness: Witness) -> Replayed:
    """Whether the inputs of a witness still move an output that may not see them, of the model that its SPEC names now.

    If they do not, flow is asked whether any could: with other weights than the witness's nothing else tells.

    Cost: three forwards in float64; two with labels, where nothing moves.

    Raises:
        UsageError: the model cannot be loaded or does not take the inputs; or it has other weights, is not moved, and
            is not proven either.
        SubjectCrash: its forward raised.
    """
    settings = witness.settings
    with state.process():
        subject = load(
            witness.spec,
            inputs=declared(tuple(settings["inputs"]), tuple(settings["outputs"])),
            no_weights=settings["no_weights"],
            trust_remote_code=settings["trust_remote_code"],
        )
        running.spare_threads(subject.model)
        return _replayed(witness, subject)


def _replayed(witness: Witness, subject: Subject) -> Replayed:
    configuration = _configuration(witness)
    if configuration.attention not in subject.attention_backends or configuration.mode not in subject.modes:
        raise UsageError(
            f"{witness.spec} does not run under {configuration.id} any more, which the witness was found under"
        )
    pair = Pair(*(_tensor(array) for array in (witness.tokens, witness.changed, witness.scale)))
    highest = int(torch.maximum(pair.tokens, pair.changed).max())
    if highest >= subject.vocab_size:
        raise UsageError(f"{witness.spec}: the witness has token {highest}, the model knows {subject.vocab_size}")
    seq, seed = pair.tokens.shape[1], witness.settings["seed"]
    prober = Prober(subject.model, plan_for, seq=seq, vocab_size=subject.vocab_size, seed=seed)
    question = asked(prober, configuration, witness.policy, witness.question)
    if question is None or question.tokens.shape != pair.tokens.shape:
        raise UsageError(f"{witness.spec}: policy {witness.policy} does not apply to it any more")

    same_as = None if question.orders else question.same_as
    move = shown(prober, configuration, question.run, same_as, pair, question.blind(pair.differing))
    same_weights = weights_hash(unwrapped(subject.model)) == witness.weights
    proven = move is None and _proven(witness, subject, configuration)
    if move is None and not same_weights and not proven:
        raise UsageError(
            f"{witness.spec} has other weights than those that the witness was found with, and is not moved by it: "
            "that says nothing of the leak; audit it again"
        )
    now = versions()
    place = (witness.row, witness.position, witness.channel)
    return Replayed(
        leaks=move is not None,
        delta=move.delta if move else 0.0,
        row=move.row if move else witness.row,
        position=move.position if move else witness.position,
        channel=move.channel if move else witness.channel,
        exact=move is not None and ((move.row, move.position, move.channel), move.delta) == (place, witness.delta),
        same_weights=same_weights,
        proven=proven,
        changed=tuple(f"{name} {old} is {now[name]}" for name, old in witness.versions.items() if now[name] != old),
    )


def _proven(witness: Witness, subject: Subject, configuration: Configuration) -> bool:
    """Whether flow proves, at the length of an audit, that nothing of the kind can happen under the configuration.

    By what an audit asks of a proof, its controls included; not where a soft mask bears it.
    """
    prober = Prober(
        subject.model,
        plan_for,
        seq=subject.seq_len,
        vocab_size=subject.vocab_size,
        seed=witness.settings["seed"],
    )
    if witness.policy not in POLICIES:
        return Prover(prober).prove(configuration).hard
    answers = Judge(prober).judge(POLICIES[witness.policy], configuration).answers[witness.question :]
    return bool(answers) and answers[0].verdict is Verdict.PROVEN and not answers[0].soft_masks


def _configuration(witness: Witness) -> Configuration:
    known = {field.name for field in fields(Configuration)}
    of: dict[str, Any] = {name: value for name, value in witness.configuration.items() if name in known}
    of["accepted"] = tuple(of["accepted"])
    return Configuration(**of, contract=parse_contract(tuple(witness.settings["contract"].split("+"))))


def _tensor(array: Array) -> Tensor:
    values = torch.frombuffer(bytearray(base64.b64decode(array.data)), dtype=getattr(torch, array.dtype))
    return values.reshape(array.shape)
