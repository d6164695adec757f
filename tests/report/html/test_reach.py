from dataclasses import replace

from leakcheck.findings import REACH, FullSize, Verdict
from leakcheck.report.html.reach import reach

from ..documents import DOCUMENTS, configuration, end_of_proof

CLEAN = DOCUMENTS["clean"]


def said(document) -> dict[str, str]:
    return dict(reach(document))


def test_only_what_occurs_is_explained():
    assert list(said(CLEAN)) == ["PROVEN", "HOLDS, REFUTED", "Sees", "Delta matrix", "Padded rows"]
    assert list(said(DOCUMENTS["generic"])) == ["OPEN", "Sees"]
    assert list(said(DOCUMENTS["empty"])) == ["n/a"]
    assert {"LEAK", "CONTAMINATED", "Witness"} <= said(DOCUMENTS["leak"]).keys()


def test_a_policy_beside_the_contract_is_explained():
    asked = configuration("a", "ones", "eval", policies={"causal": Verdict.PROVEN, "batch": Verdict.SUSPECT})
    assert "SUSPECT" in said(replace(CLEAN, configurations=(asked,)))


def test_a_proof_says_what_it_reaches():
    text = said(CLEAN)["PROVEN"]
    assert REACH in text
    assert "13 positions" in text


def test_a_proof_with_soft_masks_and_at_full_size_says_so():
    soft = replace(
        CLEAN,
        findings=(end_of_proof("LC202", 3, "soft mask"),),
        subject=replace(CLEAN.subject, full_size=FullSize(7_000_000_000, 4096), contract="window:4"),
    )
    text = said(soft)["PROVEN"]
    assert "4096 positions" in text
    assert "LC202" in text
    assert "shrunken copy" in text
    assert "contract window:4" in text


def test_what_must_be_seen_is_shown_and_not_proven():
    text = said(replace(CLEAN, subject=replace(CLEAN.subject, contract="bidirectional")))["PROVEN"]
    assert REACH not in text
