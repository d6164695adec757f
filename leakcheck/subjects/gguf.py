"""A GGUF file: one checkpoint in one file, quantised as a rule; transformers turns it back into a model."""

import io
from contextlib import redirect_stderr
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM

from leakcheck.errors import UsageError
from leakcheck.subjects.library import IN_FLOAT32
from leakcheck.subjects.refusal import refusing

NEEDED = ("gguf", "accelerate")  # what transformers imports to read such a file


def load_gguf(path: Path) -> tuple[nn.Module, str]:
    """The causal LM in a GGUF file, its weights dequantised to float32, and where they come from.

    Raises:
        UsageError: a package to read it with is missing, or transformers cannot load it.
    """
    missing = [name for name in NEEDED if find_spec(name) is None]
    if missing:
        raise UsageError(f"{path}: reading GGUF needs {' and '.join(missing)}: pip install {' '.join(missing)}")
    with path.open("rb") as file:
        if file.read(4) != b"GGUF":
            raise UsageError(f"{path}: not a GGUF file: it does not begin with GGUF")
    where = {"gguf_file": path.name, "local_files_only": True}
    # The bar of dequantising heeds no switch of the library's.
    with refusing(f"{path}: the model could not be loaded"), redirect_stderr(io.StringIO()):
        config = AutoConfig.from_pretrained(path.parent, **where)
        if type(config) not in AutoModelForCausalLM._model_mapping:
            raise UsageError(f"{path}: transformers has no causal language model of model_type {config.model_type!r}")
        model: Any = AutoModelForCausalLM.from_pretrained(path.parent, **IN_FLOAT32, **where)
    model.is_quantized = False  # no more: the flag forbids `.float()` and `.double()`
    return model, "given (dequantised)"
