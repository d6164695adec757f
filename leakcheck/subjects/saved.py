"""What `save_pretrained` wrote: a folder with weights, or its `config.json` alone."""

import copy
import json
import os
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import CONFIG_MAPPING, AutoConfig, AutoModelForCausalLM, PreTrainedConfig

import leakcheck.subjects.method1_v3  # noqa: F401  (registers the model type "method1-v3")
from leakcheck.errors import UsageError
from leakcheck.subjects.refusal import refusing
from leakcheck.subjects.shrink import shrink
from leakcheck.subjects.weightless import weightless

LARGEST_UNSHRUNK = 2_000_000  # parameters
SHRUNK = "random (shrunk copy"  # how the word on such weights begins


def load_folder(folder: Path) -> tuple[nn.Module, str]:
    """The causal LM in a folder, and whether its weights are all given. Reads safetensors only: nothing is unpickled.

    If they do not fit in memory, a model of its configuration with random weights, as `build_config` makes it.

    Raises:
        UsageError: no configuration, no safetensors, or they do not fit together.
    """
    if not (folder / "config.json").is_file():
        raise UsageError(f"{folder}: no config.json in this folder; give one that save_pretrained wrote, or file.py")
    config = _read_config(folder / "config.json")
    if not any(folder.glob("*.safetensors")):
        raise UsageError(
            f"{folder}: no .safetensors file with weights, and leakcheck unpickles none; save the model again with "
            "save_pretrained, or give its config.json to audit the architecture"
        )
    needed, available = weights_in_memory(folder), available_memory()
    if needed > available:
        return build_config(
            folder, f"its weights need {_gigabytes(needed)} of memory, {_gigabytes(available)} are there"
        )
    with refusing(f"{folder}: the model could not be loaded"):
        loaded: Any = AutoModelForCausalLM.from_pretrained(
            folder,
            config=config,
            dtype=torch.float32,
            local_files_only=True,
            trust_remote_code=False,
            use_safetensors=True,
            output_loading_info=True,
        )
    model, info = loaded
    missing = len(info["missing_keys"])
    return model, f"given, but {missing} missing and drawn at random" if missing else "given"


def build_config(path: Path, why: str = "") -> tuple[nn.Module, str]:
    """A causal LM of this configuration, or of that in this folder, with random weights; shrunk if it is large.

    The second result is a word on the weights, which repeats `why` they are not the folder's.

    Raises:
        UsageError: not the configuration of a causal LM, or one that cannot be built.
    """
    config = _read_config(_json(path))
    notes = [why] if why else []
    with refusing(f"{path}: no model could be built from it"):
        if _parameter_count(config) > LARGEST_UNSHRUNK:
            config, notes = shrink(config), ["shrunk copy", *notes]
        model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    return model, f"random ({'; '.join(notes)})" if notes else "random"


def full_size(path: Path) -> nn.Module:
    """The causal LM of this configuration, or of that in this folder, at its full size and without weights.

    Raises:
        UsageError: it cannot be built without weights.
    """
    config = _read_config(_json(path))
    with refusing(f"{path}: the model could not be built without weights"):
        return weightless(lambda: AutoModelForCausalLM.from_config(config, dtype=torch.float32))


def weights_in_memory(folder: Path) -> int:
    """How many bytes the weights in a folder take in float32, into which they are loaded."""
    stored = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    name = stored.get("dtype") or stored.get("torch_dtype") or "float32"
    dtype = getattr(torch, str(name), torch.float32)
    return sum(file.stat().st_size for file in folder.glob("*.safetensors")) * 4 // dtype.itemsize


def available_memory() -> int:
    """Bytes that can be had without swapping; where the system does not tell, all that there are."""
    try:
        fields = dict(line.split(":", 1) for line in Path("/proc/meminfo").read_text().splitlines())
        return int(fields["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError):
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _gigabytes(size: int) -> str:
    return f"{size / 1e9:.3g} GB"


def _json(path: Path) -> Path:
    return path / "config.json" if path.is_dir() else path


def _read_config(path: Path) -> PreTrainedConfig:
    with refusing(f"{path}: not readable as JSON"):
        fields = json.loads(path.read_text(encoding="utf-8"))
    model_type = fields.get("model_type") if isinstance(fields, dict) else None
    if not isinstance(model_type, str):
        raise UsageError(f"{path}: not a model configuration: a JSON object with a model_type is needed")
    if model_type not in CONFIG_MAPPING:
        raise UsageError(
            f"{path}: transformers has no model_type {model_type!r}; give the file that defines the model: file.py"
        )
    with refusing(f"{path}: {model_type!r} refuses this configuration"):
        config = AutoConfig.from_pretrained(path, local_files_only=True, trust_remote_code=False)
    if type(config) not in AutoModelForCausalLM._model_mapping:
        raise UsageError(f"{path}: transformers has no causal language model of model_type {model_type!r}")
    return config


def _parameter_count(config: PreTrainedConfig) -> int:
    model = weightless(lambda: AutoModelForCausalLM.from_config(copy.deepcopy(config)))
    return sum(parameter.numel() for parameter in model.parameters())
