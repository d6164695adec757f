"""What brute force makes of one entry of the registry: everything unsound, and how often it is coarse."""

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from leakcheck.flow.labels import HOLE
from leakcheck.flow.registry import RULES
from tests.flow.conformance.cases import cases
from tests.flow.conformance.claims import claims, coarse, forms, truths, unclaimed, unsound
from tests.flow.conformance.samples import SAMPLES

RECORD = Path(__file__).with_name("coarse.json")
KEYS = sorted({*RULES, *(sample.key for sample in SAMPLES)})
THOROUGH = 40  # bases that are tried before a claim counts as coarse
MAY_FAIL = ("expanded", "blocked")  # patterns that not every op takes: equal rows are singular, masks no probabilities


@dataclass
class Outcome:
    """`compared` calls; what was `unsound` in words; of how many calls a claim is too high, ends in a hole, or leaves
    a zero or a blocking constant `unclaimed`.
    """

    compared: int = 0
    unsound: list[str] = field(default_factory=list)
    coarse: int = 0
    holes: int = 0
    unclaimed: int = 0


def examine(key: str, enough: Callable[[Outcome], bool] = lambda _: False) -> Outcome:
    """All samples of an entry, in all cases and forms, until `enough` was found."""
    found = Outcome()
    for sample in SAMPLES:
        if sample.key != key:
            continue
        for case in cases(sample):
            try:
                truth = truths(case)
            except RuntimeError:
                if not case.pattern.endswith(MAY_FAIL):
                    raise
                continue
            for form in forms(case):
                claimed = claims(case, form)
                if claimed is None:
                    continue
                found.compared += 1
                wrong = unsound(claimed, truth)
                if wrong:
                    found.unsound.append(f"{case}, {form.name}: {wrong}")
                elif case.exact:
                    if coarse(claimed, truth):
                        truth = truths(case, THOROUGH, claimed)
                    found.coarse += coarse(claimed, truth)
                found.holes += any(bool((plane >= HOLE).any()) for plane in claimed)
                found.unclaimed += unclaimed(claimed, truth)
                if enough(found):
                    return found
    return found


def recorded() -> dict[str, dict[str, int]]:
    return json.loads(RECORD.read_text())


def counts(outcome: Outcome) -> dict[str, int]:
    """What the record holds of it; empty if there is nothing to hold."""
    return {name: n for name in ("coarse", "holes", "unclaimed") if (n := getattr(outcome, name))}


if __name__ == "__main__":  # writes the record anew
    made = {key: examine(key) for key in KEYS}
    RECORD.write_text(json.dumps({key: n for key, found in made.items() if (n := counts(found))}, indent=2) + "\n")
    print(*(each for found in made.values() for each in found.unsound), sep="\n")
