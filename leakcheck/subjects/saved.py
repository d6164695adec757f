"""What `save_pretrained` wrote: a folder with weights, or its `config.json` alone."""

import copy
import json
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import CONFIG_MAPPING, AutoConfig, AutoModelForCausalLM

import leakcheck.subjects.method1_v3  # noqa: F401  (registers the model type "method1-v3")
from leakcheck.errors import UsageError
from leakcheck.subjects.library import IN_FLOAT32, PreTrainedConfig
from leakcheck.subjects.refusal import refusing
from leakcheck.subjects.shrink import shrink

LARGEST_UNSHRUNK = 2_000_000  # parameters


def load_folder(folder: Path) -> tuple[nn.Module, str]:
    """The causal LM in a folder, and whether its weights are all given. Reads safetensors only: nothing is unpickled.

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
    with refusing(f"{folder}: the model could not be loaded"):
        loaded: Any = AutoModelForCausalLM.from_pretrained(
            folder,
            config=config,
            **IN_FLOAT32,
            local_files_only=True,
            trust_remote_code=False,
            use_safetensors=True,
            output_loading_info=True,
        )
    model, info = loaded
    missing = len(info["missing_keys"])
    return model, f"given, but {missing} missing and drawn at random" if missing else "given"


def build_config(path: Path) -> tuple[nn.Module, str]:
    """A causal LM of this configuration with random weights, and a word on them; shrunk if it is large.

    Raises:
        UsageError: not the configuration of a causal LM, or one that cannot be built.
    """
    config = _read_config(path)
    weights = "random"
    with refusing(f"{path}: no model could be built from it"):
        if _parameter_count(config) > LARGEST_UNSHRUNK:
            config, weights = shrink(config), "random (shrunk copy)"
        model = AutoModelForCausalLM.from_config(config, **IN_FLOAT32)
    return model, weights


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
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(copy.deepcopy(config))
    return sum(parameter.numel() for parameter in model.parameters())
