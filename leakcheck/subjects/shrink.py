"""A small configuration of the same architecture: fewer layers and narrow widths, every kind of layer kept."""

import inspect
import re
from itertools import pairwise
from typing import Any

from leakcheck.subjects.lengths import BLOCK_SIZE, MAXIMUM, STEP
from leakcheck.subjects.library import PreTrainedConfig, constructor_fields

LAYERS = 3
VOCABULARY = 97
POSITIONS = 64
HIDDEN = 32
FEED_FORWARD = 64
HEADS = 4
HEAD_DIM = HIDDEN // HEADS
STATE = 16

_LAYERS = re.compile(r"num_hidden_layers|n_layers?|num_layers|(num_)?(en|de)coder_layers|num_blocks")
_HEADS = re.compile(r"(.*_)?num_(attention_|query_|attn_)?heads|n_heads?|((en|de)coder_)?attention_heads")
_KV_HEADS = re.compile(r"(.*_)?num_(key_value|kv)_heads|n_kv_heads|kv_n_heads|n_head_kv|num_query_groups")

_EXPERTS = re.compile(r"(num|n)_((local|routed)_)?experts|moe_num_experts")
_LOOKS_BACK = re.compile(r"(.*_)?(window|chunk)(_size|_len|_length)?|.*_kernel(_size|_dim)?|.*_d_conv|d_conv")

# The first pattern that matches a field's name gives its size.
_EXACT = tuple(
    (re.compile(pattern), size)
    for pattern, size in (
        (r"type_vocab_size|task_type_vocab_size", 2),
        (r"(.*_)?vocab_size(_.*)?", VOCABULARY),
        ("|".join(name for name in MAXIMUM if name != BLOCK_SIZE), POSITIONS),
        (r"original_max_position_embeddings", POSITIONS // 2),
        (r"hidden_size(_global)?|n_embd|d_model|emb_dim|embedding_dim|embedding_size|dim|word_embed_proj_dim", HIDDEN),
        (r"(in|out)put_embedding_size|lru_width|hidden_size_per_layer_input", HIDDEN),
        (r"(.*_)?intermediate_size(_.*)?|(.*_)?ffn?_(dim|size|hidden_size)|feed_forward_size", FEED_FORWARD),
        (r"n_inner|d_inner|d_ff|dff|dim_ff|hidden_dim|inner_dim|mlp_dim|mamba_d_ssm", FEED_FORWARD),
        (r"qk_head_dim", 2 * HEAD_DIM),  # the parts with and without rotation
        (r"mamba_(d_head|head_dim|headdim)|attention_head_dim", 2 * HEAD_DIM),  # mixers that are twice as wide
        (r"mamba_n_heads|mamba_num_heads|n_mamba_heads", HEADS),
        (r"(.*_)?head_dim|d_head|dim_head|kv_channels|attention_head_size|query_pre_attn_scalar", HEAD_DIM),
        (r"rotary_dim", HEAD_DIM // 2),
        (r"(.*_)?lora_rank|(.*_)?lowrank", STATE),
    )
)
_AT_MOST = tuple(
    (re.compile(pattern), size)
    for pattern, size in (
        (STEP.pattern, 4),
        (r"(.*_)?state_size|(.*_)?d_state", STATE),
        (r"(.*_)?(dt|time_step)_rank", 4),
        (r"(num|n)_(.*_)?experts|(.*_)?num_experts|zero_expert_num", 4),
        (r"num_experts_per_tok(en)?|moe_topk|moe_k|top_k", 2),
        (r"n_groups?|num_expert_group|(.*_)?n_?groups", 2),
        (r"topk_group", 1),
        (r"first_k_dense_replace|max_window_layers|num_dense_layers|(.*_)?offset", 1),
        (r"(.*_)?(period|interval)|sliding_window_pattern", 2),
        (r"num_kv_shared_layers", 0),
        (r"index_topk", 4),
    )
)


def shrink(config: PreTrainedConfig, **toy: Any) -> PreTrainedConfig:
    """The same configuration at toy size: only fields it has, and `None` (no window, no groups) stays `None`.

    Three layers, or one for each kind of layer where there are more kinds; vocabulary 97; four heads, which share two
    key/value heads if heads were shared before; windows, chunks, blocks and kernels of at most 4 tokens. Fields in
    `toy` are taken as they are; a dictionary among them is merged into the one of that name.

    Raises:
        Exception: whatever the configuration's class raises where its own checks refuse these sizes.
    """
    return type(config).from_dict(_merged(_small(_constructor_fields(config)), toy))


def variations(config: PreTrainedConfig) -> dict[str, tuple[int, ...]]:
    """Of a small configuration the fields that can have other small sizes, each by itself, and these, smallest first.

    Layers, if they are all of one kind; heads, and key/value heads, of which there are no more; experts; windows,
    chunks and kernels. Some architectures refuse some of them.
    """
    values = config.to_dict()
    depth = next((v for name, v in values.items() if _LAYERS.fullmatch(name) and isinstance(v, int)), 0)
    uniform = not any(isinstance(value, list) and len(value) == depth for value in values.values())
    chosen = max((v for name, v in values.items() if "per_tok" in name and isinstance(v, int)), default=2)
    latent = values.get("kv_lora_rank") is not None  # keys and values are made for as many heads as there are
    grouped = values.get("n_group") or values.get("num_expert_group")
    patterns: list[tuple[re.Pattern[str], tuple[int, ...]]] = [
        (_LAYERS, tuple(range(1, LAYERS + 1)) if uniform else ()),
        (_HEADS, () if latent else (1, HEADS // 2, HEADS)),
        (_KV_HEADS, () if latent else (1, HEADS // 2, HEADS)),
        (_EXPERTS, () if grouped else tuple(range(max(2, chosen), 5))),
        (_LOOKS_BACK, (2, 3, 4, 5, 6)),
    ]
    return {
        name: sizes
        for name, value in values.items()
        for pattern, sizes in patterns
        if pattern.fullmatch(name) and sizes and isinstance(value, int) and not isinstance(value, bool) and value > 0
    }


def _merged(values: dict[Any, Any], over: dict[Any, Any]) -> dict[Any, Any]:
    """`values` with those in `over` in their place, dictionaries key by key."""
    nested = {k for k, v in over.items() if isinstance(v, dict) and isinstance(values.get(k), dict)}
    return {**values, **over, **{k: _merged(values[k], over[k]) for k in nested}}


def _constructor_fields(config: PreTrainedConfig) -> dict[str, Any]:
    """What the configuration was made from, without what its constructor computed: that must be computed anew."""
    values = config.to_dict()
    parameters = inspect.signature(type(config)).parameters.values()
    accepted = {parameter.name for parameter in parameters}
    if any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in parameters):
        accepted |= constructor_fields(type(config))
    accepted |= {type(config).attribute_map.get(name, name) for name in accepted}
    try:
        computed = set(vars(type(config)())) - accepted
    except Exception:  # a class that cannot be built without arguments
        computed = set()
    return {name: value for name, value in values.items() if name not in computed}


def _small(values: dict[str, Any]) -> dict[str, Any]:
    depth = next((v for name, v in values.items() if _LAYERS.fullmatch(name) and isinstance(v, int)), 0)
    layers = _kept_layers(values, depth)

    def small(name: str, value: Any) -> Any:
        if name == "per_layer_config" and value:  # what some layers override, by the layer's number
            of_layer = {int(layer): _small(overrides) for layer, overrides in value.items()}
            return {new: of_layer[old] for new, old in enumerate(layers) if old in of_layer}
        if name == "attention_types" and value:  # gpt_neo: layer_types as [[pattern, repetitions], ...]
            types = [kind for pattern, repetitions in value for kind in pattern * repetitions]
            return [[[types[layer] for layer in layers], 1]]
        if isinstance(value, dict) and name != "id2label":
            return _small(value)
        if name in ("short_factor", "long_factor"):  # of longrope: one for each rotated pair of a head's channels
            return value[: int(HEAD_DIM * values.get("partial_rotary_factor", 1)) // 2]
        if isinstance(value, list):
            if _is_layer_numbers(name, value):
                return [new for new, old in enumerate(layers) if old in value]
            if len(value) == depth:
                value = [value[layer] for layer in layers]
            return [small(name, element) if isinstance(element, int) else element for element in value]
        if _LAYERS.fullmatch(name) and isinstance(value, int):
            return len(layers)
        if isinstance(value, bool) or not isinstance(value, int) or value <= 0:
            return value
        return _small_size(name, value, values)

    return {name: small(name, value) for name, value in values.items()}


def _small_size(name: str, value: int, values: dict[str, Any]) -> int:
    if _HEADS.fullmatch(name):
        return HEADS
    if _KV_HEADS.fullmatch(name):
        heads = next((v for other, v in values.items() if _HEADS.fullmatch(other) and isinstance(v, int)), 0)
        return HEADS // 2 if value < heads else HEADS
    if name in ("bos_token_id", "eos_token_id", "pad_token_id"):
        return min(value, VOCABULARY - 1)
    if name == "attention_hidden_size":
        return HIDDEN * value // values["hidden_size"]
    if name == "head_dim" and "expand" in values and "num_attention_heads" not in values:
        return HEAD_DIM * values["expand"]  # a state-space mixer's heads split its inner width
    if name == BLOCK_SIZE and not any(other in values for other in MAXIMUM if other != BLOCK_SIZE):
        return POSITIONS
    for pattern, size in _EXACT:
        if pattern.fullmatch(name):
            return size
    for pattern, size in _AT_MOST:
        if pattern.fullmatch(name):
            return min(value, size)
    return value


def _kept_layers(values: dict[str, Any], depth: int) -> list[int]:
    """The numbers of the layers to keep: the first of every kind, then the earliest others, in their order."""
    lists = [v for name, v in values.items() if isinstance(v, list) and len(v) == depth and depth]
    lists = [v for v in lists if all(isinstance(element, str | bool) for element in v)]
    first_of_kind = {kind: layer for layer, kind in reversed(list(enumerate(zip(*lists, strict=True))))}
    kept = sorted(first_of_kind.values())
    others = [layer for layer in range(depth) if layer not in kept]
    missing = max(0, LAYERS - len(kept))
    # A model of fewer layers than that repeats its first.
    return sorted(kept + others[:missing] + [0] * (missing - len(others)))


def _is_layer_numbers(name: str, value: list[Any]) -> bool:
    """Whether a list holds the numbers of some layers rather than one entry for each layer."""
    if not re.fullmatch(r".*(_ids|_idxs|layers)", name) or not all(type(element) is int for element in value):
        return False
    return all(a < b for a, b in pairwise(value))
