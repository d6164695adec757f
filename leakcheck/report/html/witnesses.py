"""The two inputs of a witness side by side."""

from collections.abc import Sequence
from dataclasses import dataclass

from leakcheck.findings import Finding, Witness
from leakcheck.report.inputs import shown_by, values
from leakcheck.report.words import number

_LONGEST = 256  # of more positions there is no picture


@dataclass(frozen=True)
class Line:
    """One row of the tokens, before or after the change, or what multiplies its embeddings; `differs` by position."""

    name: str
    cells: tuple[str, ...]
    differs: tuple[bool, ...]


@dataclass(frozen=True)
class Inputs:
    """What the two inputs are in words, and position by position where they are short enough.

    `moves` has, position by position, by how much the output moves there.
    """

    said: str
    lines: tuple[Line, ...]
    moves: tuple[str, ...]


def inputs_of(finding: Finding, witnesses: Sequence[Witness]) -> Inputs | None:
    id = (finding.witness or {}).get("id")
    witness = next((w for w in witnesses if w.id == id), None)
    if witness is None:
        return None
    tokens, changed, scale = (values(array) for array in (witness.tokens, witness.changed, witness.scale))
    rows, seq = tokens.shape
    if seq > _LONGEST:
        return Inputs(shown_by(witness), (), ())
    differs = (tokens != changed) | (scale != 1)
    lines = []
    for row in range(rows):
        of = f", row {row}" if rows > 1 else ""
        if row == witness.row or differs[row].any():
            marks = tuple(differs[row].tolist())
            lines.append(Line(f"one input{of}", tuple(map(str, tokens[row])), marks))
        if differs[row].any():
            lines.append(Line(f"the other{of}", tuple(map(str, changed[row])), marks))
        if (scale[row] != 1).any():
            lines.append(Line(f"embedding times{of}", tuple(f"{factor:g}" for factor in scale[row]), marks))
    moves = (f"moves {number(witness.delta)}" if at == witness.position else "" for at in range(seq))
    return Inputs(shown_by(witness), tuple(lines), tuple(moves))
