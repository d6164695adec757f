"""SPEC -> Subject: finds the model that a SPEC names, and makes it uniform."""

import copy
import functools
import re
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedConfig, PreTrainedModel
from transformers.utils import logging

from leakcheck.errors import SubjectCrash, UsageError
from leakcheck.subjects.builtin import build_builtin
from leakcheck.subjects.lengths import CAP, FULL_SIZE_CAP, derive_seq_len, max_seq_len, validate_seq_len
from leakcheck.subjects.names import BUILTIN
from leakcheck.subjects.pythonfile import load_file, load_module
from leakcheck.subjects.refusal import refusing
from leakcheck.subjects.saved import SHRUNK, build_config, full_size, load_folder
from leakcheck.subjects.subject import Subject, input_embedding, randomise

SEED = 0

_DOTTED = re.compile(r"\w+(\.\w+)*")


def load(spec: str, *, seq_len: int | None = None, no_weights: bool = False) -> Subject:
    """The subject that a SPEC names: in float32, in eval mode, and the same at every call.

    A SPEC is a built-in name, a folder that `save_pretrained` wrote, a `config.json`, `file.py`, `file.py:factory` or
    `package.module:factory`. `Subject.weights` begins with "random", "given" (by a folder) or "as built" (by a
    factory). `seq_len` replaces the length that is derived from the configuration. With `no_weights` a folder is taken
    for its configuration alone, and so is one whose weights do not fit in memory. A large configuration is built small,
    and at its full size without weights: `Subject.full`.

    Raises:
        UsageError: the SPEC names nothing that can be loaded, or `seq_len` does not fit the model.
    """
    with _quiet(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(SEED)
        model, weights = _model(spec, no_weights)
        model = model.float().eval()
        if weights.startswith("random"):
            randomise(model, SEED)
        full = full_size(Path(spec)) if weights.startswith(SHRUNK) else None
    if full is None:
        return _subject(spec, model, seq_len, weights)
    longest = max_seq_len(_config_of(model), model)
    of_copy = None if seq_len is not None and longest is not None and seq_len > longest else seq_len
    return replace(_subject(spec, model, of_copy, weights), full=_subject(spec, full, seq_len, "none", FULL_SIZE_CAP))


def _subject(spec: str, model: nn.Module, seq_len: int | None, weights: str, cap: int = CAP) -> Subject:
    config = _config_of(model)
    if seq_len is not None:
        validate_seq_len(seq_len, config, model)
    return Subject(
        spec=spec,
        model=model,
        vocab_size=_vocab_size(spec, model),
        seq_len=seq_len or derive_seq_len(config, model, cap),
        weights=weights,
        rebuild=_rebuild_of(model, random=weights.startswith("random")),
    )


def _model(spec: str, no_weights: bool) -> tuple[nn.Module, str]:
    """The model and where its weights come from."""
    path = Path(spec)
    if no_weights and not path.is_dir() and path.suffix != ".json":
        raise UsageError(f"--no-weights: {spec} is built as its code says; give a folder or a config.json")
    if spec in BUILTIN:
        return build_builtin(spec), "random"
    if spec.startswith("hf:") or spec.endswith(".pt2"):
        raise UsageError(
            f"{spec}: this version does not load hf: and .pt2 yet; give a folder, a config.json or file.py"
        )
    if path.is_dir():
        return build_config(path) if no_weights else load_folder(path)
    if path.suffix == ".json" and path.is_file():
        return build_config(path)
    target, colon, name = spec.rpartition(":") if ":" in spec else (spec, "", "")
    if target.endswith(".py") and Path(target).is_file():
        return load_file(Path(target), name or None)
    if colon and name and _DOTTED.fullmatch(target) and not target.endswith(".py"):
        return load_module(target, name)
    built_in = ", ".join(BUILTIN)
    if Path(target).exists():
        raise UsageError(f"{spec}: not a folder, a .json or a .py file; the built-in models are {built_in}")
    raise UsageError(f"{spec}: there is no such file or folder, and no such built-in model ({built_in})")


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
    with _quiet(), torch.random.fork_rng(devices=[]), refusing(f"{type(model).__name__} with {dict(overrides)}"):
        torch.manual_seed(SEED)
        for name, value in overrides.items():
            setattr(config, name, value)
        rebuilt = type(model)._from_config(config, dtype=torch.float32).float().eval()
    if random:
        randomise(rebuilt, SEED)
    shapes = {name: parameter.shape for name, parameter in rebuilt.named_parameters()}
    kept = {name: p for name, p in model.named_parameters() if shapes.get(name) == p.shape}
    rebuilt.load_state_dict(kept, strict=False)
    return rebuilt


@contextmanager
def _quiet() -> Iterator[None]:
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
