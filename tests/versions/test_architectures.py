"""Flow against brute force on architectures of the installed version, attention backend by backend.

Brute force shares no code with flow: it changes tokens in float64 and looks what moves.
"""

import pytest
import transformers

from benchmarks import architectures as sweep
from leakcheck.errors import UsageError
from leakcheck.findings import Verdict, worst

RELEASE = ".".join(transformers.__version__.split(".")[:2])
FEW = [
    "llama",
    "gpt2",
    "bloom",  # ALiBi
    "falcon",
    "gemma2",  # windows
    "phi3",
    "mamba",
    "mamba2",  # chunks
    "recurrent_gemma",
    "rwkv",
    "mixtral",  # experts
    "cpmant",  # not causal
]
