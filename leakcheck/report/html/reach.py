"""How far what a report says reaches, in words: one sentence or two for each kind of statement that occurs in it."""

from leakcheck.codes import SOFT_MASK
from leakcheck.config import CAUSAL
from leakcheck.findings import REACH, AuditResult, Verdict
from leakcheck.report.policies import asked_beside
from leakcheck.report.view import BIDIRECTIONAL
from leakcheck.report.words import counted

_SHOWN = {
    Verdict.LEAK: "Two inputs that differ only where an output may not look, and that output moves in float64, too. It "
    "takes no proof and no threshold. It says nothing of how much a trained model uses what it sees.",
    Verdict.SUSPECT: "The proof admits a dependence, or something moved that float64 could not confirm, and no two "
    "inputs show it. It can be a leak that was not found, or none.",
    Verdict.OPEN: "Nothing moved for the inputs that were drawn, but the proof has a hole or a control was missed; the "
    "findings and the controls say which. Other tokens or weights may show more.",
    Verdict.CONTAMINATED: "The stage carries what an earlier stage let in. By itself it may be sound: repair the stage "
    "that is marked LEAK, then audit again.",
    Verdict.NOT_APPLICABLE: "The subject has no such part, or the stage has no tensor to measure.",
}


def reach(result: AuditResult) -> list[tuple[str, str]]:
    """Pairs of what is said and how far it reaches."""
    found = {result.verdict, *(c.verdict for c in result.configurations)}
    found |= {c.verdict for c in result.checkpoints if c.output_delta is not None}
    if asked_beside(result.configurations):
        found |= {of for c in result.configurations for of in c.policies.values()}
    said = [("PROVEN", _proven(result))] if Verdict.PROVEN in found else []
    said += [(str(of).replace("NOT_APPLICABLE", "n/a"), text) for of, text in _SHOWN.items() if of in found]
    if result.conclusions or result.safety_checks:
        text = "Of what was counted, seen or proven in the configurations of this report; one exception refutes."
        said.append(("HOLDS, REFUTED", text))
    if result.horizon_map or any(c.horizon is not None for c in result.checkpoints):
        text = "An upper bound, whatever the tokens and the weights: 0 is proven, more is admitted and not yet shown."
        said.append(("Sees", text))
    if result.delta_matrix:
        text = "Measured with one draw of tokens, one changed at a time: what moved did depend, a zero is no proof."
        said.append(("Delta matrix", text))
    if result.witnesses:
        text = "The shortest inputs and the smallest change that were found, not the smallest that there are."
        said.append(("Witness", text))
    if any(c.padded_queries for c in result.configurations):
        text = "Rows of padding may see anything, since nobody uses them; they are counted apart and decide nothing."
        said.append(("Padded rows", text))
    return said


def _proven(result: AuditResult) -> str:
    if result.subject.contract == BIDIRECTIONAL:
        return "Shown by inputs that were changed, for these weights: each position moved with a later input."
    length = (result.subject.full_size or result.subject).seq_len
    text = f"Holds {REACH}, under each configuration marked so, at {counted(length, 'position')}, for finite values."
    if result.subject.full_size:
        text += " Proven at full size without weights; what was measured is of a shrunken copy."
    if result.subject.contract != str(CAUSAL):
        text += f" Of the contract {result.subject.contract}."
    if any(f.code == SOFT_MASK.id for f in result.findings):
        text += f" Only as long as scores stay above the soft masks ({SOFT_MASK.id})."
    return text + " Other lengths, shapes and attention backends need an audit of their own."
