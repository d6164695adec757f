"""The LLaMA control: the same audit on a LLaMA of the same sizes and weights, and equality with one layer."""

import copy
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM

from leakcheck.auditing.proof import Prover
from leakcheck.auditing.verdicts import configuration_verdict
from leakcheck.checkpoints import plan_for
from leakcheck.config import Configuration
from leakcheck.findings import Verdict, worst
from leakcheck.probes import precision
from leakcheck.probes.probe import Prober
from leakcheck.subjects import running
from leakcheck.subjects.library import constructor_fields
from leakcheck.subjects.subject import Subject


@dataclass(frozen=True)
class Parity:
    """`control` is LLaMA's verdict over the matrix; `one_layer_delta` the largest difference of one-layer logits.

    The difference is taken in float64 and is zero where it is rounding: the two run different attention kernels.
    """

    control: Verdict
    one_layer_delta: float
    one_layer_configuration: str


def has_control(subject: Subject) -> bool:
    return subject.rebuild is not None and isinstance(getattr(subject.model, "config", None), LlamaConfig)


def compare(
    subject: Subject,
    configurations: Sequence[Configuration],
    default: Configuration,
    *,
    seq: int,
    seed: int,
    step: Callable[[str], None],
) -> Parity:
    """Audit the control under every configuration, and compare one-layer logits under the default one."""
    control = _control(subject.model)
    prober = Prober(control, plan_for, seq=seq, vocab_size=subject.vocab_size, seed=seed, each_gradient=False)
    prover = Prover(prober)
    verdicts = []
    for configuration in configurations:
        step(f"LLaMA control {configuration.id}")
        verdicts.append(configuration_verdict(prober.probe(configuration), prover.prove(configuration)))

    assert subject.rebuild is not None
    single = subject.rebuild({"num_hidden_layers": 1})
    delta = _difference(single, _control(single), prober.batches(default)[0].tokens[:1], default)
    return Parity(worst(verdicts), delta, default.id)


def _difference(a: nn.Module, b: nn.Module, tokens: torch.Tensor, configuration: Configuration) -> float:
    """The largest difference of the logits of two models for `tokens` `[1, seq]`, zero where it is rounding."""
    deltas = {}
    for precise in (False, True):
        logits = []
        for model in (a, b):
            model = copy.deepcopy(model).double() if precise else model
            context = precision.float64() if precise else nullcontext()
            with running.configured(model, configuration), context, torch.no_grad():
                logits.append(running.forward(model, tokens, configuration))
        deltas[precise] = (logits[0] - logits[1]).abs().max().item()
        scale = logits[1].abs().max().item()
    return 0.0 if precision.is_rounding(deltas[False], deltas[True], scale) else deltas[True]


def _control(model: Any) -> LlamaForCausalLM:
    """A LLaMA with the model's sizes, backend and, wherever name and shape agree, weights."""
    known = constructor_fields(LlamaConfig)
    values = {name: copy.deepcopy(v) for name, v in model.config.to_dict().items() if name in known}
    config = LlamaConfig(**values)
    config._attn_implementation = model.config._attn_implementation
    control = LlamaForCausalLM(config)
    own = control.state_dict()
    given = {n: w for n, w in model.state_dict().items() if n in own and w.shape == own[n].shape}
    control.load_state_dict(given, strict=False)
    return control.float().eval()
