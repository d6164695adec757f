"""What a report says where other policies than the contract were asked for: what was established of each, and where."""

from collections.abc import Callable, Sequence

from leakcheck.findings import ConfigurationResult, Verdict, worst
from leakcheck.report.layout import Row, Section, Table
from leakcheck.report.words import counted, magnitude, number, verdict

# What is said of a leak, and of its absence.
_REACHES = {
    "batch": ("a row of the batch reaches another", "no row of the batch reaches another"),
    "document": ("packed documents reach each other", "no packed document reaches another"),
    "padding": ("padding reaches valid positions", "no padding reaches a valid position"),
    "cache": ("cached and full decoding disagree", "cached and full decoding agree"),
}
_UNPROVEN = "that two ways of running agree is measured, never proven"


def asked_beside(configurations: Sequence[ConfigurationResult]) -> bool:
    """Whether there are verdicts of other policies than the contract."""
    return any(name in _REACHES for c in configurations for name in c.policies)


def by_policy(configurations: Sequence[ConfigurationResult]) -> dict[str, list[tuple[ConfigurationResult, Verdict]]]:
    """For each policy the configurations to which it applies, with its verdict there."""
    found: dict[str, list[tuple[ConfigurationResult, Verdict]]] = {}
    for c in configurations:
        for name, of in c.policies.items():
            if of is not Verdict.NOT_APPLICABLE:
                found.setdefault(name, []).append((c, of))
            else:
                found.setdefault(name, [])
    return found


def worst_policies(configurations: Sequence[ConfigurationResult], overall: Verdict) -> list[str]:
    """The policies that the verdict of the whole comes from."""
    each = by_policy(configurations)
    return [name for name, found in each.items() if worst(of for _, of in found) is overall]


def established(name: str, of: Verdict) -> str:
    """What the verdict of a policy says, in words."""
    leaks, keeps = _REACHES[name]
    match of:
        case Verdict.LEAK:
            return leaks
        case Verdict.PROVEN:
            return keeps
        case Verdict.SUSPECT:
            return f"signs that {leaks}, not settled"
        case Verdict.OPEN:
            return f"{keeps} as far as was measured; {_UNPROVEN if name == 'cache' else 'not proven'}"
        case _:
            return "does not apply"


def evidence(configurations: Sequence[ConfigurationResult]) -> str:
    """In how many configurations each policy has its verdict."""
    told = []
    for name, found in by_policy(configurations).items():
        of = worst(each for _, each in found)
        if found:
            same = sum(each is of for _, each in found)
            told.append(f"{name}: {verdict(of)} in {same} of {counted(len(found), 'configuration')}")
        else:
            told.append(f"{name}: does not apply")
    return "; ".join(told)


def policy_section(configurations: Sequence[ConfigurationResult], of_time: Callable[[Verdict], str]) -> Section:
    """One row for each policy; `of_time` says what a verdict of the contract says."""
    rows = []
    for name, found in by_policy(configurations).items():
        of = worst(each for _, each in found)
        same = sum(each is of for _, each in found)
        moved = max((_moved(c, name) for c, _ in found), key=magnitude, default=None)
        where = f"{same} of {counted(len(found), 'configuration')}" if found else "-"
        said = established(name, of) if name in _REACHES else of_time(of)
        rows.append(Row((name, verdict(of), where, number(moved), said)))
    lines = ("What was asked beside, or in place of, the question about time. Number: how far an output moved.",)
    return Section("Policies", lines, Table(("policy", "verdict", "where", "moved", "established"), tuple(rows)))


def _moved(configuration: ConfigurationResult, name: str) -> float | None:
    return configuration.policy_deltas.get(name) if name in _REACHES else configuration.output_delta
