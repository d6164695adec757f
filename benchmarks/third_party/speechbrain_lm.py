"""The TransformerLM of speech recognition recipes, on torch's own layers or as speechbrain has them.

speechbrain imports torchaudio to read files; without it an empty module stands in.
"""

import importlib.util
import sys
from types import ModuleType

from torch import nn

if "torchaudio" not in sys.modules and importlib.util.find_spec("torchaudio") is None:
    sys.modules["torchaudio"] = ModuleType("torchaudio")

from speechbrain.lobes.models.transformer.TransformerLM import TransformerLM


def build() -> nn.Module:
    return TransformerLM(vocab=97, d_model=32, nhead=4, num_encoder_layers=2, d_ffn=64)
