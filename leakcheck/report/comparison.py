"""What changed from one audit to another, and which way: verdicts, sight and coverage decide, deltas do not."""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum

from leakcheck.findings import AuditResult, Checkpoint, ConfigurationResult, Finding, Verdict, fingerprint, worst

ABSENT = "absent"
_VOLATILE = {"finished", "seconds"}  # of the environment: they differ between any two runs
_GRAVITY = {
    **dict.fromkeys(("PROVEN", "HOLDS", "caught"), 0),
    "OPEN": 1,
    "SUSPECT": 2,
    "CONTAMINATED": 3,
    **dict.fromkeys(("LEAK", "REFUTED", "MISSED"), 4),
}


class Way(StrEnum):
    WORSE = "WORSE"
    BETTER = "BETTER"
    SAME = "same"


@dataclass(frozen=True)
class Change:
    """`of` is what has changed: a configuration's verdict, a policy's, a claim's; `where` the configuration, if any."""

    way: Way
    of: str
    old: str
    new: str
    where: str = ""
    moved: tuple[float, float] | None = None  # how far the output did, then and now


@dataclass(frozen=True)
class StageChange:
    way: Way
    old: Checkpoint
    new: Checkpoint


@dataclass(frozen=True)
class FindingChange:
    """One finding in all its configurations. `finding` is the newer report's, unless only the older has it.

    `state` is new, fixed, unchanged, changed, or unseen: found then, and not looked for any more. `where` are the
    configurations that this is said of.
    """

    way: Way
    state: str
    finding: Finding
    where: tuple[str, ...]
    note: str = ""


@dataclass(frozen=True)
class Comparison:
    """`subjects` are the specs and `audits` the verdicts, then and now; `configurations` those of either report.

    `differences` are what the reports say of subject, tool and versions: name, then, now. They explain, no more.
    `stages_compared` were measured both times; `stages_alone` are those of only the older and only the newer report.
    """

    subjects: tuple[str, str]
    audits: tuple[Verdict, Verdict]
    configurations: tuple[str, ...]
    differences: tuple[tuple[str, str, str], ...]
    findings: tuple[FindingChange, ...]
    verdicts: tuple[Change, ...]
    stages: tuple[StageChange, ...]
    stages_compared: int
    stages_alone: tuple[int, int]

    @property
    def way(self) -> Way:
        """WORSE if anything is; else BETTER if anything is."""
        ways = {f.way for f in self.findings} | {v.way for v in self.verdicts} | {s.way for s in self.stages}
        return next((way for way in (Way.WORSE, Way.BETTER) if way in ways), Way.SAME)


def compare(old: AuditResult, new: AuditResult) -> Comparison:
    """Two audits, entry by entry; in which order a report has its entries makes no difference."""
    before, after = _stages(old), _stages(new)
    return Comparison(
        subjects=(old.subject.spec, new.subject.spec),
        audits=(old.verdict, new.verdict),
        configurations=tuple(sorted({c.id for result in (old, new) for c in result.configurations})),
        differences=tuple(_differences(old, new)),
        findings=tuple(sorted(_findings(old, new), key=lambda f: (f.finding.code, f.finding.module, f.where))),
        verdicts=tuple(_verdicts(old, new)),
        stages=tuple(_stage_changes(before, after, min(_proven_length(old), _proven_length(new)) - 1)),
        stages_compared=len(before.keys() & after.keys()),
        stages_alone=(len(before.keys() - after.keys()), len(after.keys() - before.keys())),
    )


def _way(old: str | None, new: str | None) -> Way:
    """Between two verdicts. What is not looked at any more is worse, whatever it was; so is a leak that is new."""
    if old == new:
        return Way.SAME
    was, is_ = _GRAVITY.get(old or ""), _GRAVITY.get(new or "")
    if is_ is None:
        return Way.SAME if was is None else Way.WORSE
    if was is None:
        return Way.BETTER if is_ <= _GRAVITY["OPEN"] else Way.WORSE
    return _rising(was, is_)


def _rising(old: float, new: float) -> Way:
    """Between two numbers of which the smaller is the better."""
    return Way.SAME if old == new else Way.WORSE if new > old else Way.BETTER


def _proven_length(result: AuditResult) -> int:
    return (result.subject.full_size or result.subject).seq_len


def _differences(old: AuditResult, new: AuditResult) -> Iterator[tuple[str, str, str]]:
    def facts(result: AuditResult) -> dict[str, object]:
        stable = {key: value for key, value in result.environment.items() if key not in _VOLATILE}
        full = result.subject.full_size
        size = {"full_size": full and f"{full.parameters:,} parameters, seq_len {full.seq_len}"}
        accepted = {"accepted": ", ".join(result.subject.accepted)}
        return {**vars(result.subject), **size, **accepted, result.tool.name: result.tool.version, **stable}

    then, now = facts(old), facts(new)
    for key in dict.fromkeys([*then, *now]):
        if str(then.get(key)) != str(now.get(key)):
            yield key, _told(then.get(key)), _told(now.get(key))


def _told(value: object) -> str:
    return ABSENT if value in (None, "") else str(value)


def _verdicts(old: AuditResult, new: AuditResult) -> Iterator[Change]:
    yield from _changed("audit", {"": old.verdict}, {"": new.verdict})
    was, is_ = ({c.id: c for c in result.configurations} for result in (old, new))
    for id in sorted(was.keys() | is_.keys()):
        yield from _configuration(id, was.get(id), is_.get(id))
    then, now = _proven_length(old), _proven_length(new)
    if then != now:
        yield Change(_rising(-then, -now), "positions", str(then), str(now))
    yield from _changed(
        "claim ", {c.id: c.verdict for c in old.conclusions}, {c.id: c.verdict for c in new.conclusions}
    )
    yield from _changed(
        "safety check ", {s.id: s.verdict for s in old.safety_checks}, {s.id: s.verdict for s in new.safety_checks}
    )
    yield from _changed("control: ", _controls(old), _controls(new))


def _controls(result: AuditResult) -> dict[str, str]:
    return {c.name: "caught" if c.caught else "MISSED" for c in result.controls}


def _changed(of: str, old: Mapping[str, str], new: Mapping[str, str], where: str = "") -> Iterator[Change]:
    for key in sorted(old.keys() | new.keys()):
        then, now = old.get(key), new.get(key)
        if then != now:
            yield Change(_way(then, now), of + key, _word(then), _word(now), where)


def _word(of: str | None) -> str:
    return ABSENT if of is None else "n/a" if of == Verdict.NOT_APPLICABLE else str(of)


def _configuration(id: str, old: ConfigurationResult | None, new: ConfigurationResult | None) -> Iterator[Change]:
    """The verdict; then of policies and paths only what it does not tell already; then how much was covered."""
    then, now = (None if c is None else c.verdict for c in (old, new))
    if then != now:
        moved = (old.output_delta, new.output_delta) if old and new else None
        yield Change(_way(then, now), "configuration", _word(then), _word(now), id, moved)
    if old is None or new is None:
        return
    for change in (
        *_changed("policy ", old.policies, new.policies, id),
        *_changed("path ", old.paths, new.paths, id),
    ):
        if (change.old, change.new) != (_word(then), _word(now)):
            yield change
    if old.pairs_covered != new.pairs_covered:
        was, is_ = (f"{c.pairs_covered} of {c.pairs_total}" for c in (old, new))
        yield Change(_rising(-old.pairs_covered, -new.pairs_covered), "position pairs covered", was, is_, id)


def _stages(result: AuditResult) -> dict[tuple, Checkpoint]:
    """Measured stages by what stays when lines move and stages or layers are inserted: no line, no number of a stage.

    What is left alike, as a mask that is handed on twice, is numbered in its order.
    """
    found: dict[tuple, Checkpoint] = {}
    seen: Counter[tuple] = Counter()
    for c in sorted(result.checkpoints, key=lambda c: c.stage):
        if c.verdict is Verdict.NOT_APPLICABLE:
            continue
        key = (c.configuration, c.path, c.layer, c.module, c.function, c.title)
        found[(*key, seen[key])] = c
        seen[key] += 1
    return found


def _stage_changes(
    old: Mapping[tuple, Checkpoint], new: Mapping[tuple, Checkpoint], furthest: int
) -> Iterator[StageChange]:
    """`furthest` is how far ahead both could see at most: a longer input alone makes nothing worse."""

    def sight(c: Checkpoint) -> float:
        return float("inf") if c.horizon is None else min(c.horizon, furthest)

    both = sorted(old.keys() & new.keys(), key=lambda key: (new[key].stage, str(key)))
    for then, now in ((old[key], new[key]) for key in both):
        ways = {_way(then.verdict, now.verdict), _rising(sight(then), sight(now))}
        if ways != {Way.SAME}:
            yield StageChange(Way.WORSE if Way.WORSE in ways else Way.BETTER, then, now)


def _findings(old: AuditResult, new: AuditResult) -> Iterator[FindingChange]:
    identity = _identity(old, new)
    was, is_ = (_by_identity(result, identity) for result in (old, new))
    looked_then, looked_now = _looked_at(old), _looked_at(new)
    for key in sorted(was.keys() | is_.keys()):
        if key not in was:
            first = is_[key][0]
            gravity = worst(f.verdict for f in is_[key])
            yield FindingChange(Way.SAME if gravity is Verdict.PROVEN else Way.WORSE, "new", first, _ids(is_[key]))
        elif key not in is_:
            yield from _gone(was[key], looked_now)
        else:
            yield _still(was[key], is_[key], looked_then, looked_now)


def _identity(old: AuditResult, new: AuditResult) -> Callable[[Finding], str]:
    """What tells findings apart: their fingerprints. Without the subject's name where that differs, without the op
    where one of the reports is from before findings had it."""
    every = (*old.findings, *new.findings)
    if old.subject.spec == new.subject.spec and all(f.fingerprint for f in every):
        return lambda f: f.fingerprint
    if all(f.fingerprint for f in every):
        return lambda f: fingerprint(f, "")
    return lambda f: "\0".join((f.code, f.policy, f.module))


def _by_identity(result: AuditResult, identity: Callable[[Finding], str]) -> dict[str, list[Finding]]:
    found: dict[str, list[Finding]] = defaultdict(list)
    for finding in sorted(result.findings, key=lambda f: (f.configuration, f.message)):
        found[identity(finding)].append(finding)
    return found


def _looked_at(result: AuditResult) -> set[tuple[str, str]]:
    """Configurations and policies that were judged."""
    return {(c.id, policy) for c in result.configurations for policy, of in c.policies.items() if of in _GRAVITY}


def _ids(findings: list[Finding]) -> tuple[str, ...]:
    return tuple(sorted({f.configuration for f in findings}))


def _gone(findings: list[Finding], looked: set[tuple[str, str]]) -> Iterator[FindingChange]:
    """Fixed where it was looked for and not found. Where nobody looks any more nothing is known."""
    for state, way, there in (("fixed", Way.BETTER, True), ("unseen", Way.SAME, False)):
        of = [f for f in findings if ((f.configuration, f.policy) in looked) is there]
        if of:
            better = worst(f.verdict for f in of) is not Verdict.PROVEN
            yield FindingChange(way if better else Way.SAME, state, of[0], _ids(of))


def _still(old: list[Finding], new: list[Finding], looked_then: set, looked_now: set) -> FindingChange:
    then, now = worst(f.verdict for f in old), worst(f.verdict for f in new)
    was, is_ = (Counter((f.configuration, f.policy) for f in found) for found in (old, new))
    more = {key[0] for key in is_ - was if key in looked_then}
    less = {key[0] for key in was - is_ if key in looked_now}
    notes = [f"{then}, now {now}"] if then is not now else []
    notes += [f"now also under {', '.join(sorted(more))}"] if more else []
    notes += [f"no longer under {', '.join(sorted(less))}"] if less else []
    ways = {_way(then, now), Way.WORSE if more else Way.SAME, Way.BETTER if less else Way.SAME}
    way = next(way for way in Way if way in ways)
    return FindingChange(way, "changed" if notes else "unchanged", new[0], _ids(new), "; ".join(notes))
