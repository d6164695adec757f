"""SPEC -> Subject: finds the model that a SPEC names, and makes it uniform."""

import copy
import functools
import os
import re
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel
from transformers.utils import logging

from leakcheck.errors import SubjectCrash, UsageError
from leakcheck.subjects.adapter import Adapter
from leakcheck.subjects.builtin import build_builtin
from leakcheck.subjects.exported import load_program
from leakcheck.subjects.gguf import load_gguf
from leakcheck.subjects.hub import PREFIX, snapshot
from leakcheck.subjects.inferring import like, readable, running_length
from leakcheck.subjects.inputs import Inputs
from leakcheck.subjects.lengths import CAP, FULL_SIZE_CAP, derive_seq_len, max_seq_len, validate_seq_len
from leakcheck.subjects.library import IN_FLOAT32, PreTrainedConfig
from leakcheck.subjects.names import BUILTIN
from leakcheck.subjects.pythonfile import load_file, load_module
from leakcheck.subjects.refusal import refusing
from leakcheck.subjects.saved import SHRUNK, build_config, full_size, load_folder
from leakcheck.subjects.subject import Subject, input_embedding, randomise, unwrapped

SEED = 0

_DOTTED = re.compile(r"\w+(\.\w+)*")


def load(
    spec: str,
    *,
    seq_len: int | None = None,
    at_least: int = 2,
    inputs: Inputs | None = None,
    no_weights: bool = False,
    trust_remote_code: bool = False,
) -> Subject:
    """The subject that a SPEC names: in float32, in eval mode, and the same at every call.

    A SPEC is a built-in name, a folder that `save_pretrained` wrote, `hf:ORG/NAME`, a `config.json`, a `.gguf` or
    `.pt2` file, `file.py`, `file.py:factory` or `package.module:factory`. `Subject.weights` begins with "random",
    "given" (by files of weights) or "as built" (by a factory). `seq_len` replaces the length that is derived from the
    configuration, which is `at_least` so many; `inputs` what the model or its factory says of what it reads. With
    `no_weights` a folder is taken for its configuration alone, and so is one whose weights do not fit in memory. A
    large configuration is built small, and at its full size without weights: `Subject.full`.
    Code that a folder brings along runs only with `trust_remote_code`.

    Raises:
        UsageError: the SPEC names nothing that can be loaded, or `seq_len` or `inputs` do not fit the model.
    """
    with quiet(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(SEED)
        path = snapshot(spec, weights=not no_weights) if spec.startswith(PREFIX) else _path(spec)
        model, weights, described = _model(spec, path, no_weights=no_weights, trusted=trust_remote_code)
        full = full_size(path, trusted=trust_remote_code) if weights.startswith(SHRUNK) else None
        if full is None:
            return prepared(spec, model, weights, seq_len=seq_len, at_least=at_least, inputs=inputs or described)
        copy = prepared(spec, model, weights, at_least=at_least)
        longest = max_seq_len(_config_of(unwrapped(copy.model)), copy.model)
        if seq_len is not None and (longest is None or seq_len <= longest):
            copy = replace(copy, seq_len=seq_len)
        return replace(copy, full=_subject(spec, like(copy.model, full), "none", seq_len, at_least, FULL_SIZE_CAP))


def prepared(
    spec: str,
    model: Callable[..., Any],
    weights: str,
    *,
    seq_len: int | None = None,
    at_least: int = 2,
    inputs: Inputs | None = None,
    examples: Mapping[str, torch.Tensor] | None = None,
) -> Subject:
    """The subject of a model that is at hand, which is turned to float32 and eval mode.

    `examples` are arguments `[batch, ...]` of a call: the audit begins with the first row of them.

    Raises:
        UsageError: as `load`.
    """
    if isinstance(model, nn.Module):
        model = model.float()
    elif not callable(model):
        raise UsageError(f"{spec}: a {type(model).__name__} is no model; a Module or a function is needed")
    model = readable(model, inputs, spec, examples).eval()
    if weights.startswith("random"):
        randomise(model, SEED)
    subject = _subject(spec, model, weights, seq_len, at_least)
    if not isinstance(model, Adapter):
        return subject
    length = model.fixed_length or seq_len or running_length(model, subject.seq_len)
    if length in model.held:
        raise UsageError(f"--seq-len {length}: what is held fixed in {model.inputs} is as long; take another length")
    if seq_len not in (None, length):
        raise UsageError(f"--seq-len {seq_len}: {spec} takes {length} steps and no other number")
    return replace(subject, seq_len=length)


def _subject(spec: str, model: nn.Module, weights: str, seq_len: int | None, at_least: int, cap: int = CAP) -> Subject:
    config = _config_of(unwrapped(model))
    if seq_len is not None:
        validate_seq_len(seq_len, config, model)
    return Subject(
        spec=spec,
        model=model,
        vocab_size=model.vocabulary if isinstance(model, Adapter) else _vocab_size(spec, model),
        seq_len=seq_len or derive_seq_len(config, model, at_least, cap),
        weights=weights,
        rebuild=_rebuild_of(model, random=weights.startswith("random")),
    )


def _model(spec: str, path: Path, *, no_weights: bool, trusted: bool) -> tuple[Callable[..., Any], str, Inputs | None]:
    """The model, where its weights come from, and what it reads where that is said."""
    if no_weights and not path.is_dir() and path.suffix != ".json":
        raise UsageError(f"--no-weights: {spec} is built as its code says; give a folder or a config.json")
    if spec in BUILTIN:
        return build_builtin(spec), "random", None
    if path.is_dir():
        return *(build_config if no_weights else load_folder)(path, trusted=trusted), None
    if path.suffix == ".json" and path.is_file():
        return *build_config(path, trusted=trusted), None
    if path.suffix == ".pt2" and path.is_file():
        return load_program(path)
    if path.suffix.lower() == ".gguf" and path.is_file():
        return *load_gguf(path), None
    target, colon, name = spec.rpartition(":") if ":" in spec else (spec, "", "")
    if target.endswith(".py") and Path(target).is_file():
        return load_file(Path(target), name or None)
    if colon and name and _DOTTED.fullmatch(target) and not target.endswith(".py"):
        return load_module(target, name)
    built_in = ", ".join(BUILTIN)
    if Path(target).exists():
        raise UsageError(f"{spec}: not a folder, a .json, .gguf, .pt2 or .py file; the built-in models are {built_in}")
    raise UsageError(f"{spec}: there is no such file or folder, and no such built-in model ({built_in})")


def _path(spec: str) -> Path:
    """The path of this name, whether or not there is something."""
    if not spec:
        raise UsageError("the SPEC is empty; give a folder, a config.json, file.py or the name of a built-in model")
    try:
        os.stat(spec)
    except (FileNotFoundError, NotADirectoryError):
        pass
    except (OSError, ValueError) as error:  # a name that is too long, a null byte, no permission
        shown = spec if len(spec) < 100 else f"{spec[:100]}..."
        raise UsageError(f"{shown}: cannot be opened: {getattr(error, 'strerror', None) or error}") from error
    return Path(spec)


def _config_of(model: nn.Module) -> PreTrainedConfig | None:
    config = getattr(model, "config", None)
    return config if isinstance(config, PreTrainedConfig) else None


def _vocab_size(spec: str, model: nn.Module) -> int:
    config = _config_of(model)
    size = getattr(config.get_text_config(decoder=True), "vocab_size", None) if config is not None else None
    if size is None:
        try:
            embedding: Any = input_embedding(model)
        except SubjectCrash as error:
            raise UsageError(f"{spec}: {error}") from error
        size = embedding.weight.shape[0]
    return size


def _rebuild_of(model: nn.Module, *, random: bool) -> Callable[[Mapping[str, Any]], nn.Module] | None:
    if not isinstance(model, PreTrainedModel) or _config_of(model) is None:
        return None
    return functools.partial(_rebuild, model, random)


def _rebuild(model: PreTrainedModel, random: bool, overrides: Mapping[str, Any]) -> nn.Module:
    """The model under a changed configuration. Parameters keep their values wherever their shapes agree.

    Buffers follow the new configuration, because a mask may be one.
    """
    config = copy.deepcopy(model.config)
    known = config.to_dict().keys() | config.attribute_map.keys()
    for name in overrides:
        if name not in known:
            raise UsageError(f"{type(config).__name__} has no field {name!r}")
    with quiet(), torch.random.fork_rng(devices=[]), refusing(f"{type(model).__name__} with {dict(overrides)}"):
        torch.manual_seed(SEED)
        for name, value in overrides.items():
            setattr(config, name, value)
        rebuilt = type(model)._from_config(config, **IN_FLOAT32).float().eval()
    if random:
        randomise(rebuilt, SEED)
    shapes = {name: parameter.shape for name, parameter in rebuilt.named_parameters()}
    kept = {name: p for name, p in model.named_parameters() if shapes.get(name) == p.shape}
    rebuilt.load_state_dict(kept, strict=False)
    return rebuilt


@contextmanager
def quiet() -> Iterator[None]:
    """No warnings and no progress bars of transformers; on exit both are as before."""
    verbosity, progress = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.set_verbosity(verbosity)
        if progress:
            logging.enable_progress_bar()
