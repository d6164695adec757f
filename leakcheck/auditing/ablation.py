"""Take the safety checks away one by one, and together, and measure which path leaks without them."""

from collections.abc import Callable, Sequence
from itertools import product

from leakcheck.auditing.examine import Examined
from leakcheck.auditing.proof import Proof, Prover
from leakcheck.auditing.verdicts import configuration_verdict, stage_verdicts
from leakcheck.checkpoints import plan_for, source
from leakcheck.checkpoints.method1_v3 import Method1Plan
from leakcheck.checkpoints.reading import Plan, Reading
from leakcheck.config import Configuration
from leakcheck.findings import AblationRow, ClaimVerdict, Location, SafetyCheck, Verdict, worst
from leakcheck.probes.probe import Probed, Prober
from leakcheck.subjects.subject import Subject

# The configuration field that takes each check away.
SWITCHES = {"S1": "safety_parent_mask", "S2": "safety_length_check", "S3": "safety_strict_remask"}
COMBINATIONS = 2 ** len(SWITCHES)
CLAIMS = {
    "S1": "the parent attention applies the mask",
    "S2": "the lengths fit before the re-mask",
    "S3": "the re-mask with renormalisation fixes the leak",
}
PATH_OF = {"S1": "standard", "S2": "recompute", "S3": "recompute"}


def can_ablate(subject: Subject) -> bool:
    config = getattr(subject.model, "config", None)
    return subject.rebuild is not None and all(hasattr(config, field) for field in SWITCHES.values())


def ablate(
    subject: Subject,
    configurations: Sequence[Configuration],
    *,
    seq: int,
    seed: int,
    step: Callable[[str], None],
) -> tuple[AblationRow, ...]:
    """Build and measure all eight on/off combinations under each configuration."""
    rows = []
    for on in product((True, False), repeat=len(SWITCHES)):
        checks = dict(zip(SWITCHES, on, strict=True))
        assert subject.rebuild is not None
        model = subject.rebuild({SWITCHES[name]: value for name, value in checks.items()})
        prober = Prober(model, plan_for, seq=seq, vocab_size=subject.vocab_size, seed=seed, each_gradient=False)
        prover = Prover(prober)
        for configuration in configurations:
            step("ablation " + (" ".join(name for name, value in checks.items() if value) or "without any check"))
            rows.append(
                _row(prober.probe(configuration), prover.prove(configuration), configuration, checks, prober.plan)
            )
    return tuple(rows)


def _row(
    probed: Probed, proof: Proof, configuration: Configuration, checks: dict[str, bool], plan: Plan
) -> AblationRow:
    leaks = configuration_verdict(probed, proof) is Verdict.LEAK
    verdicts = stage_verdicts(probed, proof, leaks=leaks)
    letting_in = [reading for reading, _ in probed.readings if verdicts[reading.spot] is Verdict.LEAK]
    first = min(letting_in, key=lambda reading: (reading.layer or 0, reading.stage.number), default=None)
    return AblationRow(
        configuration=configuration.id,
        checks=checks,
        paths={path: worst(v for (_, on, _), v in verdicts.items() if on == path) for path in plan.paths},
        output_delta=probed.logits.output,
        first_leak=_in_words(first),
    )


def _in_words(leak: Reading | None) -> str | None:
    if leak is None:
        return None
    function = source.qualified_name(leak.code)
    return f"stage {leak.stage.number}, {leak.path} path, layer {leak.layer}: {function}"


def load_bearing(rows: Sequence[AblationRow], check: str) -> bool:
    """Whether some path is clean with all checks in place and leaks when only this one is taken away."""
    for whole in rows:
        if not all(whole.checks.values()):
            continue
        alone = {name: name != check for name in SWITCHES}
        without = next(r for r in rows if r.configuration == whole.configuration and r.checks == alone)
        if any(without.paths[p] is Verdict.LEAK and whole.paths[p] is not Verdict.LEAK for p in whole.paths):
            return True
    return False


def safety_checks(
    plan: Method1Plan, examined: Sequence[Examined], rows: Sequence[AblationRow]
) -> tuple[SafetyCheck, ...]:
    """Whether each check acted, with what mask, and whether it bears load. Without an ablation the latter is `None`."""
    return tuple(_safety_check(check, plan, examined, rows) for check in SWITCHES)


def acted(examined: Examined) -> dict[str, int]:
    """How often each check took effect in one forward: ops where the mask met scores or weights, tests of lengths."""
    lineage = examined.lineage
    return {
        "S1": len(lineage.standard_applications),
        "S2": lineage.length_checks,
        "S3": len(lineage.recompute_applications),
    }


def _safety_check(
    check: str, plan: Method1Plan, examined: Sequence[Examined], rows: Sequence[AblationRow]
) -> SafetyCheck:
    counts = {e.configuration.id: acted(e)[check] for e in examined}
    path = PATH_OF[check]
    leaking = [e.configuration.id for e in examined if e.result.paths[path] is Verdict.LEAK]
    silent = [name for name, count in counts.items() if not count]
    bears = load_bearing(rows, check) if rows else None
    if check == "S2":  # it guards shapes, not causality
        verdict = ClaimVerdict.HOLDS if any(counts.values()) else ClaimVerdict.NOT_APPLICABLE
        evidence = f"evaluated in {len(counts) - len(silent)} of {len(counts)} configurations, every run finished"
    else:
        proven = all(e.result.paths[path] is Verdict.PROVEN for e in examined)
        holds = proven and not silent and bears
        verdict = ClaimVerdict.REFUTED if leaking else ClaimVerdict.HOLDS if holds else ClaimVerdict.OPEN
        clean = f"{'proven' if proven else 'measured clean'} in all"
        if bears is False:
            clean += "; taking it away opens no leak"
        evidence = f"acted in {len(counts) - len(silent)} of {len(counts)} configurations; " + (
            f"its path leaks in {len(leaking)}" if leaking else f"its path is {clean}"
        )
    return SafetyCheck(
        id=check,
        where=_where(check, plan, examined),
        claim=CLAIMS[check],
        active=any(counts.values()),
        acted=counts,
        mask=_mask(check, examined),
        load_bearing=bears,
        verdict=verdict,
        evidence=evidence,
    )


def _where(check: str, plan: Method1Plan, examined: Sequence[Examined]) -> Location | None:
    if check == "S2":
        node = plan.nodes.length_check
        return source.locate(plan.precomputed, node) if node is not None else None
    applications = _applications(check, examined)
    return applications[0].location if applications else None


def _mask(check: str, examined: Sequence[Examined]) -> str | None:
    applications = _applications(check, examined)
    return applications[0].mask if applications else None


def _applications(check: str, examined: Sequence[Examined]) -> list:
    if check == "S2":
        return []
    of = "standard_applications" if check == "S1" else "recompute_applications"
    return [application for e in examined for application in getattr(e.lineage, of)]
