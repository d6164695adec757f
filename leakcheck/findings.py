"""The result of an audit: frozen data without torch, which every report is a rendering of.

Field names are the keys of the JSON report; schema version 1.0 changes only by addition.
"""

from dataclasses import dataclass, field
from enum import StrEnum

SCHEMA_VERSION = "1.0"


class Verdict(StrEnum):
    """What was established. `CONTAMINATED` is for checkpoints only: it passes on what an earlier stage let in."""

    PROVEN = "PROVEN"
    LEAK = "LEAK"
    SUSPECT = "SUSPECT"
    OPEN = "OPEN"
    NOT_APPLICABLE = "NOT_APPLICABLE"
    CONTAMINATED = "CONTAMINATED"


REACH = "for all token sequences and all weights of these shapes"  # what PROVEN is said of


class ClaimVerdict(StrEnum):
    """What became of a claim. `HOLDS` is for what was counted, seen or proven; causality only measured stays `OPEN`."""

    HOLDS = "HOLDS"
    REFUTED = "REFUTED"
    OPEN = "OPEN"
    NOT_APPLICABLE = "NOT_APPLICABLE"


_SEVERITY = (
    Verdict.NOT_APPLICABLE,
    Verdict.PROVEN,
    Verdict.OPEN,
    Verdict.SUSPECT,
    Verdict.CONTAMINATED,
    Verdict.LEAK,
)


def worst(verdicts) -> Verdict:
    """The gravest of the verdicts; `NOT_APPLICABLE` when there are none."""
    return max(verdicts, key=_SEVERITY.index, default=Verdict.NOT_APPLICABLE)


@dataclass(frozen=True)
class Location:
    """A place in running code: `lines` are first and last, 1-based; `operation` is the source text there."""

    function: str
    file: str
    lines: tuple[int, int]
    operation: str


@dataclass(frozen=True)
class WorstCase:
    """Where a delta is largest.

    `cut` is the first position whose token changed, `position` the past position that moved, `channel` the index into
    its flattened features, `draw` the name of the change (which tokens or norms were drawn). With `before`, what
    changed lies before the cut, and is too long past for the position to see.
    """

    cut: int
    position: int
    channel: int
    draw: str
    delta: float
    before: bool = False


@dataclass(frozen=True)
class Checkpoint:
    """One stage of one path in one layer under one configuration.

    `output_delta` and `gradient_delta` are end to end, from the tokens; `local_delta` is from the future rows of the
    stage's own input. Control-flow stages have no tensor: their deltas are `None` and `runs` is the measurement.
    `horizon` is how many positions beyond those that it may see, its own being the last, the stage can see at most,
    whatever the tokens and the weights: 0 for none; `None` where it has no tensor, where its positions cannot be told,
    or where the proof has a hole.
    """

    stage: int
    phase: str
    path: str
    layer: int | None
    configuration: str
    module: str
    function: str
    file: str
    lines: tuple[int, int]
    operation: str
    passes: tuple[str, ...]
    runs: int
    horizon: int | None
    output_delta: float | None
    relative_delta: float | None
    gradient_delta: float | None
    local_delta: float | None
    rounding_delta: float | None
    worst_case: WorstCase | None
    verdict: Verdict
    library: Location | None = None
    title: str = ""  # what the plan calls the stage
    note: str = ""


@dataclass(frozen=True)
class ConfigurationResult:
    id: str
    attention: str
    mask: str
    mode: str
    cache: str
    verdict: Verdict
    policies: dict[str, Verdict]
    paths: dict[str, Verdict]
    output_delta: float
    relative_delta: float
    gradient_delta: float
    rounding_delta: float
    worst_case: WorstCase | None
    pairs_covered: int
    pairs_total: int
    padded_queries: int
    padded_queries_moved: int
    horizon: int | None = None  # of the logits; as a checkpoint's
    policy_deltas: dict[str, float | None] = field(default_factory=dict)  # beside the contract's, which is output_delta


@dataclass(frozen=True)
class PathStatistics:
    """Counts of one path beside the trace's; `lineage.statistics` says how each is counted."""

    call_depth: int | None
    nodes: int
    safety_checks: int
    claimed_call_depth: int | None
    claimed_nodes: int
    claimed_safety_checks: int


@dataclass(frozen=True)
class SafetyCheck:
    """One of the trace's checks: `acted` counts how often it ran and took effect, in the configuration named."""

    id: str
    where: Location | None
    claim: str
    active: bool
    acted: dict[str, int]  # configuration id -> times it took effect
    mask: str | None
    load_bearing: bool | None  # None: not ablated
    verdict: ClaimVerdict
    evidence: str


@dataclass(frozen=True)
class AblationRow:
    """One on/off combination of the safety checks, built and measured under `configuration`."""

    configuration: str
    checks: dict[str, bool]
    paths: dict[str, Verdict]
    output_delta: float
    first_leak: str | None  # the stage that lets the future in first, in words


@dataclass(frozen=True)
class Fidelity:
    """How far the re-mask moves the stored weights: total variation distance per query row, worst and mean."""

    worst: float
    mean: float
    layer: int | None  # the replayed layer of the worst row
    head: int | None
    position: int | None


@dataclass(frozen=True)
class Conclusion:
    id: str
    claim: str
    verdict: ClaimVerdict
    evidence: str


@dataclass(frozen=True)
class Finding:
    code: str
    verdict: Verdict
    policy: str
    configuration: str
    message: str
    module: str
    file: str
    line: int | None
    chain: tuple[str, ...]
    witness: dict | None
    reproduce: str


@dataclass(frozen=True)
class Control:
    """A known answer put to the harness itself; `caught` says whether it saw what it should (or stayed quiet)."""

    name: str
    expected: str
    caught: bool


@dataclass(frozen=True)
class Tool:
    name: str
    version: str


@dataclass(frozen=True)
class FullSize:
    """The model at its full size, without weights, that was proven where a shrunken copy of it was probed."""

    parameters: int
    seq_len: int


@dataclass(frozen=True)
class SubjectInfo:
    """What was audited. With `full_size` all other numbers, and the weights, are those of the copy that was probed."""

    spec: str
    class_name: str = field(metadata={"json": "class"})
    parameters: int = 0
    seq_len: int = 0
    weights: str = ""
    plan: str = ""
    inputs: str = ""  # what the forward reads
    outputs: str = ""  # which of its outputs were audited, where they are not its logits
    accepted: tuple[str, ...] = ()  # modules left in eval mode, whose coupling of the batch was accepted
    contract: str = "causal"
    full_size: FullSize | None = None


@dataclass(frozen=True)
class AuditResult:
    schema_version: str
    tool: Tool
    subject: SubjectInfo
    verdict: Verdict
    configurations: tuple[ConfigurationResult, ...]
    checkpoints: tuple[Checkpoint, ...]
    statistics: dict[str, PathStatistics]
    safety_checks: tuple[SafetyCheck, ...]
    ablation: tuple[AblationRow, ...]
    fidelity: Fidelity | None
    conclusions: tuple[Conclusion, ...]
    findings: tuple[Finding, ...]
    controls: tuple[Control, ...]
    environment: dict
