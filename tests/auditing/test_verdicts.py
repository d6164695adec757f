"""Verdicts as functions of what probes and flow say, without a model."""

from types import SimpleNamespace

import pytest

from leakcheck.auditing.proof import Proof
from leakcheck.auditing.verdicts import configuration_verdict, contradicted, stage_verdicts
from leakcheck.checkpoints.reading import STANDARD, Reading, Stage
from leakcheck.findings import Control, Verdict
from leakcheck.flow.reports import Hole, SoftMask
from leakcheck.flow.trace import Violation
from leakcheck.probes.probe import Decided

CAUGHT, MISSED = (Control("c", "delta", caught) for caught in (True, False))
HOLES = (Hole("aten::fft", "opaque op", "anything", None),)
SOFT = (SoftMask(-1e4, 9e3, None),)


def decided(output=0.0, local=0.0, gradient=0.0):
    return Decided(output, output, gradient, local, 0.0, 0, None)


STILL, MOVED, GRADIENT = decided(), decided(output=1.0, gradient=1.0), decided(gradient=1.0)
PROVEN = Proof(horizon=0)
SOFTLY = Proof(horizon=0, soft_masks=SOFT)
SEES = Proof(horizon=2, violations=(Violation(0, 3, 5),))
HOLED = Proof(horizon=None, holes=HOLES)


def probed(logits=STILL, *, unconfirmed="", repeatable=True, controls=(CAUGHT,), readings=()):
    return SimpleNamespace(
        logits=logits, unconfirmed=unconfirmed, repeatable=repeatable, controls=controls, readings=readings
    )


@pytest.mark.parametrize(
    ("probes", "proof", "verdict"),
    [
        (probed(), PROVEN, "PROVEN"),
        (probed(), SOFTLY, "PROVEN"),
        (probed(), SEES, "SUSPECT"),
        (probed(), HOLED, "OPEN"),
        (probed(), Proof(horizon=0, holes=HOLES), "OPEN"),
        (probed(), Proof(horizon=None), "OPEN"),
        (probed(), Proof(horizon=2, violations=SEES.violations, holes=HOLES), "SUSPECT"),
        (probed(MOVED), SEES, "LEAK"),
        (probed(MOVED), HOLED, "LEAK"),
        (probed(MOVED), PROVEN, "LEAK"),
        (probed(MOVED, unconfirmed="no float64"), PROVEN, "SUSPECT"),
        # Flow follows values: a gradient where no value depends on anything belongs to the backward pass.
        (probed(GRADIENT), PROVEN, "PROVEN"),
        (probed(GRADIENT), SOFTLY, "SUSPECT"),
        (probed(GRADIENT), HOLED, "SUSPECT"),
        (probed(GRADIENT), SEES, "SUSPECT"),
        # Equal inputs give different outputs: what moved means nothing, what flow says still does.
        (probed(MOVED, repeatable=False, controls=(MISSED,)), PROVEN, "OPEN"),
        (probed(MOVED, repeatable=False, controls=(MISSED,)), SEES, "SUSPECT"),
        # A harness that cannot see proves nothing, but a witness stays one.
        (probed(controls=(CAUGHT, MISSED)), PROVEN, "OPEN"),
        (probed(), Proof(horizon=0, controls=(CAUGHT, MISSED)), "OPEN"),
        (probed(MOVED, controls=(MISSED,)), PROVEN, "LEAK"),
    ],
)
def test_the_verdict_of_a_configuration(probes, proof, verdict):
    assert configuration_verdict(probes, proof).value == verdict


@pytest.mark.parametrize(
    ("probes", "proof", "contradiction"),
    [
        (probed(MOVED), PROVEN, True),
        (probed(MOVED), SEES, False),
        (probed(MOVED), HOLED, False),
        (probed(MOVED), SOFTLY, False),  # crossed
        (probed(decided(output=float("inf"))), PROVEN, False),  # 0 * inf crosses any mask
        (probed(GRADIENT), PROVEN, False),
        (probed(MOVED), Proof(horizon=0, controls=(MISSED,)), False),
    ],
)
def test_a_witness_against_a_proof_is_a_contradiction(probes, proof, contradiction):
    assert contradicted(probes, proof) is contradiction


SPOT = (3, STANDARD, 0)


def stage(measured, proof, *, leaks=False, controls=(CAUGHT,)):
    readings = ()
    if measured is not None:
        reading = Reading(Stage(3, "p", "t"), STANDARD, 0, "m", stage.__code__, None, span=(1, 4))
        readings = ((reading, measured),)
    return stage_verdicts(probed(readings=readings, controls=controls), proof, leaks=leaks).get(SPOT)


@pytest.mark.parametrize(
    ("measured", "horizon", "leaks", "verdict"),
    [
        (STILL, 0, False, "PROVEN"),
        (STILL, 0, True, "PROVEN"),  # before the leak
        (STILL, 4, False, "SUSPECT"),
        (STILL, None, False, "OPEN"),
        (decided(local=1.0), 0, False, "PROVEN"),  # it looks ahead in an input that was shifted back
        (decided(local=1.0), None, False, "SUSPECT"),
        (GRADIENT, 0, False, "PROVEN"),
        (MOVED, 4, False, "SUSPECT"),
        (MOVED, 4, True, "CONTAMINATED"),
        (decided(output=1.0, local=1.0), 4, True, "LEAK"),
        (decided(output=1.0, local=1.0), 0, True, "LEAK"),
        (None, 0, False, "PROVEN"),  # rows ran one by one: flow alone saw the stage
        (None, 4, True, "SUSPECT"),
        (None, None, False, "OPEN"),
    ],
)
def test_the_verdict_of_a_stage(measured, horizon, leaks, verdict):
    assert stage(measured, Proof(horizons={SPOT: horizon}), leaks=leaks).value == verdict


def test_a_stage_is_not_proven_by_a_harness_that_cannot_see():
    assert stage(STILL, Proof(horizons={SPOT: 0}), controls=(MISSED,)) is Verdict.OPEN
    assert stage(STILL, Proof(horizons={SPOT: 0}, controls=(MISSED,))) is Verdict.OPEN
    assert stage(STILL, Proof(horizons={SPOT: 4}, controls=(MISSED,))) is Verdict.SUSPECT


def test_behind_a_soft_mask_a_gradient_at_a_stage_stays_a_sign():
    assert stage(GRADIENT, Proof(horizons={SPOT: 0}, soft_masks=SOFT)) is Verdict.SUSPECT
    assert stage(STILL, Proof(horizons={SPOT: 0}, soft_masks=SOFT)) is Verdict.PROVEN


def test_control_flow_has_no_verdict():
    assert stage(None, Proof()) is None
