"""The two inputs of a witness side by side."""

import base64
import binascii
import struct
from dataclasses import dataclass

from leakcheck.findings import Array, Witness
from leakcheck.report.words import number

_CODES = {"int64": "q", "int32": "i", "float32": "f", "float64": "d"}
_WIDEST = 256  # a longer row is no picture any more; the witness's own file has it


@dataclass(frozen=True)
class Inputs:
    """For each position what is read, first and then; `scale` is empty where nothing is scaled.

    `differs` marks the positions at which the two differ, `position` is the one whose output moves, by `delta`.
    """

    tokens: tuple[str, ...]
    changed: tuple[str, ...]
    scale: tuple[str, ...]
    differs: tuple[bool, ...]
    position: int
    delta: str


def inputs_of(witness: Witness) -> Inputs | None:
    """`None` where an array cannot be shown: an unknown type, no such row, too long."""
    tokens, changed, scale = (_row(array, witness.row) for array in (witness.tokens, witness.changed, witness.scale))
    if tokens is None or changed is None or scale is None or not len(tokens) == len(changed) == len(scale) <= _WIDEST:
        return None
    return Inputs(
        tokens=tuple(map(str, tokens)),
        changed=tuple(map(str, changed)),
        scale=tuple(map(number, scale)) if any(factor != 1 for factor in scale) else (),
        differs=tuple(a != b or factor != 1 for a, b, factor in zip(tokens, changed, scale, strict=True)),
        position=witness.position,
        delta=number(float.fromhex(witness.delta)),
    )


def _row(array: Array, row: int) -> tuple | None:
    code = _CODES.get(array.dtype)
    if code is None or len(array.shape) != 2 or not 0 <= row < array.shape[0]:
        return None
    length = array.shape[1]
    try:
        data = base64.b64decode(array.data, validate=True)
        return struct.unpack_from(f"<{length}{code}", data, row * length * struct.calcsize(code))
    except (binascii.Error, struct.error):
        return None
