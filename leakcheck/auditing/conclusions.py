"""The trace's five conclusions, each as a measured verdict with its evidence."""

from collections.abc import Sequence

from leakcheck.auditing.examine import Examined
from leakcheck.auditing.parity import Parity
from leakcheck.findings import REACH, AblationRow, ClaimVerdict, Conclusion, SafetyCheck, Verdict
from leakcheck.lineage.statistics import nodes_holding

CLAIMS = {
    "C1": "single source: every mask in use comes from the one generation call",
    "C2": "both paths protected: standard and recompute path are both causal",
    "C3": "defence in depth: three independent checks between generation and use",
    "C4": "closed loop: every key node has its own verification",
    "C5": "parity: causally equal to standard LLaMA",
}


def conclusions(
    examined: Sequence[Examined],
    checks: Sequence[SafetyCheck],
    ablation: Sequence[AblationRow],
    parity: Parity | None,
) -> tuple[Conclusion, ...]:
    judged = {
        "C1": _single_source(examined),
        "C2": _both_paths(examined),
        "C3": _defence_in_depth(checks, ablation),
        "C4": _closed_loop(examined, checks),
        "C5": _parity(examined, parity),
    }
    return tuple(Conclusion(id, CLAIMS[id], *judged[id]) for id in CLAIMS)


def _single_source(examined: Sequence[Examined]) -> tuple[ClaimVerdict, str]:
    foreign = sorted({text for e in examined for text in e.lineage.foreign_masks})
    several = [e for e in examined if len(e.lineage.origins) != 1]
    without = [e for e in examined if e.lineage.origins and all(o.is_none for o in e.lineage.origins)]
    if foreign:
        return ClaimVerdict.REFUTED, f"a mask from elsewhere is used: {foreign[0]}"
    if several:
        return (
            ClaimVerdict.REFUTED,
            f"{len(several[0].lineage.origins)} generation calls under {several[0].configuration.id}",
        )
    evidence = f"one generation call in each of {len(examined)} configurations; no mask from elsewhere is handed on"
    if len(without) == len(examined):
        return ClaimVerdict.NOT_APPLICABLE, "no mask is in use: the one call returned None in every configuration"
    if without:
        evidence += f"; in {len(without)} of them the call returned None and no mask is in use at all"
    return ClaimVerdict.HOLDS, evidence


def _both_paths(examined: Sequence[Examined]) -> tuple[ClaimVerdict, str]:
    leaking = {
        path: [e.configuration.id for e in examined if e.result.paths[path] is Verdict.LEAK]
        for path in examined[0].result.paths
    }
    if any(leaking.values()):
        parts = [
            f"{path} path leaks in {len(ids)} of {len(examined)} (first: {ids[0]})"
            for path, ids in leaking.items()
            if ids
        ]
        return ClaimVerdict.REFUTED, "; ".join(parts)
    everywhere = f"{len(examined)} configurations"
    moving = [e for e in examined if e.result.verdict is Verdict.LEAK]
    if moving:
        return ClaimVerdict.REFUTED, f"the output moves under {moving[0].configuration.id}"
    unproven = [e for e in examined if {e.result.verdict, *e.result.paths.values()} != {Verdict.PROVEN}]
    if not unproven:
        return ClaimVerdict.HOLDS, f"proven on both paths in {everywhere}, {REACH}"
    suspect = [e for e in unproven if e.result.verdict is Verdict.SUSPECT]
    if suspect:
        return ClaimVerdict.OPEN, f"a dependence on the future is possible under {suspect[0].configuration.id}"
    proven = len(examined) - len(unproven)
    return ClaimVerdict.OPEN, f"no delta on either path in {everywhere}; measured, proven in {proven} of them"


def _defence_in_depth(checks: Sequence[SafetyCheck], ablation: Sequence[AblationRow]) -> tuple[ClaimVerdict, str]:
    if not ablation:
        return ClaimVerdict.NOT_APPLICABLE, "the subject has no switches for its safety checks, so none was taken away"
    whole = [row for row in ablation if all(row.checks.values())]
    leaking = [row.configuration for row in whole if Verdict.LEAK in row.paths.values()]
    if leaking:
        return ClaimVerdict.REFUTED, f"it leaks with all three checks in place under {leaking[0]}"
    alone = [c.id for c in checks if c.load_bearing]
    idle = [c.id for c in checks if not c.load_bearing]
    if alone:
        return ClaimVerdict.REFUTED, (
            f"not independent: without {', '.join(alone)} alone a path leaks although {', '.join(idle)} stay in place"
        )
    return ClaimVerdict.HOLDS, "no path leaks when any one check is taken away"


def _closed_loop(examined: Sequence[Examined], checks: Sequence[SafetyCheck]) -> tuple[ClaimVerdict, str]:
    richest = max(examined, key=lambda e: sum(len(nodes_holding(e.lineage, path)) for path in e.result.paths))
    nodes = set().union(*(nodes_holding(richest.lineage, path) for path in richest.result.paths))
    acting = {n: [c.id for c in checks if _stage_of(c) == n and c.acted.get(richest.configuration.id)] for n in nodes}
    guarded = {number for number, ids in acting.items() if ids}
    where = "; ".join(f"stage {number}: {', '.join(acting[number])}" for number in sorted(guarded))
    evidence = (
        f"{len(nodes)} stages hold the mask under {richest.configuration.id}; "
        f"a check acts at {len(guarded)} of them ({where or 'none'})"
    )
    return (ClaimVerdict.HOLDS if nodes and nodes <= guarded else ClaimVerdict.REFUTED), evidence


def _stage_of(check: SafetyCheck) -> int:
    """The stage at which a check acts: S1 where the parent class applies the mask, S2 and S3 at the re-mask."""
    return 8 if check.id == "S1" else 12


def _parity(examined: Sequence[Examined], parity: Parity | None) -> tuple[ClaimVerdict, str]:
    if parity is None:
        return ClaimVerdict.NOT_APPLICABLE, "no LLaMA can be built from the subject's configuration"
    leaking = sum(e.result.verdict is Verdict.LEAK for e in examined)
    proven = sum(e.result.verdict is Verdict.PROVEN for e in examined)
    differ = f"differ from LLaMA's by {parity.one_layer_delta:.2g}" if parity.one_layer_delta else "equal LLaMA's"
    layer = f"with one layer and the same weights the logits {differ} ({parity.one_layer_configuration})"
    counts = f"leaks in {leaking}, is proven in {proven} of {len(examined)} configurations"
    evidence = f"{counts}, the LLaMA control: {parity.control}; {layer}"
    if (leaking and parity.control is not Verdict.LEAK) or parity.one_layer_delta:
        return ClaimVerdict.REFUTED, evidence
    both_proven = proven == len(examined) and parity.control is Verdict.PROVEN
    return (ClaimVerdict.HOLDS if both_proven else ClaimVerdict.OPEN), evidence
