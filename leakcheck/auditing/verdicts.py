"""Verdicts: what probes and flow together amount to, for a configuration and for each of its stages."""

from collections.abc import Sequence

from leakcheck.auditing.proof import Proof
from leakcheck.checkpoints.reading import Reading, Spot
from leakcheck.config import CAUSAL, Contract
from leakcheck.findings import Verdict, worst
from leakcheck.probes.probe import Decided, Probed


def configuration_verdict(probed: Probed, proof: Proof, contract: Contract = CAUSAL) -> Verdict:
    """What became of the contract.

    The probes refute, flow proves; a sign that neither settles is a suspicion.

    Inner tensors do not decide: a model may compute something that sees the future and never use it. Where equal inputs
    give different outputs, nothing that moved means anything. Flow follows values: where it proves the configuration, a
    gradient alone belongs to the backward pass (a custom one, or 0 * inf on a masked path), and is no sign of the
    future. That holds for masks that block for good; behind a finite mask value a gradient is a sign like any other.
    """
    if contract.bidirectional:
        return _bidirectional(probed, proof)
    if probed.repeatable and probed.logits.moved:
        return Verdict.SUSPECT if probed.unconfirmed else Verdict.LEAK
    if proof.violations or (probed.repeatable and probed.logits.gradient and not proof.hard):
        return Verdict.SUSPECT
    return Verdict.PROVEN if proof.holds and _trusted(probed, proof) else Verdict.OPEN


def unseeing(probed: Probed) -> set[int]:
    """The positions that have later ones to see, and were moved by none."""
    return set(probed.with_later) - set(probed.logits.reached)


def _bidirectional(probed: Probed, proof: Proof) -> Verdict:
    """Every position must see a later one: to have moved with one shows it, and that none can be seen refutes it."""
    missing = unseeing(probed)
    if missing - proof.seeing and proof.traced and proof.trusted:
        return Verdict.LEAK
    if missing or probed.unconfirmed or not probed.repeatable:
        return Verdict.SUSPECT
    return Verdict.PROVEN if all(control.caught for control in probed.controls) else Verdict.OPEN


def contradicted(probed: Probed, proof: Proof) -> bool:
    """Whether the probes refute what flow proves, so that one of the two is wrong.

    A finite mask value may be crossed; and so may any mask by what is not finite, which flow does not follow.
    """
    refuted = probed.repeatable and probed.logits.moved and not probed.unconfirmed
    return refuted and proof.hard and probed.logits.output < float("inf")


def stage_verdicts(probed: Probed, proof: Proof, *, leaks: bool) -> dict[Spot, Verdict]:
    """The verdict of every stage, path and layer that has a tensor which was measured or traced.

    A stage that moved stays what `blame` says. Of one that did not, flow tells whether it sees the future: PROVEN if
    it sees none, SUSPECT if it may.
    """
    measured: dict[Spot, list[Verdict]] = {}
    moved: set[Spot] = set()
    for (reading, decided), verdict in zip(probed.readings, blame(probed.readings, leaks=leaks), strict=True):
        key = reading.spot
        measured.setdefault(key, []).append(verdict)
        if decided.moved:
            moved.add(key)
    verdicts = {spot: worst(found) for spot, found in measured.items()}
    for spot, horizon in proof.horizons.items():
        if spot not in moved:
            verdicts[spot] = _of_unmoved(verdicts.get(spot, Verdict.OPEN), horizon, probed, proof)
    return verdicts


def _of_unmoved(measured: Verdict, horizon: int | None, probed: Probed, proof: Proof) -> Verdict:
    if horizon is None:
        return measured
    if horizon > 0:
        return Verdict.SUSPECT
    signs = measured is Verdict.SUSPECT  # a gradient, or a move with other inputs of its own
    return measured if not _trusted(probed, proof) or (signs and proof.soft_masks) else Verdict.PROVEN


def _trusted(probed: Probed, proof: Proof) -> bool:
    return proof.trusted and all(control.caught for control in probed.controls)


def blame(readings: Sequence[tuple[Reading, Decided]], *, leaks: bool) -> list[Verdict]:
    """What the probes say of each reading of one forward.

    LEAK is for the innermost stage whose past output moves with the future rows of its own input; a stage around it,
    or after it, is CONTAMINATED. Without a leak at the output, whatever moves is SUSPECT.
    """
    inner = [reading for reading, decided in readings if decided.local and decided.moved]
    verdicts = []
    for reading, decided in readings:
        if not decided.moved:
            verdict = Verdict.SUSPECT if decided.local or decided.gradient else Verdict.OPEN
        elif not leaks:
            verdict = Verdict.SUSPECT
        elif decided.local and not any(other is not reading and reading.encloses(other) for other in inner):
            verdict = Verdict.LEAK
        else:
            verdict = Verdict.CONTAMINATED
        verdicts.append(verdict)
    return verdicts
