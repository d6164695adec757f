"""The smallest counterexample to a policy: two inputs, as short and as much alike as they were found to be."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from leakcheck import codes
from leakcheck.auditing.policies import POLICIES
from leakcheck.auditing.policies.question import Order, Question
from leakcheck.auditing.policies.running import forward
from leakcheck.config import Configuration
from leakcheck.findings import WorstCase
from leakcheck.probes import measure, precision
from leakcheck.probes.draws import BASE, DRAWS, Batch, batches
from leakcheck.probes.groups import MORE_DRAWS, Move, Pair, changed, shown
from leakcheck.probes.probe import Probed, Prober
from leakcheck.subjects import running

_CUTS = 4  # tried of a length where rows have to run one by one


@dataclass(frozen=True, eq=False)
class Trial:
    """A pair of inputs that was put to a question, and what it moved in float64."""

    question: Question
    pair: Pair
    move: Move


def _of_time(prober: Prober, configuration: Configuration) -> Question:
    """What the contract asks: whether an output sees what it may not, of one row of tokens."""
    seq, contract = prober.seq, configuration.contract
    at = torch.arange(seq)
    orders = [Order(at[None], torch.tensor(contract.latest(seq))[None])]
    if contract.window is not None:
        orders.append(Order((seq - 1 - at)[None], (seq - 1 - torch.tensor(contract.earliest(seq)))[None]))
    return Question(
        code=codes.FUTURE_DEPENDENCE,
        what="what comes later",
        run=forward(configuration),
        tokens=prober.setting(configuration).first_row(torch.Generator().manual_seed(prober.seed))[None],
        valid=running.valid_positions(configuration, seq)[None],
        orders=tuple(orders),
    )


def put(prober: Prober, configuration: Configuration, question: Question, pair: Pair) -> Trial | None:
    """The trial of a pair; `None` if it moves nothing, or does not run. Cost: three forwards."""
    try:
        blind = question.blind(pair.differing)
        move = shown(prober, configuration, question.run, None if question.orders else question.same_as, pair, blind)
    except Exception:  # a length or a token that the subject does not take is no counterexample
        return None
    return None if move is None else Trial(question, pair, move)


def asked(prober: Prober, configuration: Configuration, policy: str, number: int) -> Question | None:
    """The question of this number that a policy puts, `None` if it puts fewer; of the contract there is one."""
    if policy not in POLICIES:
        return _of_time(prober, configuration) if configuration.contract.pairs(prober.seq) else None
    questions = POLICIES[policy].questions(prober, configuration)
    return questions[number] if number < len(questions) else None


def smallest(attempt: Callable[[int], Trial | None], longest: int, prober: Prober, of: Configuration) -> Trial | None:
    """The trial of the shortest length that is found by doubling and halving, with no more changed than it takes.

    Cost: `attempt` for some 2 log2(longest) lengths; as many trials for what is changed.
    """
    low, high, best = 1, 2, None  # `low` shows nothing, or was not tried
    while best is None and high < longest:
        best = attempt(high)
        low, high = (low, high) if best else (high, 2 * high)
    best, high = (best, high) if best else (attempt(longest), longest)
    while best is not None and high - low > 1:
        middle = (low + high) // 2
        found = attempt(middle)
        low, high, best = (low, middle, found) if found else (middle, high, best)
    return None if best is None else _reduced(best, prober.at(high), of)


def _reduced(trial: Trial, prober: Prober, configuration: Configuration) -> Trial:
    """Halve what differs as long as one half alone moves an output; then leave embeddings as long as they are."""
    while True:
        differing = trial.pair.differing.nonzero()
        halves = differing.tensor_split(2) if len(differing) > 1 else ()
        tried = (put(prober, configuration, trial.question, trial.pair.only(_at(half, trial.pair))) for half in halves)
        found = next((t for t in tried if t is not None), None)
        if found is None:
            break
        trial = found
    if (trial.pair.scale != 1).any():
        plain = replace(trial.pair, scale=torch.ones_like(trial.pair.scale))
        trial = put(prober, configuration, trial.question, plain) or trial
    return trial


def _at(places: Tensor, pair: Pair) -> Tensor:
    inputs = torch.zeros(pair.tokens.shape, dtype=torch.bool)
    inputs[places[:, 0], places[:, 1]] = True
    return inputs


def of_time_at(prober: Prober, configuration: Configuration, probed: Probed) -> Callable[[int], Trial | None]:
    """The trial, at a length, of the change that moves the past most."""

    def attempt(seq: int) -> Trial | None:
        sized = prober.at(seq)
        question = asked(sized, configuration, str(configuration.contract), 0)
        if question is None:
            return None
        work = list(batches(sized.setting(configuration)))
        if seq == prober.seq and probed.aimed is not None:
            work = [probed.aimed]
        for batch in work:
            known = probed.logits.worst if seq == prober.seq else None
            for row in _rows(sized, batch, configuration, probed.independent, known):
                pair = Pair(batch.tokens[None, BASE], batch.tokens[None, row], batch.scale[None, row])
                found = put(sized, configuration, question, pair)
                if found is not None:
                    return found
        return None

    return attempt


def _rows(
    prober: Prober, batch: Batch, configuration: Configuration, independent: bool, known: WorstCase | None
) -> list[int]:
    """The rows of a batch to try: the one that is known to move most, or does; one by one, some of each draw."""
    if known is not None and batch.has(known):
        cases = [(known.draw, known.cut)]
    elif independent:
        model, _ = prober.double
        try:
            with running.configured(model, configuration):
                worst = measure.measure_logits(model, batch, configuration, within=precision.float64).worst
        except Exception:  # a length that the subject does not take
            return []
        cases = [] if worst is None else [(worst.draw, worst.cut)]
    else:
        changing = [(name, int(cut)) for name, cut in zip(batch.draws, batch.cut, strict=True) if name != "base"]
        cases = changing[:: max(1, len(changing) // (_CUTS * len(DRAWS)))]
    pairs = list(zip(batch.draws, batch.cut.tolist(), strict=True))
    return [pairs.index(case) for case in cases]


def of_policy_at(
    prober: Prober, configuration: Configuration, policy: str, number: int, draw: str
) -> Callable[[int], Trial | None]:
    """The trial, at a length, of each change that the policy makes, with this draw."""
    how = next((d for d in (*DRAWS, *MORE_DRAWS) if d.name == draw), DRAWS[0])

    def attempt(seq: int) -> Trial | None:
        sized = prober.at(seq)
        question = asked(sized, configuration, policy, number)
        if question is None:
            return None
        pairs: Iterator[Pair] = (changed(sized, question.tokens, change.inputs, how) for change in question.changes)
        if not question.orders:
            pairs = iter([Pair(question.tokens, question.tokens, torch.ones(question.tokens.shape))])
        return next((t for t in (put(sized, configuration, question, pair) for pair in pairs) if t), None)

    return attempt
