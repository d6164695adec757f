"""Witnesses: for every leak the smallest pair of inputs that shows it, with all that it takes to show it again."""

import base64
import hashlib
import platform
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
import transformers
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from leakcheck import __version__
from leakcheck.auditing.examine import Examined
from leakcheck.auditing.policies import Policed
from leakcheck.auditing.smallest import Trial, asked, of_policy_at, of_time_at, put, smallest
from leakcheck.config import Configuration, Settings
from leakcheck.findings import Array, Finding, Verdict, Witness
from leakcheck.probes.groups import Pair, behind_embedding
from leakcheck.probes.probe import Prober
from leakcheck.subjects import running
from leakcheck.subjects.adapter import Adapter
from leakcheck.subjects.decoding import cache_argument
from leakcheck.subjects.function import bound
from leakcheck.subjects.load import SEED
from leakcheck.subjects.outputs import named_tensors, tensors_in
from leakcheck.subjects.recipe import recipe
from leakcheck.subjects.subject import Subject, input_embedding, logits_of, unwrapped

_STORED = {"bool", "uint8", "int8", "int16", "int32", "int64", "float16", "float32", "float64"}


@dataclass(frozen=True, eq=False)
class Leak:
    """A question that was answered with a leak; `attempt` looks for a pair of inputs of some length that shows it."""

    configuration: Configuration
    policy: str
    question: int
    attempt: Callable[[int], Trial | None]


def leaks(prober: Prober, examined: Sequence[Examined], policed: Sequence[Policed]) -> Iterator[Leak]:
    """All that inputs can show; that a position which was to see later ones sees none is not among them."""
    for e in examined:
        if e.result.verdict is Verdict.LEAK and e.probed.logits.moved and not e.configuration.contract.bidirectional:
            attempt = of_time_at(prober, e.configuration, e.probed)
            yield Leak(e.configuration, str(e.configuration.contract), 0, attempt)
    for p in policed:
        for outcome in p.outcomes:
            for number, answer in enumerate(outcome.answers):
                if answer.verdict is Verdict.LEAK and answer.moved and answer.moved.worst:
                    draw = answer.moved.worst.draw
                    attempt = of_policy_at(prober, p.configuration, outcome.policy, number, draw)
                    yield Leak(p.configuration, outcome.policy, number, attempt)


def witnesses(
    subject: Subject, prober: Prober, settings: Settings, found: Sequence[Leak], findings: Sequence[Finding]
) -> tuple[Witness, ...]:
    """The witnesses of leaks. What shows a leak under one configuration is tried first under the next.

    Cost of each: as `smallest`, or three forwards; two more.
    """
    if not found:
        return ()
    made, weights = recipe(subject, trusted=settings.trust_remote_code), weights_hash(unwrapped(subject.model))
    known: dict[tuple[str, int], list[Pair]] = {}
    told = []
    for leak in found:
        pairs = known.setdefault((leak.policy, leak.question), [])
        trial = next(filter(None, (_again(prober, leak, pair) for pair in pairs)), None)
        if trial is None:
            trial = smallest(leak.attempt, prober.seq, prober, leak.configuration)
            pairs += [trial.pair] if trial else []
        shown_by = [finding.code for finding in findings if shows(leak, finding)]
        if trial is not None and shown_by:
            witness = _witness(subject, settings, leak, trial, tuple(dict.fromkeys(shown_by)))
            told.append(replace(witness, weights=weights, recipe=made, **_without_leakcheck(prober, leak, trial)))
    return tuple(told)


def shows(leak: Leak | Witness, finding: Finding) -> bool:
    """Whether the inputs that show a leak are those of a finding."""
    configuration = leak.configuration["id"] if isinstance(leak, Witness) else leak.configuration.id
    of = (configuration, leak.policy, leak.question)
    facts = finding.witness
    return (
        finding.verdict is Verdict.LEAK
        and facts is not None
        and (finding.configuration, finding.policy, facts.get("question", 0)) == of
    )


def linked(finding: Finding, told: Sequence[Witness]) -> Finding:
    """With the witness named in its facts."""
    witness = next((w for w in told if shows(w, finding)), None)
    return finding if witness is None else replace(finding, witness={**(finding.witness or {}), "id": witness.id})


def weights_hash(model: nn.Module) -> str:
    """SHA-256 of all parameters and buffers, with their names and shapes."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        if isinstance(tensor, Tensor):
            digest.update(f"{name} {tensor.dtype} {list(tensor.shape)}\n".encode())
            digest.update(_bytes(tensor.dequantize() if tensor.is_quantized else tensor))
    return digest.hexdigest()


def versions() -> dict[str, str]:
    """What a delta may depend on to the last bit."""
    return {
        "leakcheck": __version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "machine": platform.machine(),
    }


def _again(prober: Prober, leak: Leak, pair: Pair) -> Trial | None:
    sized = prober.at(pair.tokens.shape[1])
    question = asked(sized, leak.configuration, leak.policy, leak.question)
    return put(sized, leak.configuration, question, pair) if question else None


def _witness(subject: Subject, settings: Settings, leak: Leak, trial: Trial, found: tuple[str, ...]) -> Witness:
    configuration, pair, move = leak.configuration, trial.pair, trial.move
    of = "\0".join((subject.spec, configuration.id, leak.policy, str(leak.question)))
    place = re.sub(r"[^\w.+-]+", "-", configuration.id)[:60]
    return Witness(
        id=f"{found[0]}-{place}-{hashlib.sha256(of.encode('utf-8', 'backslashreplace')).hexdigest()[:8]}",
        codes=found,
        policy=leak.policy,
        question=leak.question,
        configuration={
            "id": configuration.id,
            **{name: value for name, value in asdict(configuration).items() if name not in ("contract", "accepted")},
            "accepted": list(configuration.accepted),
        },
        settings={
            "seed": settings.seed,
            "model_seed": SEED,
            "contract": str(settings.contract),
            "inputs": list(settings.inputs),
            "outputs": list(settings.outputs),
            "no_weights": settings.no_weights,
            "trust_remote_code": settings.trust_remote_code,
        },
        spec=subject.spec,
        row=move.row,
        position=move.position,
        channel=move.channel,
        delta=move.delta,
        tokens=_array(pair.tokens),
        changed=_array(pair.changed),
        scale=_array(pair.scale),
        weights="",
        versions=versions(),
        recipe={},
    )


def _without_leakcheck(prober: Prober, leak: Leak, trial: Trial) -> dict[str, Any]:
    """What it takes to run either input by itself; nothing where it cannot be told."""
    try:
        return _called(prober, leak, trial)
    except Exception:  # the witness stands without it
        return {}


def _called(prober: Prober, leak: Leak, trial: Trial) -> dict[str, Any]:
    """What the user's own forward is called with, for either input, and what of its outputs is looked at.

    Nothing where that is more than one call, takes other things than plain values and tensors that files can hold, or
    gives outputs of another length.
    """
    model = unwrapped(prober.model)
    run = trial.question.same_as or trial.question.run
    calls: list[dict[str, Any]] = []
    returned: list[Any] = []
    for tokens, scale in ((trial.pair.tokens, None), (trial.pair.changed, trial.pair.scale)):
        scaled = behind_embedding(prober.model, torch.ones(tokens.shape) if scale is None else scale)
        with (
            running.configured(prober.model, leak.configuration),
            torch.no_grad(),
            scaled,
            _recorded(model, calls, returned),
        ):
            run(prober.model, tokens)
    if len(calls) != 2:
        return {}
    tensors = [{k: _array(v) for k, v in call.items() if isinstance(v, Tensor)} for call in calls]
    options = {k: v for k, v in calls[0].items() if v is None or isinstance(v, bool | int | float | str)}
    kinds = {array.dtype for arguments in tensors for array in arguments.values()}
    if tensors[0].keys() | options.keys() != calls[0].keys() or not kinds <= _STORED:
        return {}
    expressions = {id(tensor): expression for expression, tensor in tensors_in(returned[0])}
    if isinstance(prober.model, Adapter):
        axes = {name: (r.batch, r.time) for name, r in prober.model.results.items() if r.rate == 1 and not r.offset}
        looked_at = {name: tensor for name, tensor in named_tensors(returned[0]) if name in prober.model.results}
    else:
        axes, looked_at = {"logits": (0, 1)}, {"logits": logits_of(returned[0])}
    if axes.keys() != looked_at.keys():
        return {}
    names = {id(module): name for name, module in model.named_modules()}
    return {
        "arguments": tuple(tensors),
        "options": options,
        "outputs": {expressions[id(tensor)]: axes[name] for name, tensor in looked_at.items()},
        "embedding": names.get(id(input_embedding(prober.model)), ""),
        "chunks": trial.question.chunks,
        "cache": (cache_argument(prober.model) or "") if trial.question.chunks else "",
    }


@contextmanager
def _recorded(model: nn.Module, calls: list[dict[str, Any]], returned: list[Any]) -> Iterator[None]:
    def seen(module: nn.Module, args: tuple, kwargs: dict) -> None:
        calls.append(pytree.tree_map_only(Tensor, lambda t: t.detach().clone(), bound(module, args, kwargs)))

    handles = [
        model.register_forward_pre_hook(seen, with_kwargs=True),
        model.register_forward_hook(lambda module, args, output: returned.append(output)),
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _array(tensor: Tensor) -> Array:
    data = base64.b64encode(_bytes(tensor)).decode()
    return Array(str(tensor.dtype).removeprefix("torch."), tuple(tensor.shape), data)


def _bytes(tensor: Tensor) -> bytes:
    dense = tensor.detach().cpu().to_dense() if tensor.layout != torch.strided else tensor.detach().cpu()
    return dense.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
