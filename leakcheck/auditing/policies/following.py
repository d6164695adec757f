"""Flow on one question: a forward with labels for each order, its own controls, and why there is a violation."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from leakcheck.auditing.policies.question import Order, Question
from leakcheck.auditing.proof import UNTRACEABLE
from leakcheck.config import Configuration
from leakcheck.findings import Control
from leakcheck.flow.blame import Blame, blame
from leakcheck.flow.reports import Hole, SoftMask
from leakcheck.flow.trace import Trace, Violation, conclude, traced
from leakcheck.flow.widening import explained
from leakcheck.probes.groups import Mix, behind_embedding
from leakcheck.probes.probe import Prober
from leakcheck.subjects import running


@dataclass(frozen=True, eq=False)
class Followed:
    """What flow says of all orders of a question, for every token sequence and all weights of these shapes."""

    violations: tuple[Violation, ...] = ()
    holes: tuple[Hole, ...] = ()
    soft_masks: tuple[SoftMask, ...] = ()
    proven: bool = False
    complete: bool = False  # no hole was in the way
    traced: bool = False
    by_order: tuple[Trace, ...] = ()


def follow(
    prober: Prober,
    configuration: Configuration,
    question: Question,
    copy: Prober | None = None,
    of_copy: Question | None = None,
) -> Followed:
    """Trace the question once for each order; what cannot run with labels is a hole.

    If the model has no weights, loops whose length tokens decide are checked on its `copy` that has, and its question.
    """
    try:
        traces = tuple(_trace(prober, configuration, question, order, copy, of_copy) for order in question.orders)
    except Exception as error:
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        carries = f"every output may depend on every input; with labels the forward stops with {reason}"
        return Followed(holes=(Hole(f"{type(prober.model).__name__}.forward", UNTRACEABLE, carries, None),))
    return Followed(
        violations=tuple(violation for trace in traces for violation in trace.violations),
        holes=tuple(dict.fromkeys(hole for trace in traces for hole in trace.holes)),
        soft_masks=tuple({mask.place: mask for trace in traces for mask in trace.soft_masks}.values()),
        proven=all(trace.proven for trace in traces),
        complete=all(not trace.holes and bool(trace.covered.all()) for trace in traces),
        traced=True,
        by_order=traces,
    )


def planted(prober: Prober, configuration: Configuration, question: Question, clean: Followed) -> tuple[Control, ...]:
    """Behind the embedding outputs read an input that they may not see; and one that they may."""
    controls = []
    for order, before in zip(question.orders, clean.by_order, strict=True):
        known = {(v.batch, v.position) for v in before.violations}
        leak, twin = question.leak(order), question.clean(order)
        if leak is not None:
            targets = {(row, position) for row, position in leak.targets.nonzero().tolist()}
            caught = targets <= _violating(prober, configuration, question, order, leak)
            controls.append(Control(f"flow: an output reads {question.what}", "violation", caught))
        if twin is not None:
            quiet = _violating(prober, configuration, question, order, twin) <= known
            controls.append(
                Control(f"flow: an output reads something else than {question.what}", "no violation", quiet)
            )
    return tuple(controls)


def why(prober: Prober, configuration: Configuration, question: Question, found: Followed) -> Blame | None:
    """Why there is the first of the violations, from one more forward; `None` where flow cannot tell."""
    begin = 0
    if question.last is not None:
        begin = question.tokens.shape[1] - question.chunks[-1]
        question = replace(question, run=question.last, tokens=question.tokens[:, begin:])
    for order, trace in zip(question.orders, found.by_order, strict=True):
        for violation in [v for v in trace.violations if v.position >= begin][:1]:
            told = replace(violation, position=violation.position - begin, source=violation.source - begin)
            labels, limit = order.labels[:, begin:] - begin, order.limit[:, begin:] - begin
            try:
                with _running(prober, configuration, question) as run:
                    return blame(prober.model, question.tokens, told, labels, limit=limit, run=run)
            except Exception:  # the violation stands without its story
                return None
    return None


def _violating(
    prober: Prober, configuration: Configuration, question: Question, order: Order, mix: Mix
) -> set[tuple[int, int]]:
    try:
        trace = _trace(prober, configuration, question, order, mix=mix)
    except Exception:  # it ran without the plant
        return set()
    return {(v.batch, v.position) for v in trace.violations}


def _trace(
    prober: Prober,
    configuration: Configuration,
    question: Question,
    order: Order,
    copy: Prober | None = None,
    of_copy: Question | None = None,
    mix: Mix | None = None,
) -> Trace:
    one = torch.ones(question.tokens.shape)
    mixed = nullcontext() if mix is None else behind_embedding(prober.model, one, mix)
    with _running(prober, configuration, question) as run, mixed:
        tracer, logits = traced(lambda: run(question.tokens), prober.model, question.tokens, order.labels)
        output = tracer.read(logits)
        if tracer.reports.widened:
            here = of_copy or question
            with _running(copy or prober, configuration, here) as other, torch.no_grad():
                explained(other, here.tokens, tracer.reports)
    return conclude(tracer, output, question.valid, order.limit)


@contextmanager
def _running(prober: Prober, configuration: Configuration, question: Question) -> Iterator[Callable[[Tensor], Tensor]]:
    """Token ids to logits. Gradients are on where users have them on: some modules run other kernels then."""
    model = prober.model
    with running.configured(model, configuration), torch.set_grad_enabled(configuration.mode != "eval"):
        torch.manual_seed(0)
        yield lambda tokens: question.run(model, tokens)
