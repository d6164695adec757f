"""What a model reads that says nothing of it: told from its first layers, and tried."""

from collections.abc import Callable, Iterator, Mapping
from itertools import chain, count
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from leakcheck.config import Configuration
from leakcheck.errors import LeakcheckError, SubjectCrash, UsageError
from leakcheck.subjects import running
from leakcheck.subjects.adapter import Adapter
from leakcheck.subjects.function import Function, forward_parameters
from leakcheck.subjects.inputs import Inputs
from leakcheck.subjects.lengths import DEFAULT, axis_sizes
from leakcheck.subjects.refusal import one_line
from leakcheck.subjects.sizes import read_results

_ENCODER_STEPS = 7  # of an encoder that is held fixed; no other axis of a small model has that size
_DOUBLINGS = 8
_BLOCKS = (2, 4, 8, 16, 32, 64, 128)  # some models take multiples of their own block alone
ADVICE = "describe them: --input 'NAME=float[batch, time, 80]', or leakcheck.Inputs in Python"


def readable(
    model: Callable[..., Any], inputs: Inputs | None, where: str, examples: Mapping[str, Tensor] | None = None
) -> nn.Module:
    """`model` itself if it reads token ids and returns logits, else in an `Adapter`.

    Raises:
        UsageError: as `adapted`.
    """
    if inputs is not None or not isinstance(model, nn.Module):
        return adapted(model, inputs, where, examples)
    model.eval()
    embedded = any(isinstance(module, nn.Embedding) for module in model.modules())
    if embedded and _returns_logits(model):
        return model
    try:
        return adapted(model, None, where)
    except UsageError:
        if embedded and not _is_encoder_decoder(model):  # the audit will say what its forward raises
            return model
        raise


def _is_encoder_decoder(model: nn.Module) -> bool:
    """Whether ids alone would go to its encoder, which sees them all."""
    return isinstance(model, PreTrainedModel) and bool(model.config.is_encoder_decoder)


def like(small: nn.Module, model: nn.Module) -> nn.Module:
    """`model`, of the same class at another size and maybe without weights, read as `small` is."""
    if not isinstance(small, Adapter):
        return model
    return Adapter(model, Inputs(dict(next(candidates(model)))), small.results)


@torch.no_grad()
def _returns_logits(model: nn.Module) -> bool:
    if _is_encoder_decoder(model):
        return False
    ids = torch.zeros(2, DEFAULT, dtype=torch.long)
    try:
        return running.forward(model, ids, Configuration("default", "none", "eval")).shape[:2] == ids.shape
    except LeakcheckError:
        return False


def running_length(adapter: Adapter, wanted: int) -> int:
    """A length at which the model runs: of at least `wanted` steps, and of four outputs and a half if it takes halves.

    It is `wanted` where nothing else runs either.
    """
    if adapter.step > 1:
        wanted = max(wanted, 4 * adapter.step + (adapter.step + 1) // 2)
    taken = axis_sizes(None, adapter)
    multiples = (next(n for n in count(wanted + -wanted % block, block) if n not in taken) for block in _BLOCKS)
    doubled = (2**k * (wanted + 1) - 1 for k in range(1, _DOUBLINGS))  # it may be too short for its windows
    return next((length for length in chain([wanted], multiples, doubled) if _runs(adapter, length)), wanted)


def _runs(adapter: Adapter, length: int) -> bool:
    try:
        with torch.no_grad():
            adapter(torch.zeros(2, length, dtype=torch.long))
    except Exception:  # whatever it raises at a length that it does not take
        return False
    return True


def adapted(
    model: Callable[..., Any], inputs: Inputs | None, where: str, examples: Mapping[str, Tensor] | None = None
) -> Adapter:
    """`model` as one that reads token ids, with inputs as described, else as they can be told from the model.

    Raises:
        UsageError: it does not run with these inputs, or with any that it could be thought to take.
    """
    module = model if isinstance(model, nn.Module) else Function(model)
    if inputs is not None and inputs.arguments:
        return _with(module, inputs, where, examples)
    outputs = inputs.outputs if inputs is not None else {}
    tried: list[str] = []
    blind: list[Adapter] = []
    for candidate in dict.fromkeys(candidates(module)):
        inputs = Inputs(dict(candidate), outputs)
        try:
            adapter = _adapter(module, inputs)
            if _looks_back(adapter):
                return adapter
            blind.append(adapter)
        except UsageError as error:
            raise UsageError(f"{where}: {error}") from error
        except Exception as error:
            tried.append(f"{inputs} ({one_line(error)[:100]})")
    if blind:
        return blind[0]
    said = f"; tried {'; '.join(tried[:3])}" if tried else ""
    raise UsageError(f"{where}: what {type(model).__name__} reads could not be told{said}; {ADVICE}")


@torch.no_grad()
def _looks_back(adapter: Adapter) -> bool:
    """Whether an earlier input moves the last output. If none does, what was taken for time may be the batch."""
    length = adapter.fixed_length or running_length(adapter, DEFAULT)
    ids = torch.arange(2 * length).reshape(2, length) % adapter.vocabulary
    changed = ids.roll(1, 0)
    changed[:, -1] = ids[:, -1]
    return not torch.equal(adapter(ids)[0, -1], adapter(changed)[0, -1])


def _with(module: nn.Module, inputs: Inputs, where: str, examples: Mapping[str, Tensor] | None) -> Adapter:
    unknown = inputs.arguments.keys() - forward_parameters(module).keys()
    if unknown and not any(p.kind in (p.VAR_KEYWORD, p.VAR_POSITIONAL) for p in forward_parameters(module).values()):
        known = ", ".join(forward_parameters(module)) or "nothing"
        raise UsageError(f"{where}: its forward has no parameter {min(unknown)!r}; it takes {known}")
    try:
        return _adapter(module, inputs, examples)
    except UsageError as error:
        raise UsageError(f"{where}: {error}") from error
    except Exception as error:
        raise UsageError(f"{where}: does not run with {inputs}: {one_line(error)}") from error


def _adapter(module: nn.Module, inputs: Inputs, examples: Mapping[str, Tensor] | None = None) -> Adapter:
    """Raises UsageError where an output that is named is not there, else whatever the model raises."""
    try:
        found = read_results(module, inputs)
    except SubjectCrash:  # no axis changes with the time
        if not inputs.results:
            raise
        found = dict(inputs.results)
    if missing := inputs.results.keys() - found.keys():
        raise UsageError(f"there is no output {min(missing)!r} over time; there are {', '.join(found)}")
    return Adapter(module, inputs, inputs.results or found, examples=examples)


Candidate = tuple[tuple[str, str], ...]


def candidates(model: nn.Module) -> Iterator[Candidate]:
    """Descriptions of the arguments, the likeliest first."""
    parameters = forward_parameters(model)
    if _is_encoder_decoder(model):
        yield from _encoder_decoder(model, list(parameters))
        return
    required = [p.name for p in parameters.values() if p.default is p.empty and p.kind < p.VAR_POSITIONAL]
    names = required or list(parameters)[:1]
    if not names:
        return
    audited = [name for name in names if not _is_length(name)]
    for description in _descriptions(model):
        yield tuple((name, "length[batch]" if name not in audited else description) for name in names)
        if len(audited) > 1:  # the first over time, the others beside it held fixed
            yield tuple(
                (n, "length[batch]" if n not in audited else description if n == audited[0] else _held(description))
                for n in names
            )


def _is_length(name: str) -> bool:
    return name.endswith(("lengths", "lens", "length", "len"))


def _held(description: str) -> str:
    return description.replace("time", str(_ENCODER_STEPS))


def _encoder_decoder(model: nn.Module, parameters: list[str]) -> Iterator[Candidate]:
    """The decoder's tokens over time; what the encoder reads is held fixed."""
    config: Any = model.config
    vocabulary = config.get_text_config(decoder=True).vocab_size
    decoder = ("decoder_input_ids", f"int[batch, time] < {vocabulary}")
    if "input_features" in parameters:  # log-mel spectrograms, of one length only
        steps = 2 * getattr(config, "max_source_positions", _ENCODER_STEPS)
        yield ("input_features", f"float[batch, {getattr(config, 'num_mel_bins', 80)}, {steps}]"), decoder
    elif "input_values" in parameters:
        yield ("input_values", "float[batch, 4000]"), decoder
    else:
        encoder = getattr(getattr(config, "encoder", config), "vocab_size", vocabulary)
        yield ("input_ids", f"int[batch, {_ENCODER_STEPS}] < {encoder}"), decoder


def _descriptions(model: nn.Module) -> Iterator[str]:
    """What the first layers would take, in the order in which they were registered."""
    for module in model.modules():
        if isinstance(module, nn.Embedding):
            yield f"int[batch, time] < {module.num_embeddings}"
        elif isinstance(module, nn.Conv1d):
            yield f"float[batch, {module.in_channels}, time]"
            if module.in_channels == 1:
                yield "float[batch, time]"
        elif isinstance(module, (nn.RNNBase, nn.MultiheadAttention)):
            width = module.input_size if isinstance(module, nn.RNNBase) else module.embed_dim
            if not module.batch_first:
                yield f"float[time, batch, {width}]"
            yield f"float[batch, time, {width}]"  # whoever calls the layer may have turned the axes
        elif isinstance(module, nn.Linear) and not _time_first(model):
            yield f"float[batch, time, {module.in_features}]"
        elif isinstance(module, nn.LayerNorm) and len(module.normalized_shape) == 1 and not _time_first(model):
            yield f"float[batch, time, {module.normalized_shape[0]}]"


def _time_first(model: nn.Module) -> bool:
    """Whether a layer takes the time before the batch: then `[batch, time, ...]` would run, along the wrong axis."""
    return any(isinstance(m, (nn.RNNBase, nn.MultiheadAttention)) and not m.batch_first for m in model.modules())
