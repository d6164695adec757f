"""The pair of inputs of a witness, in words; and its tensors as arrays."""

import base64

import numpy

from leakcheck.findings import Array, Witness
from leakcheck.report.words import counted, number

_SHOWN = 12  # tokens of a row that are written out


def values(array: Array) -> numpy.ndarray:
    """The values of a tensor of the document."""
    flat = numpy.frombuffer(base64.b64decode(array.data), numpy.dtype(array.dtype).newbyteorder("<"))
    return flat.reshape(array.shape)


def shown_by(witness: Witness) -> str:
    """Which tokens, what else in their place, and what moves: on one line."""
    tokens, changed, scale = (values(array) for array in (witness.tokens, witness.changed, witness.scale))
    rows, seq = tokens.shape
    of = f" of row {witness.row}" if rows > 1 else ""
    moves = f"position {witness.position}{of} moves by {number(witness.delta)}"
    given = f"tokens {_listed(tokens[0])}" if rows == 1 and seq <= _SHOWN else f"{rows} x {counted(seq, 'token')}"
    places = ((tokens != changed) | (scale != 1)).nonzero()
    if not len(places[0]):
        return f"{given}: {moves} when they are decoded in pieces"
    where = [f"{position}" if rows == 1 else f"{row}, {position}" for row, position in zip(*places, strict=True)]
    there = f"position {'; '.join(where)}" if len(where) <= _SHOWN else f"{len(where)} positions"
    other = f"{_listed(changed[places])} at {there}" if len(where) <= _SHOWN else f"others at {there}"
    longer = scale[places].max()
    norm = f", with embeddings {longer:g} times as long" if longer != 1 else ""
    return f"{given}, and {other}{norm}: {moves}"


def _listed(tokens: numpy.ndarray) -> str:
    return " ".join(map(str, tokens.tolist()))
