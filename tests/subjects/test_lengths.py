"""The derived sequence length, and the check of one that the user asked for."""

import pytest
from torch import nn
from transformers import (
    GPT2Config,
    Llama4TextConfig,
    LlamaConfig,
    Mamba2Config,
    MistralConfig,
    PreTrainedConfig,
    WhisperConfig,
)

from leakcheck.errors import UsageError
from leakcheck.subjects.lengths import derive_seq_len, max_seq_len, validate_seq_len


def small(config_class=LlamaConfig, **fields):
    return config_class(
        **{"vocab_size": 97, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, **fields}
    )


def test_default():
    assert derive_seq_len(None) == 13
    assert derive_seq_len(small()) == 13


@pytest.mark.parametrize("window", [5, 6, 7, 16, 31, 100, 200])
def test_two_boundaries_and_a_partial_tail(window):
    length = derive_seq_len(small(MistralConfig, sliding_window=window))
    assert length > 2 * window
    assert length % window


@pytest.mark.parametrize(
    ("config", "size"),
    [
        (small(Llama4TextConfig, attention_chunk_size=20), 20),
        (Mamba2Config(hidden_size=32, num_heads=8, head_dim=8, chunk_size=24), 24),
        (small(MistralConfig, sliding_window=None, conv_kernel=9), 9),
        (small(MistralConfig, sliding_window=None, mixer={"d_conv": 11}), 11),
    ],
    ids=["attention chunk", "state-space chunk", "kernel", "nested kernel"],
)
def test_every_kind_of_boundary(config, size):
    assert derive_seq_len(config) > 2 * size


@pytest.mark.parametrize(
    "fields",
    [
        {"hidden_size": 52, "num_attention_heads": 2},  # head_dim 26, and its half
        {"head_dim": 26},
        {"vocab_size": 13},
        {"intermediate_size": 26},
        {"num_local_experts": 13},
        {"state_size": 13},
        {"mixer": {"state_size": 13}},
    ],
    ids=str,
)
def test_no_other_axis_has_that_size(fields):
    assert derive_seq_len(small(**fields)) == 14


def test_sizes_of_a_model_without_configuration():
    assert derive_seq_len(None, nn.Linear(13, 28)) == 15


def test_never_above_the_maximum():
    assert derive_seq_len(small(max_position_embeddings=10)) == 10
    assert derive_seq_len(small(MistralConfig, sliding_window=30, max_position_embeddings=40)) == 40
    # 13 is taken and there is nothing above it: a shorter one.
    assert derive_seq_len(small(max_position_embeddings=13, vocab_size=13)) == 12


def test_long_windows():
    """A window beyond the cap does not lengthen the audit; one that can be crossed once is."""
    assert derive_seq_len(small(MistralConfig, sliding_window=4096)) == 13
    assert 300 < derive_seq_len(small(MistralConfig, sliding_window=300)) <= 512
    assert derive_seq_len(small(MistralConfig, sliding_window=256)) == 511


@pytest.mark.parametrize(
    ("config", "maximum"),
    [
        (small(max_position_embeddings=77), 77),
        (GPT2Config(n_positions=78), 78),
        (WhisperConfig(max_target_positions=79), 79),
        (PreTrainedConfig(max_seq_len=80), 80),
        (PreTrainedConfig(block_size=81), 81),
        (PreTrainedConfig(), None),
    ],
)
def test_maximum(config, maximum):
    assert max_seq_len(config) == maximum
    if maximum:
        validate_seq_len(maximum, config)
        with pytest.raises(UsageError, match=f"maximum is {maximum} tokens"):
            validate_seq_len(maximum + 1, config)


def test_block_size_beside_a_maximum_is_a_boundary():
    assert derive_seq_len(PreTrainedConfig(block_size=16, max_position_embeddings=64)) == 40
    assert derive_seq_len(PreTrainedConfig(block_size=16)) <= 16


def test_position_table_of_a_model_without_configuration():
    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.wte, self.wpe = nn.Embedding(97, 32), nn.Embedding(11, 32)
            self.position_bias = nn.Embedding(5, 4)  # one number for each head: relative positions, no limit

    assert max_seq_len(None, Model()) == 11
    assert derive_seq_len(None, Model()) == 10  # 11 is the table's size
    with pytest.raises(UsageError, match="maximum is 11 tokens"):
        validate_seq_len(12, None, Model())


def test_too_short():
    with pytest.raises(UsageError, match="at least 2"):
        validate_seq_len(1, None)
