"""Rows that were sorted, went through an op that treats rows alike, and were put back: the order cancels."""

import json
import zlib
from pathlib import Path

import pytest
import torch

from leakcheck.flow.context import tensors_of
from leakcheck.flow.labels import DTYPE, KNOWN, Labels
from leakcheck.flow.registry import RULES
from leakcheck.flow.reports import Reports
from leakcheck.flow.storage import Mirror
from tests.flow.conformance.claims import Strict, run
from tests.flow.conformance.samples import SAMPLES

pytestmark = pytest.mark.filterwarnings("ignore")

RECORD = Path(__file__).with_name("slots.json")  # samples for which it does not, though it could
ORDER = 50  # the lowest label of what decides the order, above those of all rows


def moved_by(sample):
    """The numbers of the tensors whose rows are sorted, and how many rows; `None` where an op has no rows."""
    specs = sample.specs()
    rows = [i for i, s in enumerate(specs) if s.role == "varied" and s.shape]
    if not rows or sample.random or sample.mutates or sample.program or sample.reference:
        return None
    n = specs[rows[0]].shape[0]
    return ([i for i in rows if specs[i].shape[0] == n], n) if n > 1 else None


def drawn(sample):
    generator = torch.Generator().manual_seed(zlib.crc32(str(sample).encode()))
    return [spec.draw(generator, spec.shape) for spec in sample.specs()]


def treats_rows_alike(sample, moved, n):
    """Whether other orders of the rows give the same results in that order; by values alone."""
    function, values = run(sample), drawn(sample)
    plain = function(values)
    if any(not t.dim() or t.shape[0] != n for t in plain):
        return False
    for order in (torch.arange(n).flip(0), torch.arange(n).roll(1)):
        turned = function([v[order] if i in moved else v for i, v in enumerate(values)])
        if not all(torch.allclose(a, b[order], equal_nan=True) for a, b in zip(turned, plain, strict=True)):
            return False
    return True


def labels(sample, moved, n, *, sort):
    """The label planes of the results; to `sort`, rows are sorted on the way in and put back on the way out."""
    mirror, values, key = Mirror(), drawn(sample), torch.rand(n)
    try:
        mirror.seed(key, Labels(torch.arange(ORDER, ORDER + n, dtype=DTYPE)))
        for i, value in enumerate(values):
            if i in moved:
                rows = torch.arange(n, dtype=DTYPE).reshape(-1, *[1] * (value.dim() - 1)).expand(value.shape)
                mirror.seed(value, Labels(rows.contiguous()))
        with Strict(mirror, Reports()):
            order = key.argsort()
            back = order.argsort()
            given = [v[order] if sort and i in moved else v for i, v in enumerate(values)]
            results = [t[back] if sort else t for t in run(sample)(given)]
        return [mirror.read(t).settled().hardened().plane.clamp(min=KNOWN) for t in tensors_of(results)]
    finally:
        mirror.close()


def cancels(sample, moved, n):
    sorted_, plain = labels(sample, moved, n, sort=True), labels(sample, moved, n, sort=False)
    assert all(bool((a >= b).all()) for a, b in zip(sorted_, plain, strict=True)), f"{sample} loses the order"
    return all(torch.equal(a, b) for a, b in zip(sorted_, plain, strict=True))


ROWWISE = [key for key, rule in RULES.items() if rule.rowwise]


def not_cancelled(key):
    found = []
    for sample in SAMPLES:
        if sample.key == key and (rows := moved_by(sample)) and treats_rows_alike(sample, *rows):
            found += [] if cancels(sample, *rows) else [str(sample)]
    return found


@pytest.mark.parametrize("key", ROWWISE)
def test_the_order_cancels(key):
    assert not_cancelled(key) == json.loads(RECORD.read_text()).get(key, []), "as recorded in slots.json"


if __name__ == "__main__":  # writes the record anew
    made = {key: not_cancelled(key) for key in ROWWISE}
    RECORD.write_text(json.dumps({key: several for key, several in made.items() if several}, indent=2) + "\n")
