"""The sequence length of an audit: long enough to cross the model's boundaries, and no other axis has that size."""

import re
from collections.abc import Iterator
from itertools import chain
from math import ceil

from torch import nn

from leakcheck.errors import UsageError
from leakcheck.subjects.library import PreTrainedConfig

DEFAULT = 13
CAP = 512
FULL_SIZE_CAP = 64  # of a model at its full size: labels of a chunk of 256 tokens take minutes for each configuration

# Fields that hold a number of tokens after which something starts anew: a window, a chunk, a block, a kernel.
STEP = re.compile(
    r"(.*_)?window(_size|_len|_length)?"
    r"|(.*_)?(chunk|block)_(size|len|length)"
    r"|(.*_)?kernel(_size|_dim)?"
    r"|(.*_)?d_conv|conv1d_width|conv_L_cache|local_attention"
)
BLOCK_SIZE = "block_size"
MAXIMUM = (
    "max_position_embeddings",
    "n_positions",
    "max_seq_len",
    "max_sequence_length",
    "max_target_positions",
    "n_ctx",
    "context_length",
    "model_max_length",
    BLOCK_SIZE,  # nanoGPT's name for it; next to one of the others it is the size of an attention block
)
# Encoders of other inputs and token numbers say nothing about the axes of a text decoder.
_FOREIGN = re.compile(r".*(vision|audio|image|video).*|.*_token_(id|index)")
_POSITION_TABLE = re.compile(r"(.*[._])?(wpe|pos|.*position.*|pos_.*|.*_pos)")


def derive_seq_len(
    config: PreTrainedConfig | None, model: nn.Module | None = None, at_least: int = 2, cap: int = CAP
) -> int:
    """A length that crosses two boundaries of every window, chunk, block and kernel, and leaves a partial tail.

    The length never exceeds the model's maximum. It is not the size, or half the size, of another axis, because
    leakcheck tells axes apart by their size. It is capped at 512 tokens: a window or a chunk at least as long as that
    (4096 in a model with given weights) is not crossed at all and does not lengthen the audit, and one of more than
    204 is crossed once. At full size without weights the cap is 64. Give `--seq-len` to cross it.
    """
    longest = min(cap, max_seq_len(config, model) or cap)
    steps = [size for size in _step_sizes(config) if size < longest]
    wanted = min(longest, max([DEFAULT, at_least, *(2 * size + ceil(size / 2) for size in steps)]))
    taken = axis_sizes(config, model)
    candidates = chain(range(wanted, longest + 1), range(wanted - 1, 1, -1))
    return next((n for n in candidates if n not in taken and all(n % size for size in steps)), wanted)


def validate_seq_len(seq_len: int, config: PreTrainedConfig | None, model: nn.Module | None = None) -> None:
    """Check a length that the user asked for.

    Raises:
        UsageError: no position pair fits in it, or the model has no position for its last token.
    """
    if seq_len < 2:
        raise UsageError(f"--seq-len {seq_len}: at least 2 tokens are needed, for one past and one future")
    longest = max_seq_len(config, model)
    if longest is not None and seq_len > longest:
        raise UsageError(f"--seq-len {seq_len}: the model's maximum is {longest} tokens")


def max_seq_len(config: PreTrainedConfig | None, model: nn.Module | None = None) -> int | None:
    """The longest input that the configuration allows, else the length of the model's learned position table."""
    if config is not None:
        text = config.get_text_config(decoder=True)
        for name in MAXIMUM:
            value = getattr(text, name, None)
            if isinstance(value, int) and value > 0:
                return value
    return _position_table(model) if model is not None else None


def _position_table(model: nn.Module) -> int | None:
    tables = [(name, module) for name, module in model.named_modules() if isinstance(module, nn.Embedding)]
    if not tables:
        return None
    # A table of relative positions is as wide as there are heads; one of absolute positions is as wide as the tokens'.
    width = tables[0][1].embedding_dim
    lengths = [m.num_embeddings for name, m in tables if m.embedding_dim == width and _POSITION_TABLE.fullmatch(name)]
    return min(lengths, default=None)


def _step_sizes(config: PreTrainedConfig | None) -> list[int]:
    if config is None:
        return []
    maximum = max_seq_len(config)
    return [
        size
        for name, size in _sizes(config.to_dict())
        if STEP.fullmatch(name) and not (name == BLOCK_SIZE and size == maximum)
    ]


def axis_sizes(config: PreTrainedConfig | None, model: nn.Module | None) -> set[int]:
    """The sizes, and half the sizes, of the axes that a model has without its inputs."""
    sizes: set[int] = set()
    if config is not None:
        sizes.update(size for name, size in _sizes(config.to_dict()) if name not in MAXIMUM)
    if model is not None:
        sizes.update(size for parameter in model.parameters() for size in parameter.shape)
    return sizes | {size // 2 for size in sizes}


def _sizes(fields: dict) -> Iterator[tuple[str, int]]:
    """Every integer above one in a configuration and in what is nested in it, with its name."""
    for name, value in fields.items():
        if _FOREIGN.fullmatch(str(name)):
            continue
        if isinstance(value, dict):
            yield from _sizes(value)
        elif isinstance(value, int) and not isinstance(value, bool) and value > 1:
            yield name, value
