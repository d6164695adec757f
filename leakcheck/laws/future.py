"""Laws of time: what comes later changes nothing that was put out before."""

from torch import Tensor

from leakcheck.laws.broken import Vacuous
from leakcheck.laws.compare import View, expect_same, forward, of_mask, same, whole
from leakcheck.laws.registry import law
from leakcheck.laws.twin import Runner, Twin, twin


@law
def causal(model: object, tokens: Tensor, changed: Tensor) -> None:
    """Changing tokens at or after a cut moves nothing before it.

    `tokens` and `changed` are ids `[batch, seq]`; the cut of a row is the first position at which they differ.

    Raises:
        Broken: an output before the cut of its row moved.
        Vacuous: nothing lies before a cut, or the change moves no output at all.
    """
    both = twin(model)
    past = (tokens != changed).cumsum(1) == 0  # [batch, seq]
    past &= ~past.all(1, keepdim=True)
    if not past.any():
        raise Vacuous("no row has a token that stays before one that is changed")
    one, other = of_mask(forward(tokens), past), of_mask(forward(changed), past)
    claim = "what comes before the first changed token has to stay"
    expect_same("causal", both, one, other, claim, {"tokens": tokens.tolist(), "changed": changed.tolist()})
    if _ignored(both, tokens, changed):
        raise Vacuous("the change moved no output, not even after the cut")


@law
def prefix_consistent(model: object, tokens: Tensor, length: int) -> None:
    """The outputs for the first `length` tokens are the first rows of the outputs for all: `tokens` `[batch, seq]`.

    Raises:
        Broken: they differ.
        Vacuous: `length` is none of 1 to seq - 1.
    """
    rows, seq = tokens.shape
    if not 0 < length < seq:
        raise Vacuous(f"{length} of {seq} tokens are no shorter prefix")
    prefix = whole(forward(tokens[:, :length]), rows, length)
    full = View(forward(tokens), prefix.rows, prefix.positions)
    claim = f"the first {length} tokens alone have to give what they give in front of the others"
    inputs = {"tokens": tokens.tolist(), "length": length}
    expect_same("prefix_consistent", twin(model), full, prefix, claim, inputs)


@law
def repeatable(model: object, tokens: Tensor, between: Tensor) -> None:
    """`tokens` `[batch, seq]` give what they gave before the model was run on `between` `[batch, seq]`.

    The random state of torch is the same at every run.

    Raises:
        Broken: they do not.
    """

    def again(run: Runner) -> Tensor:
        run(between)
        return run.logits(tokens)

    once, twice = whole(forward(tokens), *tokens.shape), whole(again, *tokens.shape)
    claim = "the same tokens have to give the same, whatever was run in between"
    inputs = {"tokens": tokens.tolist(), "between": between.tolist()}
    expect_same("repeatable", twin(model), once, twice, claim, inputs)


def _ignored(model: Twin, tokens: Tensor, changed: Tensor) -> bool:
    return same(model, whole(forward(tokens), *tokens.shape), whole(forward(changed), *changed.shape))
