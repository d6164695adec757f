"""Laws of company: other rows, other documents and padding change nothing."""

from collections.abc import Callable, Sequence
from itertools import accumulate
from typing import Any
from unittest import mock

import torch
from torch import Tensor

from leakcheck.laws.broken import NotApplicable, Vacuous
from leakcheck.laws.compare import View, expect_same, forward, of_mask, whole
from leakcheck.laws.registry import law
from leakcheck.laws.twin import Runner, Twin, twin
from leakcheck.subjects.library import masking_utils

# Arguments that tell the documents of a row apart: by their number at each token, or by where each begins and ends.
_NUMBERS = ("document_ids", "doc_ids", "segment_ids", "sequence_ids", "seq_idx")
_BOUNDS = "cu_seqlens"

LEFT, RIGHT = SIDES = ("left", "right")


@law
def batch_independent(model: object, tokens: Tensor, order: Sequence[int]) -> None:
    """Each row of `tokens` `[batch, seq]` gives alone what it gives in the batch, and in the batch in this order.

    Raises:
        Broken: it does not.
        Vacuous: there is one row.
    """
    both, inputs = twin(model), {"tokens": tokens.tolist(), "order": list(order)}
    rows, seq = tokens.shape
    if rows < 2:
        raise Vacuous("one row has no company")
    for row, alone in enumerate(tokens):
        together = _row(forward(tokens), row, seq)
        single = _row(forward(alone[None]), 0, seq)
        claim = "a row alone has to give what it gives in the batch"
        expect_same("batch_independent", both, together, single, claim, inputs)
    together = whole(forward(tokens), rows, seq)
    places = torch.tensor(list(order)).argsort()[together.rows]
    turned = View(forward(tokens[list(order)]), places, together.positions)
    claim = "a row has to give the same in any order of the batch"
    expect_same("batch_independent", both, together, turned, claim, inputs)


@law
def padding_unseen(model: object, tokens: Tensor, changed: Tensor, lengths: Sequence[int], side: str) -> None:
    """What stands in masked positions moves nothing.

    Of row i of `tokens` `[batch, seq]` all but `lengths[i]` tokens are padding, at its left or right `side`. There
    `changed` holds other tokens.

    Raises:
        Broken: an output that is no padding moved.
        NotApplicable: the model takes no attention mask.
        Vacuous: no padding is changed.
    """
    both, valid = twin(model), _valid(tokens, lengths, side)
    # Positions that restart would tell documents apart, and so hide that the mask is lost.
    arguments = _masked(both, valid, torch.arange(tokens.shape[1]).expand(tokens.shape))
    other = torch.where(valid, tokens, changed)
    if torch.equal(tokens, other):
        raise Vacuous("no padding is changed")
    one = of_mask(forward(tokens, **arguments), valid)
    two = of_mask(forward(other, **arguments), valid)
    claim = f"what stands in padding at the {side} has to change nothing"
    inputs = {"tokens": tokens.tolist(), "changed": other.tolist(), "lengths": list(lengths), "side": side}
    expect_same("padding_unseen", both, one, two, claim, inputs)


@law
def padding_invariant(model: object, tokens: Tensor, lengths: Sequence[int], side: str) -> None:
    """A padded row gives at its tokens what they give alone; arguments as those of `padding_unseen`.

    Positions count from the first token that is no padding, where the forward takes them.

    Raises:
        Broken: it does not.
        NotApplicable: the model takes no attention mask; or padding is at the left, where it moves every token to
            another position, and the forward takes no positions.
        Vacuous: there is no padding.
    """
    both, valid = twin(model), _valid(tokens, lengths, side)
    arguments = _masked(both, valid, (valid.cumsum(1) - 1).clamp(min=0))
    if valid.all():
        raise Vacuous("there is no padding")
    if side == LEFT and "position_ids" not in arguments:
        raise NotApplicable(f"{both.name} takes no position_ids: its tokens stand elsewhere with padding at the left")

    claim = f"a row has to give the same with padding at the {side} as without"
    inputs = {"tokens": tokens.tolist(), "lengths": list(lengths), "side": side}
    for row, kept in enumerate(valid):
        (places,) = kept.nonzero(as_tuple=True)
        padded = View(forward(tokens, **arguments), torch.full_like(places, row), places)
        bare = _row(_bare(both, tokens[row][kept]), 0, len(places))
        expect_same("padding_invariant", both, padded, bare, claim, inputs)


@law
def documents_independent(model: object, tokens: Tensor, lengths: Sequence[int]) -> None:
    """A document gives the same alone as packed behind others: `tokens` `[1, seq]`, documents of these `lengths`.

    Where each begins is told by positions that restart, and by every argument for it that the forward takes.

    Raises:
        Broken: it does not.
        NotApplicable: the forward has no argument for documents, and makes no masks from positions that restart.
        Vacuous: there is one document.
    """
    both = twin(model)
    if len(lengths) < 2:
        raise Vacuous("one document has no company")
    arguments = _packed(both, lengths)
    if not separates_documents(both):
        raise NotApplicable(f"{both.name} does not tell packed documents apart")

    claim = "a document has to give the same alone as packed with others"
    inputs = {"tokens": tokens.tolist(), "lengths": list(lengths)}
    for document, end in zip(tokens[0].split(list(lengths)), accumulate(lengths), strict=True):
        size = len(document)
        places = torch.arange(end - size, end)
        packed = View(forward(tokens, **arguments), torch.zeros_like(places), places)
        alone = _row(forward(document[None], **_packed(both, [size])), 0, size)
        expect_same("documents_independent", both, packed, alone, claim, inputs)


def separates_documents(model: object) -> bool:
    """Whether the model says that it does: by an argument, or by masks that it makes of positions that restart.

    Cost: one forward of four tokens, where it has to be found out.
    """
    both = twin(model)
    if any(map(both.takes, (*_NUMBERS, _BOUNDS))):
        return True
    if masking_utils is None or not both.takes("position_ids"):
        return False
    find, found = masking_utils.find_packed_sequence_indices, []

    def watched(*args: Any, **kwargs: Any) -> Tensor | None:
        found.append(find(*args, **kwargs))
        return found[-1]

    with mock.patch.object(masking_utils, "find_packed_sequence_indices", watched):
        both.single(torch.zeros(1, 4, dtype=torch.long), position_ids=torch.tensor([[0, 1, 0, 1]]))
    return any(documents is not None for documents in found)


def _packed(model: Twin, lengths: Sequence[int]) -> dict[str, Any]:
    """Every argument of the forward that says where the documents of one row begin."""
    counts = torch.tensor(list(lengths))
    positions = torch.cat([torch.arange(length) for length in lengths])[None]  # [1, seq]
    numbers = torch.arange(len(lengths)).repeat_interleave(counts)[None]  # [1, seq]
    made = {
        "position_ids": positions,
        **dict.fromkeys(_NUMBERS, numbers),
        _BOUNDS: torch.tensor([0, *accumulate(lengths)], dtype=torch.int32),
    }
    return {name: value for name, value in made.items() if model.takes(name)}


def _valid(tokens: Tensor, lengths: Sequence[int], side: str) -> Tensor:
    """Boolean `[batch, seq]`: false where a row is padding."""
    places = torch.arange(tokens.shape[1])
    kept = torch.tensor(list(lengths))[:, None]
    return places >= tokens.shape[1] - kept if side == LEFT else places < kept


def _masked(model: Twin, valid: Tensor, positions: Tensor) -> dict[str, Tensor]:
    """What the forward takes of the mask of padding and the positions `[batch, seq]`."""
    if not model.takes("attention_mask"):
        raise NotApplicable(f"{model.name} takes no attention mask")
    places = {"position_ids": positions} if model.takes("position_ids") else {}
    return {"attention_mask": valid.long(), **places}


def _bare(model: Twin, row: Tensor) -> Callable[[Runner], Tensor]:
    """The forward of one row without padding."""
    places = {"position_ids": torch.arange(len(row))[None]} if model.takes("position_ids") else {}
    return forward(row[None], **places)


def _row(run: Callable[[Runner], Tensor], row: int, seq: int) -> View:
    return View(run, torch.full((seq,), row), torch.arange(seq))
