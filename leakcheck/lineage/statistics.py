"""The trace's statistics, counted on the observed calls, beside what it claims."""

from leakcheck.checkpoints.reading import RECOMPUTE, STANDARD
from leakcheck.findings import PathStatistics
from leakcheck.lineage.trace import Lineage

CLAIMED = {STANDARD: (4, 5, 1), RECOMPUTE: (6, 7, 2), "total": (None, 12, 3)}


def statistics(lineage: Lineage, checks_acted: dict[str, int]) -> dict[str, PathStatistics]:
    """Call depth, nodes and safety checks of each path in one traced forward.

    - *call depth*: functions on the stack from the model's forward, counted as one, to the innermost function of the
      path that receives the mask; module machinery and decorators between them are not counted.
    - *nodes*: stages of the path at which the running code held the mask: returned it, handed it on by identity or
      derivation, or applied it. A stage that hands on `None` holds nothing.
    - *safety checks*: how many of S1 (standard), S2 and S3 (recompute) took effect at least once; `checks_acted` gives
      how often each did.

    The total adds both paths, as the trace does, so stages that serve both count twice.
    """
    acted = {
        STANDARD: int(checks_acted["S1"] > 0),
        RECOMPUTE: int(checks_acted["S2"] > 0) + int(checks_acted["S3"] > 0),
    }
    nodes = {path: len(nodes_holding(lineage, path)) for path in (STANDARD, RECOMPUTE)}
    measured = {path: (lineage.call_depth.get(path), nodes[path], acted[path]) for path in (STANDARD, RECOMPUTE)}
    measured["total"] = (None, sum(nodes.values()), sum(acted.values()))
    return {path: PathStatistics(*measured[path], *CLAIMED[path]) for path in CLAIMED}


def nodes_holding(lineage: Lineage, path: str) -> set[int]:
    """The numbers of the path's stages that held the mask."""
    own = range(5, 9) if path == STANDARD else range(9, 13)
    applied = {12} if lineage.recompute_applications else set()
    return {
        number
        for (number, of, _), passed in lineage.stages.items()
        if of == path
        and (number in own or number == 2)
        and (number in applied or any(not p.endswith("=None") for p in passed.passes))
    }
