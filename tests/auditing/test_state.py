"""Whatever is audited, and however it ends: model and process are exactly as they were before."""

import contextlib
import inspect
import os
import random
import sys
import warnings

import numpy
import pytest
import torch
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM
from transformers.utils import logging

from leakcheck import auditing
from leakcheck.auditing import audit
from leakcheck.auditing.matrix import matrix
from leakcheck.checkpoints import plan_for
from leakcheck.config import Configuration, Settings
from leakcheck.errors import LeakcheckError, UsageError
from leakcheck.findings import Verdict
from leakcheck.flow.blame import blame
from leakcheck.flow.trace import trace
from leakcheck.probes.probe import Prober
from leakcheck.subjects import running
from leakcheck.subjects.state import preserved
from leakcheck.subjects.subject import Subject

VOCABULARY, LENGTH = 23, 11


class Plain(nn.Module):
    """With all the state that a module can have: batch statistics, dropout, counters, caches, a table."""

    def __init__(self):
        super().__init__()
        self.embed, self.norm = nn.Embedding(VOCABULARY, 8), nn.BatchNorm1d(8)
        self.drop, self.head = nn.Dropout(0.1), nn.Linear(8, VOCABULARY)
        self.register_buffer("table", torch.ones(1, 1, 8).expand(3, 5, 8))
        self.register_buffer("none", None)
        self.unused = nn.Parameter(torch.zeros(3))
        self.calls, self.history, self.cache = 0, [], {"last": None}

    def forward(self, input_ids):
        self.calls += 1
        self.history.append(input_ids.shape)
        self.cache["last"] = input_ids
        self.fresh = input_ids
        self.unused.data.add_(1)
        self.none = torch.zeros(2)
        self.table = self.table + 1
        x = self.embed(input_ids).cumsum(1)
        return self.head(self.drop(self.norm(x.mT).mT))


def llama(**options) -> nn.Module:
    sizes = {"hidden_size": 16, "intermediate_size": 20, "num_attention_heads": 2, "num_key_value_heads": 1}
    config = LlamaConfig(vocab_size=VOCABULARY, num_hidden_layers=2, max_position_embeddings=32, **sizes)
    return LlamaForCausalLM._from_config(config, attn_implementation=options.get("attention", "sdpa"))


def checkpointed_llama() -> nn.Module:
    model = llama(attention="eager")
    model.gradient_checkpointing_enable({"use_reentrant": True})
    model.enable_input_require_grads()
    return model


MODELS = {"plain": Plain, "llama": llama, "a model under checkpointing": checkpointed_llama}


def in_use(name: str) -> nn.Module:
    """A model as it is in the middle of its owner's work: gradients, hooks, some modules frozen, some in train mode."""
    torch.manual_seed(5)
    model = MODELS[name]()
    output = model(torch.arange(LENGTH)[None])
    getattr(output, "logits", output).sum().backward()
    for number, module in enumerate(model.modules()):
        module.training = number % 2 == 0
    for number, parameter in enumerate(model.parameters()):
        if number % 3 == 0:
            parameter.grad = None
        parameter.requires_grad_(number % 3 != 1)
    model.register_forward_pre_hook(lambda module, args: None)
    next(model.children()).register_forward_hook(lambda module, args, output: None)
    next(model.children()).register_full_backward_hook(lambda module, given, made: None)
    return model


def subject(model: nn.Module) -> Subject:
    return Subject("mine", model, vocab_size=VOCABULARY, seq_len=LENGTH, weights="given")


def plain(value):
    """A value in a form that compares by content, whatever holds it; objects without content compare by identity."""
    if isinstance(value, torch.Tensor):
        same = (id(value), value.data_ptr(), value.dtype, value.requires_grad)
        return (*same, value.shape, value.stride(), value.detach().flatten().tolist())
    if isinstance(value, dict):
        return [(plain(key), plain(entry)) for key, entry in value.items()]
    if isinstance(value, list | tuple):
        return [type(value).__name__, *map(plain, value)]
    if isinstance(value, str | int | float | bool | None):
        return value
    return id(value)


def state_of(model: nn.Module) -> dict:
    return {
        "attributes": {name: plain(vars(module)) for name, module in model.named_modules()},
        "gradients": {name: plain(parameter.grad) for name, parameter in model.named_parameters()},
        "configuration": plain(vars(model.config)) if hasattr(model, "config") else None,
        "backend": getattr(getattr(model, "config", None), "_attn_implementation", None),
        "training": [module.training for module in model.modules()],
    }


def state_of_process() -> dict:
    numbers = numpy.random.get_state()
    return {
        "torch's random state": torch.get_rng_state().tolist(),
        "numpy's random state": (numbers[0], numbers[1].tolist(), *numbers[2:]),
        "Python's random state": random.getstate(),
        "default dtype": torch.get_default_dtype(),
        "default device": torch.get_default_device(),
        "threads": torch.get_num_threads(),
        "grad mode": torch.is_grad_enabled(),
        "modes": (torch._C._len_torch_dispatch_stack(), torch._C._len_torch_function_stack()),
        "environment": dict(os.environ),
        "folder": os.getcwd(),
        "sys.path": (id(sys.path), list(sys.path)),
        "tracer": sys.gettrace(),
        "bytecode": sys.dont_write_bytecode,
        "warnings": (id(warnings.filters), list(warnings.filters), warnings.showwarning),
        "verbosity": logging.get_verbosity(),
        "progress bars": logging.is_progress_bar_enabled(),
        "stance": torch.compiler.is_compiling(),
        "saved tensor hooks": torch._C._autograd._saved_tensors_hooks_is_enabled(),
    }


@contextlib.contextmanager
def unchanged(model: nn.Module):
    """Fails if the body, however it ends, leaves a trace. What is odd beforehand must stay odd."""
    torch.set_num_threads(2)
    torch.set_default_dtype(torch.float64)
    logging.set_verbosity(logging.INFO)
    try:
        with torch.no_grad():
            process, own = state_of_process(), state_of(model)
            try:
                yield
            finally:
                process_after, own_after = state_of_process(), state_of(model)
    finally:
        torch.set_num_threads(1)
        torch.set_default_dtype(torch.float32)
        logging.set_verbosity_warning()
    for before, after in ((process, process_after), (own, own_after)):
        for what in before:
            assert after[what] == before[what], what


def wreck(model: nn.Module) -> None:
    """Change all there is to change."""
    torch.manual_seed(1)
    random.seed(1)
    numpy.random.seed(1)
    torch.set_default_dtype(torch.float16)
    torch.set_default_device("meta")
    torch.set_num_threads(3)
    torch.set_grad_enabled(True)
    os.environ["LEAKCHECK_TEST"] = "left behind"
    del os.environ["PATH"]
    os.chdir("/")
    sys.path.insert(0, "/left/behind")
    sys.path = [*sys.path]
    warnings.simplefilter("error")
    logging.set_verbosity_debug()
    logging.disable_progress_bar()
    for module in model.modules():
        module.training = not module.training
        module._forward_hooks.clear()
        module.left_behind = True
        for name, buffer in module._buffers.items():
            module._buffers[name] = None if buffer is None else buffer + 1
    for parameter in model.parameters():
        parameter.data.add_(1)
        parameter.requires_grad_(not parameter.requires_grad)
        parameter.grad = None if parameter.grad is None else parameter.grad.add_(1)


class Stop(KeyboardInterrupt):
    """What Ctrl-C raises."""


def stops_at(model: nn.Module, number: int, error: BaseException, place: str) -> list[int]:
    """Have the `number`-th forward change everything and raise, in itself or in a hook; the list is of all."""
    forwards: list[int] = []

    def hook(*_):
        forwards.append(len(forwards))
        if len(forwards) == number:
            wreck(model)
            raise error

    if place == "hook":
        list(model.modules())[-1].register_forward_hook(hook)
    else:
        inner = model.forward
        model.forward = lambda *args, **kwargs: (hook(), inner(*args, **kwargs))[1]
        model.forward.__signature__ = inspect.signature(inner)
    return forwards


@pytest.mark.parametrize("name", MODELS)
def test_after_an_audit(name: str) -> None:
    model = in_use(name)
    with unchanged(model):
        result = audit(subject(model), Settings(attention=("sdpa",) if isinstance(model, LlamaForCausalLM) else None))
    assert result.verdict is (Verdict.PROVEN if isinstance(model, LlamaForCausalLM) else Verdict.LEAK)


@pytest.mark.parametrize("place", ["forward", "hook"])
@pytest.mark.parametrize("error", [RuntimeError("no"), Stop(), SystemExit(3)], ids=lambda error: type(error).__name__)
@pytest.mark.parametrize("number", [1, 2, 4, 9, 20])
def test_after_an_audit_that_was_stopped(number: int, error: BaseException, place: str, monkeypatch) -> None:
    # An audit that is not stopped by it goes on: through the three modes alone, not the other masks.
    monkeypatch.setattr(auditing, "matrix", lambda *given: [c for c in matrix(*given) if c.mask == "none"])
    model = in_use("llama")
    forwards = stops_at(model, number, error, place)
    # Some pieces of the subject run for a measurement alone, and may fail; what is wrecked there stops the audit later.
    with unchanged(model), contextlib.suppress(LeakcheckError, RuntimeError, Stop, SystemExit):
        audit(subject(model), Settings(attention=("eager",)))
    assert len(forwards) >= number


@pytest.mark.parametrize("number", [1, 2, 3])
@pytest.mark.parametrize("error", [RuntimeError("no"), Stop()], ids=lambda error: type(error).__name__)
def test_after_a_trace_that_was_stopped(number: int, error: BaseException) -> None:
    model, tokens = in_use("plain").train(), torch.arange(LENGTH)[None]
    violation = trace(model, tokens).violations[0]
    forwards = stops_at(model, number, error, "forward")
    with unchanged(model):
        with contextlib.suppress(RuntimeError, Stop):
            trace(model, tokens)
        with contextlib.suppress(RuntimeError, Stop, UsageError):
            blame(model, tokens, violation)
        with contextlib.suppress(RuntimeError, Stop):
            trace(model, tokens)
    assert len(forwards) >= number


@pytest.mark.parametrize("mode", ["eval", "train", "train+checkpointing"])
def test_after_probes(mode: str) -> None:
    model = in_use("a model under checkpointing")
    configuration = Configuration(attention="sdpa", mask="left-padded", mode=mode)
    with unchanged(model):
        Prober(model, plan_for, seq=LENGTH, vocab_size=VOCABULARY, seed=0).probe(configuration)


def test_a_mode_means_what_it_says() -> None:
    """Checkpointing that the user switched on is off where the configuration does not have it."""
    model = in_use("a model under checkpointing")
    for mode in ("eval", "train", "train+checkpointing"):
        with running.configured(model, Configuration(attention="sdpa", mask="none", mode=mode)):
            assert model.is_gradient_checkpointing == (mode == "train+checkpointing")
            assert {module.training for module in model.modules()} == {mode != "eval"}


@pytest.mark.parametrize("error", [ValueError(), Stop()], ids=lambda error: type(error).__name__)
@pytest.mark.parametrize("name", MODELS)
def test_all_of_it_is_put_back(name: str, error: BaseException) -> None:
    model = in_use(name)
    with unchanged(model), contextlib.suppress(type(error)), preserved(model):
        wreck(model)
        raise error


def test_a_scripted_module_has_its_flags_again() -> None:
    model = torch.jit.script(nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2)))
    with preserved(model):
        model.eval()
    assert [module.training for module in model.modules()] == [True, True, True]


def test_a_cast_is_undone() -> None:
    model = in_use("plain")
    with unchanged(model), preserved(model):
        model.double().requires_grad_(False)


def test_this_test_sees_a_change() -> None:
    model = in_use("plain")
    for change in (lambda: os.environ.update(LEAKCHECK_TEST="x"), lambda: model.norm.running_mean.add_(1)):
        with pytest.raises(AssertionError), unchanged(model):
            change()
    del os.environ["LEAKCHECK_TEST"]
