"""Small models whose answer is known: causal ones, and the same ones with a leak planted."""

import copy
import importlib.util
import inspect
import random
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import (
    AttentionInterface,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    Mamba2Config,
    Mamba2ForCausalLM,
    MambaConfig,
    MambaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    MixtralConfig,
    MixtralForCausalLM,
)
from transformers.models.llama.modeling_llama import repeat_kv

from leakcheck.subjects.method1_v3 import Method1Config_v3, Method1LlamaForCausalLM_v3
from leakcheck.subjects.subject import Subject, randomise

SEQ = 11  # unlike every size of every model here
VOCAB = 29
HIDDEN = 16

LLAMA_SIZES: dict[str, Any] = {
    "vocab_size": VOCAB,
    "hidden_size": HIDDEN,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
}


def seeded(model: nn.Module, seed: int = 0) -> nn.Module:
    """The model in eval mode with every parameter drawn anew."""
    randomise(model, seed)
    return model.eval()


# --- models of the library ------------------------------------------------------------------------------------------


def llama(**options: Any) -> nn.Module:
    return seeded(LlamaForCausalLM(LlamaConfig(**{**LLAMA_SIZES, **options})))


def gpt2(**options: Any) -> nn.Module:
    sizes = {"vocab_size": VOCAB, "n_embd": HIDDEN, "n_layer": 2, "n_head": 2, "n_positions": 32}
    return seeded(GPT2LMHeadModel(GPT2Config(**{**sizes, **options})))


def mistral(**options: Any) -> nn.Module:
    return seeded(MistralForCausalLM(MistralConfig(**{**LLAMA_SIZES, "sliding_window": 4, **options})))


def mixtral(**options: Any) -> nn.Module:
    sizes = {**LLAMA_SIZES, "num_local_experts": 3, "num_experts_per_tok": 2, "sliding_window": None}
    return seeded(MixtralForCausalLM(MixtralConfig(**{**sizes, **options})))


def mamba(**options: Any) -> nn.Module:
    sizes = {"vocab_size": VOCAB, "hidden_size": HIDDEN, "state_size": 5, "num_hidden_layers": 2}
    return seeded(MambaForCausalLM(MambaConfig(**{**sizes, **options})))


def mamba2(**options: Any) -> nn.Module:
    sizes = {"vocab_size": VOCAB, "hidden_size": HIDDEN, "state_size": 5, "num_hidden_layers": 2, "chunk_size": 4}
    heads = {"num_heads": 4, "head_dim": 8, "n_groups": 2}
    return seeded(Mamba2ForCausalLM(Mamba2Config(**{**sizes, **heads, **options})))


LIBRARY = {f.__name__: f for f in (llama, gpt2, mistral, mixtral, mamba, mamba2)}


def method1(**options: Any) -> nn.Module:
    return seeded(Method1LlamaForCausalLM_v3(Method1Config_v3(**{**LLAMA_SIZES, "num_hidden_layers": 3, **options})))


def method1_copy(folder: Path, *replaced: tuple[str, str], head: str = "", **options: Any) -> nn.Module:
    """Method1_v3 from a copy of its source in `folder` with texts replaced, each found exactly once."""
    text = Path(inspect.getfile(Method1LlamaForCausalLM_v3)).read_text()
    package = Method1Config_v3.__module__
    for old, new in ((f"from .{package.rpartition('.')[2]} import", f"from {package} import"), *replaced):
        assert text.count(old) == 1, old
        text = text.replace(old, new)
    path = folder / "modeling_copy.py"
    path.write_text(head + text)
    name = "copy_" + "_".join(folder.parts[1:])
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # transformers reads the class's module to see which backends it has
    spec.loader.exec_module(module)
    config = Method1Config_v3(**{**LLAMA_SIZES, "num_hidden_layers": 3, **options})
    return seeded(module.Method1LlamaForCausalLM_v3(config))


def subject_of(model: nn.Module, seq: int = SEQ) -> Subject:
    """A subject whose `rebuild` makes a model of the same class with the same weights."""

    def rebuild(overrides):
        config = copy.deepcopy(model.config)
        for name, value in overrides.items():
            setattr(config, name, value)
        other = type(model)(config)
        shapes = {name: weight.shape for name, weight in other.state_dict().items()}
        kept = {name: w for name, w in model.state_dict().items() if shapes.get(name) == w.shape}
        other.load_state_dict(kept, strict=False)
        return other.eval()

    return Subject(spec="a test's model", model=model, vocab_size=VOCAB, seq_len=seq, weights="random", rebuild=rebuild)


# --- leaks in the attention kernel of a real LLaMA --------------------------------------------------------------------


def _blocked(scores: torch.Tensor, diagonal: int = 1) -> torch.Tensor:
    """Scores `[batch, heads, query, key]` with keys from `query + diagonal` on blocked."""
    return scores.masked_fill(torch.ones_like(scores, dtype=torch.bool).triu(diagonal), -torch.inf)


def _one_head_open(scores: torch.Tensor) -> torch.Tensor:
    blocked = _blocked(scores)
    return torch.cat([blocked[:, :2], scores[:, 2:3], blocked[:, 3:]], 1).softmax(-1)


KERNELS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "causal": lambda scores: _blocked(scores).softmax(-1),
    "mask lost": lambda scores: scores.softmax(-1),
    "diagonal off by one": lambda scores: _blocked(scores, diagonal=2).softmax(-1),
    "softmax over queries": lambda scores: _blocked(scores).softmax(-2),
    "zero-one mask added": lambda scores: (scores + torch.ones_like(scores).tril()).softmax(-1),
    "one head open": _one_head_open,
}


def _kernel(weights: Callable[[torch.Tensor], torch.Tensor]) -> Callable:
    def kernel(module, query, key, value, attention_mask, scaling, dropout=0.0, **kwargs):
        key, value = (repeat_kv(states, module.num_key_value_groups) for states in (key, value))
        output = weights(query @ key.transpose(2, 3) * scaling) @ value
        return output.transpose(1, 2).contiguous(), None

    return kernel


for _name, _weights in KERNELS.items():
    AttentionInterface.register(f"zoo {_name}", _kernel(_weights))


def llama_with_kernel(name: str) -> nn.Module:
    return llama(attn_implementation=f"zoo {name}")


# --- leaks planted behind a module ------------------------------------------------------------------------------------


def successor(x: torch.Tensor) -> torch.Tensor:
    """`x` `[batch, seq, features]` read one position ahead; nothing at the end."""
    return torch.cat([x[:, 1:], torch.zeros_like(x[:, :1])], 1)


def predecessor(x: torch.Tensor) -> torch.Tensor:
    return torch.cat([torch.zeros_like(x[:, :1]), x[:, :-1]], 1)


Near = Callable[[torch.Tensor], torch.Tensor]


def _channel(x: torch.Tensor, near: Near) -> torch.Tensor:
    return x + near(x) * (torch.arange(x.shape[-1]) == 3)


def _beyond_8(x: torch.Tensor, near: Near) -> torch.Tensor:
    return x + near(x) * (torch.arange(x.shape[1]) > 8)[:, None]


# What a position reads of its neighbour. The neighbour after it makes a leak, the one before it the clean twin.
READS: dict[str, Callable[[torch.Tensor, Near], torch.Tensor]] = {
    "whole": lambda x, near: x + near(x),
    "one channel": _channel,
    "beyond position 8": _beyond_8,
    "detached": lambda x, near: x + near(x.detach()),
    "rounded": lambda x, near: x + torch.round(4 * near(x)),
    "3e-7 of it": lambda x, near: x + 3e-7 * near(x),
    "1e-9 of it": lambda x, near: x + 1e-9 * near(x),
}


class Reading(nn.Module):
    """A module whose output also holds what `READS` says of its neighbours."""

    def __init__(self, inner: nn.Module, near: Near, read: str, *, only_in_training: bool):
        super().__init__()
        self.inner = inner
        self.near, self.read, self.only_in_training = near, READS[read], only_in_training

    def forward(self, *args: Any, **kwargs: Any) -> torch.Tensor:
        output = self.inner(*args, **kwargs)
        return output if self.only_in_training and not self.training else self.read(output, self.near)


def reading(
    build: Callable[[], nn.Module], module: str, near: Near, read: str = "whole", *, only_in_training: bool = False
) -> nn.Module:
    """The model with one module replaced by a `Reading` of it."""
    model = build()
    model.set_submodule(module, Reading(model.get_submodule(module), near, read, only_in_training=only_in_training))
    return model.eval()


# --- tiny modules -----------------------------------------------------------------------------------------------------


class Toy(nn.Module):
    """Embedding, one mixer over the sequence with a residual around it, head."""

    def __init__(self, mixer: nn.Module):
        super().__init__()
        self.embed = nn.Embedding(VOCAB, HIDDEN)
        self.mixer = mixer
        self.head = nn.Linear(HIDDEN, VOCAB)

    def forward(self, input_ids: torch.Tensor) -> torch.Tensor:
        x = self.embed(input_ids)  # [batch, seq, hidden]
        return self.head(x + self.mixer(x))


class Mixer(nn.Module):
    """A function of hidden states `[batch, seq, hidden]` as a module."""

    def __init__(self, function: Callable[[torch.Tensor], torch.Tensor]):
        super().__init__()
        self.function = function

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.function(x)


class Convolution(nn.Module):
    """A short convolution over time with `left` and `right` positions of padding."""

    def __init__(self, left: int, right: int):
        super().__init__()
        self.padding = (left, right)
        self.conv = nn.Conv1d(HIDDEN, HIDDEN, left + right + 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.conv(nn.functional.pad(x.transpose(1, 2), self.padding)).transpose(1, 2)


class FourierConvolution(nn.Module):
    """A convolution as long as the sequence; circular, hence a leak, unless it is padded to twice the length."""

    def __init__(self, *, padded: bool):
        super().__init__()
        self.factor = 2 if padded else 1
        self.filter = nn.Parameter(torch.empty(SEQ, HIDDEN))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        size = self.factor * x.shape[1]
        spectrum = torch.fft.rfft(x, size, dim=1) * torch.fft.rfft(self.filter, size, dim=0)
        return torch.fft.irfft(spectrum, size, dim=1)[:, : x.shape[1]]


class TimeNorm(nn.Module):
    """Batch norm over batch and time: in train mode every position sees the statistics of all."""

    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm1d(HIDDEN)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.norm(so_far(x).transpose(1, 2)).transpose(1, 2)


class Gated(nn.Module):
    """Reads its neighbour through a gate that starts at zero."""

    def __init__(self, near: Near):
        super().__init__()
        self.near = near
        self.gate = nn.Parameter(torch.zeros(HIDDEN))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return so_far(x) + self.gate * self.near(x)


class Dropped(nn.Module):
    """Causal, with dropout on a branch of weight `strength`."""

    def __init__(self, strength: float):
        super().__init__()
        self.strength = strength
        self.dropout = nn.Dropout(0.3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return so_far(x) + self.strength * self.dropout(x)


class Noise(nn.Module):
    """Causal, with noise that no seed of torch controls."""

    def __init__(self, strength: float):
        super().__init__()
        self.strength = strength

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return so_far(x) + self.strength * x * torch.tensor([random.random() for _ in range(len(x))])[:, None, None]


def so_far(x: torch.Tensor) -> torch.Tensor:
    """The mean of all positions up to each: causal."""
    return x.cumsum(1) / torch.arange(1, x.shape[1] + 1)[:, None]


def one_pair(x: torch.Tensor, *, reader: int, read: int) -> torch.Tensor:
    """`so_far`, and one position reads one other."""
    row = (torch.arange(x.shape[1]) == reader)[:, None]
    return so_far(x) + row * x[:, read : read + 1]


def expert_choice(x: torch.Tensor, *, causal: bool) -> torch.Tensor:
    """An expert takes the four positions that score highest: over the sequence, or above a fixed threshold."""
    scores = x[..., 0]
    chosen = scores > 0.3 if causal else scores >= scores.topk(4, dim=1).values[:, -1:]
    return so_far(x) + chosen[..., None] * x.detach()


def toy(mixer: nn.Module | Callable[[torch.Tensor], torch.Tensor]) -> nn.Module:
    return seeded(Toy(mixer if isinstance(mixer, nn.Module) else Mixer(mixer)))
