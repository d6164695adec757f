"""The result of an audit: frozen data without torch, which every report is a rendering of.

Field names are the keys of the JSON report; within schema version 1 they change only by addition.
"""

import hashlib
from dataclasses import dataclass, field
from enum import StrEnum

SCHEMA_VERSION = "1.1"


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
class Excerpt:
    """A piece of source with a region marked: some lines around it, the first of which is number `first`.

    `region` is first line, first column, last line, and the column after the last character; all 1-based. There are no
    `lines` where the source cannot be read.
    """

    file: str
    region: tuple[int, int, int, int]
    first: int
    lines: tuple[str, ...]


@dataclass(frozen=True)
class Step:
    """One step of the way that a token takes to the position that reads it, or a mask to where it is lost.

    `module` is the module, or the function, in which it happens. Without an excerpt no line of code is known.
    """

    text: str
    module: str
    excerpt: Excerpt | None

    def __str__(self) -> str:
        where = f"{self.excerpt.file}:{self.excerpt.region[0]}: " if self.excerpt else ""
        return f"{where}{self.text}" + (f" in {self.module}" if self.module else "")


@dataclass(frozen=True)
class Finding:
    """`chain` are the steps as lines of text. `operation` is the op to blame, as torch calls it.

    `fingerprint` is the same for the same fault in every configuration and run, wherever its line has moved to.
    `excerpt` is the source at `file` and `line`. `reproduce` is one command that shows it again.
    """

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
    operation: str = ""
    fingerprint: str = ""
    excerpt: Excerpt | None = None
    steps: tuple[Step, ...] = ()


def fingerprint(finding: Finding, subject: str) -> str:
    """What is the same for the same fault: code, subject, policy, module and op; no line numbers and no deltas.

    Where no module is known the file and the text of the line stand for it.
    """
    where = finding.module
    if not where and finding.excerpt and finding.excerpt.lines:
        line, first = finding.excerpt.region[0], finding.excerpt.first
        where = f"{finding.file}: {finding.excerpt.lines[line - first].strip()}"
    parts = (finding.code, subject, finding.policy, where or finding.file, finding.operation)
    return hashlib.sha256("\0".join(parts).encode("utf-8", "backslashreplace")).hexdigest()[:16]


@dataclass(frozen=True)
class HorizonRow:
    """How many positions beyond those that it may see each position of some tensors can see; `None` where unknown.

    The tensors are those of one layer on one path; with neither they are the outputs.
    """

    path: str
    layer: int | None
    ahead: tuple[int | None, ...]


@dataclass(frozen=True)
class HorizonMap:
    """What flow admits under one configuration, in the order of the forward, the outputs last.

    Positions of `padding` may see anything.
    """

    configuration: str
    rows: tuple[HorizonRow, ...]
    padding: tuple[int, ...] = ()


@dataclass(frozen=True)
class DeltaMatrix:
    """`deltas[output][input]`: how far an output position moved when the token at one input position alone changed.

    Zero where the move was rounding. Measured under one configuration, with one draw of tokens: a zero is no proof.
    Positions of `padding` may see anything.
    """

    configuration: str
    deltas: tuple[tuple[float, ...], ...]
    padding: tuple[int, ...] = ()


@dataclass(frozen=True)
class Array:
    """A tensor: `data` is base64 of its values in C order, little endian."""

    dtype: str
    shape: tuple[int, ...]
    data: str


@dataclass(frozen=True)
class Witness:
    """Two inputs that show a leak: the shortest length and the smallest change that were found.

    `tokens` and `changed` are integers `[rows, seq]`; `scale` `[rows, seq]` multiplies the embeddings of the changed
    inputs. With them the output at `row`, `position` and `channel` moves by `delta` in float64, though it may see none
    of what differs. Without a difference two ways to run the same tokens disagree there. `question` counts those that
    the policy puts, `weights` is the SHA-256 of all parameters and buffers.

    What it takes to see it without leakcheck: `recipe` says how the model is made. `arguments` are the tensors that its
    forward is called with, first for `tokens`, then for `changed`, `options` what else. `outputs` are the batch axis
    (`None` if there is none) and the time axis of those that were audited, by the expression that takes each out of
    what the forward returns. `embedding` names the module whose output is scaled. With `chunks` the tokens are decoded
    so many at a time onto the `cache`, an argument of the forward, and compared with the full forward where nothing
    differs. What is empty could not be told.
    """

    id: str
    codes: tuple[str, ...]
    policy: str
    question: int
    configuration: dict
    settings: dict
    spec: str
    row: int
    position: int
    channel: int
    delta: float
    tokens: Array
    changed: Array
    scale: Array
    weights: str
    versions: dict
    recipe: dict
    arguments: tuple[dict[str, Array], ...] = ()
    options: dict = field(default_factory=dict)
    outputs: dict[str, tuple[int | None, int]] = field(default_factory=dict)
    embedding: str = ""
    chunks: tuple[int, ...] = ()
    cache: str = ""


@dataclass(frozen=True)
class Replayed:
    """What became of a witness: whether an output still moves, by how much and where.

    `exact` says whether it is the same place and the same delta to the last bit. `changed` are versions that differ
    from the witness's, `same_weights` says whether the weights are those that it was found with, `proven` whether flow
    proves that nothing of the kind can happen under its configuration.
    """

    leaks: bool
    delta: float
    row: int
    position: int
    channel: int
    exact: bool
    same_weights: bool
    proven: bool
    changed: tuple[str, ...]


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
    horizon_map: HorizonMap | None = None
    delta_matrix: DeltaMatrix | None = None
    witnesses: tuple[Witness, ...] = ()
