"""Models of any signature: each kind causal and leaking, told as they are."""

import copy
import functools
from dataclasses import dataclass

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import (
    BartConfig,
    BartForConditionalGeneration,
    LlamaConfig,
    LlamaForCausalLM,
    T5Config,
    T5ForConditionalGeneration,
    WhisperConfig,
    WhisperForConditionalGeneration,
)

import leakcheck
from leakcheck import Inputs, Settings
from leakcheck.errors import NothingChecked, UsageError
from leakcheck.findings import Verdict

SDPA = Settings(attention=("sdpa",))
CASES = {}


def case(function):
    """`function(leak)` gives a model, its inputs or `None`, and how they are said."""
    CASES[function.__name__] = function
    return function


class Mixer(nn.Module):
    """Sums up what came before, or what comes after, between two linear layers."""

    def __init__(self, leak: bool, size: int = 5, out: int = 7):
        super().__init__()
        self.into, self.out, self.leak = nn.Linear(size, 8), nn.Linear(8, out), leak

    def forward(self, x: Tensor) -> Tensor:  # [batch, time, size]
        return self.out(summed(torch.tanh(self.into(x)), self.leak))


def summed(x: Tensor, leak: bool, dim: int = 1) -> Tensor:
    return x.flip(dim).cumsum(dim).flip(dim) if leak else x.cumsum(dim)


@case
def features(leak):
    return Mixer(leak), None, "x: float[batch, time, 5]"


@case
def channels_first(leak):
    class Convolution(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv1d(5, 6, 3)

        def forward(self, mel: Tensor) -> Tensor:
            return self.conv(F.pad(mel, (1, 1) if leak else (2, 0)))

    return Convolution(), None, "mel: float[batch, 5, time]"


@case
def time_first(leak):
    return nn.LSTM(5, 6, bidirectional=leak), None, "input: float[time, batch, 5]"


@case
def waveform_at_an_eighth_of_the_rate(leak):
    """Frames of 8 samples; what leaks is one frame ahead."""

    class Codec(nn.Module):
        def __init__(self):
            super().__init__()
            self.frames, self.mix = nn.Conv1d(1, 4, 8, stride=8), nn.Conv1d(4, 3, 2)

        def forward(self, wave: Tensor) -> Tensor:
            return self.mix(F.pad(self.frames(wave), (0, 1) if leak else (1, 0)))

    return Codec(), None, "wave: float[batch, 1, time]"


@case
def twice_the_rate(leak):
    class Upsampler(nn.Module):
        def __init__(self):
            super().__init__()
            self.up = nn.ConvTranspose1d(5, 4, 2, stride=2)
            self.ahead = nn.Conv1d(4, 3, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.ahead(F.pad(self.up(x), (0, 2) if leak else (2, 0)))

    return Upsampler(), Inputs({"x": "float[batch, 5, time]"}), "x: float[batch, 5, time]"


@case
def several_inputs(leak):
    class Both(nn.Module):
        def __init__(self):
            super().__init__()
            self.embed, self.mix = nn.Embedding(11, 5), Mixer(leak)

        def forward(self, ids: Tensor, values: Tensor, context: Tensor, lengths: Tensor, scale: float) -> Tensor:
            known = torch.arange(ids.shape[1]) < lengths[:, None]  # [batch, time]
            x = (self.embed(ids) + values.transpose(1, 2)) * scale * known[..., None]
            return self.mix(x + context[:, None])

    described = {
        "ids": "int[batch, time] < 11",
        "values": "float[batch, 5, time]",
        "context": "float[batch, 5]",
        "lengths": "length[batch]",
        "scale": 2.0,
    }
    said = "ids: int[batch, time] < 11, values: float[batch, 5, time], context: float[batch, 5], lengths: length[batch]"
    return Both(), Inputs(described), f"{said}, scale: as given"


@dataclass
class Output:
    state: Tensor
    frames: dict[str, Tensor]


@case
def several_outputs_in_a_dataclass(leak):
    """Only the second output leaks."""

    class Several(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second = Mixer(False), Mixer(leak, out=4)

        def forward(self, x: Tensor) -> Output:
            return Output(x.mean(1), {"coarse": self.first(x), "fine": self.second(x).transpose(1, 2)})

    return Several(), None, "x: float[batch, time, 5]"


@case
def tokens_without_an_embedding(leak):
    class OneHot(nn.Module):
        def __init__(self):
            super().__init__()
            self.mix = Mixer(leak, size=9)

        def forward(self, ids: Tensor) -> Tensor:
            return self.mix(F.one_hot(ids, 9).float())

    return OneHot(), Inputs({"ids": "int[batch, time] < 9"}), "ids: int[batch, time] < 9"


@case
def one_row_at_a_time(leak):
    class Row(nn.Module):
        def __init__(self):
            super().__init__()
            self.mix = Mixer(leak)

        def forward(self, x: Tensor) -> Tensor:  # [time, 5]
            return self.mix(x[None])[0]

    return Row(), Inputs({"x": "float[time, 5]"}), "x: float[time, 5]"


@case
def one_length_only(leak):
    class Fixed(Mixer):
        def forward(self, x: Tensor) -> Tensor:
            assert x.shape[1] == 10
            return super().forward(x)

    return Fixed(leak), Inputs({"x": "float[batch, time=10, 5]"}), "x: float[batch, time=10, 5]"


@case
def a_function(leak):
    mix = Mixer(leak)

    def forward(x: Tensor) -> Tensor:
        return mix(x) * 2

    return forward, Inputs({"x": "float[batch, time, 5]"}), "x: float[batch, time, 5]"


@case
def a_bound_method(leak):
    return Mixer(leak).forward, Inputs({"x": "float[batch, time, 5]"}), "x: float[batch, time, 5]"


@case
def a_partial(leak):
    mixed = functools.partial(lambda module, x: module(x), Mixer(leak))
    return mixed, Inputs({"x": "float[batch, time, 5]"}), "x: float[batch, time, 5]"


@pytest.mark.parametrize("leak", [False, True], ids=["causal", "leak"])
@pytest.mark.parametrize("name", CASES)
def test_each_kind_is_told_as_it_is(name, leak):
    torch.manual_seed(0)
    model, inputs, said = CASES[name](leak)
    result = leakcheck.audit(model, inputs=inputs)
    assert result.verdict is (Verdict.LEAK if leak else Verdict.PROVEN)
    assert all(control.caught for control in result.controls)
    assert result.subject.inputs == said


def test_a_leak_of_a_function_is_blamed_on_its_own_line():
    def forward(x: Tensor) -> Tensor:
        return x.flip(1)  # leak

    result = leakcheck.audit(forward, inputs=Inputs({"x": "float[batch, time, 3]"}))
    line = forward.__code__.co_firstlineno + 1
    assert any(f"test_any_model.py:{line}" in f.message for f in result.findings)
    assert result.subject.class_name.endswith("forward")


def test_only_the_declared_outputs_are_audited():
    model, _, _ = CASES["several_outputs_in_a_dataclass"](True)
    coarse = Inputs({"x": "float[batch, time, 5]"}, {"frames.coarse": "[batch, time, 7]"})
    assert leakcheck.audit(model, inputs=coarse).verdict is Verdict.PROVEN
    fine = Inputs({"x": "float[batch, time, 5]"}, {"frames.fine": "[batch, 4, time]"})
    assert leakcheck.audit(model, inputs=fine).verdict is Verdict.LEAK


def test_what_a_frame_sees_of_its_own_block_is_no_leak():
    """An output for each two inputs is there when both have been read."""
    model = nn.Conv1d(5, 4, 2, stride=2)
    result = leakcheck.audit(nn.Sequential(model))
    assert result.verdict is Verdict.PROVEN
    assert result.subject.outputs == "0: 1 for 2 steps"


# --- encoders and decoders --------------------------------------------------------------------------------------------

SMALL = {"vocab_size": 97, "d_model": 32, "decoder_start_token_id": 0, "pad_token_id": 0}


def t5():
    config = T5Config(d_ff=64, d_kv=8, num_layers=2, num_heads=4, **SMALL)
    return T5ForConditionalGeneration(config)


def bart():
    sizes = {f"{part}_{name}": n for part in ("encoder", "decoder") for name, n in (("layers", 2), ("ffn_dim", 64))}
    heads = {"encoder_attention_heads": 4, "decoder_attention_heads": 4}
    return BartForConditionalGeneration(BartConfig(**sizes, **heads, max_position_embeddings=64, **SMALL))


def whisper():
    sizes = {f"{part}_{name}": n for part in ("encoder", "decoder") for name, n in (("layers", 1), ("ffn_dim", 64))}
    heads = {"encoder_attention_heads": 4, "decoder_attention_heads": 4, "num_mel_bins": 16}
    ends = {"max_source_positions": 20, "max_target_positions": 64, "bos_token_id": 1, "eos_token_id": 2}
    return WhisperForConditionalGeneration(WhisperConfig(**sizes, **heads, **ends, **SMALL))


def test_the_decoder_is_audited_and_the_encoder_is_free():
    the_decoder_is_audited(whisper)


@pytest.mark.parametrize("make", [t5, bart])
def test_the_decoder_is_audited_and_the_encoder_is_free_in_eval_mode(make, in_eval_mode):
    the_decoder_is_audited(make)


def the_decoder_is_audited(make):
    torch.manual_seed(0)
    result = leakcheck.audit(make(), Settings(attention=("eager",)))
    assert result.verdict is Verdict.PROVEN
    assert "decoder_input_ids: int[batch, time] < 97" in result.subject.inputs
    assert {c.mask for c in result.configurations} == {"none", "ones", "left-padded", "right-padded"}


def test_a_decoder_of_few_positions_and_one_that_cannot_be_run(in_eval_mode):
    """Ids alone would go to the encoder, which sees them all: a false alarm on a correct model."""
    torch.manual_seed(0)
    small = {"d_model": 32, "encoder_layers": 1, "decoder_layers": 1, "max_position_embeddings": 16, "vocab_size": 61}
    heads = {"encoder_attention_heads": 4, "decoder_attention_heads": 4}
    model = BartForConditionalGeneration(BartConfig(**small, **heads))
    assert leakcheck.audit(model, Settings(attention=("eager",), seq_len=9)).verdict is Verdict.PROVEN
    with pytest.raises(UsageError, match=r"--seq-len 7: what is held fixed in .* is as long"):
        leakcheck.audit(model, Settings(seq_len=7))
    model.model.decoder.forward = None
    with pytest.raises(UsageError, match="what BartForConditionalGeneration reads could not be told"):
        leakcheck.audit(model)


def test_a_decoder_without_its_mask(in_eval_mode):
    torch.manual_seed(0)
    model = t5()
    model.decoder.config.is_decoder = model.decoder.is_decoder = False
    for block in model.decoder.block:
        block.layer[0].SelfAttention.is_decoder = False
    assert leakcheck.audit(model, Settings(attention=("eager",))).verdict is Verdict.LEAK


# --- exported programs ------------------------------------------------------------------------------------------------


class Tokens(nn.Module):
    def __init__(self, leak: bool):
        super().__init__()
        self.embed, self.mix = nn.Embedding(23, 5), Mixer(leak, out=23)

    def forward(self, ids: Tensor) -> Tensor:
        return self.mix(self.embed(ids))


@pytest.mark.parametrize("leak", [False, True], ids=["causal", "leak"])
@pytest.mark.parametrize("free", [False, True], ids=["one size", "any size"])
def test_an_exported_program(tmp_path, leak, free):
    torch.manual_seed(0)
    sizes = ({0: torch.export.Dim("rows"), 1: torch.export.Dim("steps", min=2, max=64)},) if free else None
    program = torch.export.export(Tokens(leak), (torch.randint(23, (2, 9)),), dynamic_shapes=sizes)
    torch.export.save(program, tmp_path / "model.pt2")
    result = leakcheck.audit(str(tmp_path / "model.pt2"))
    assert result.verdict is (Verdict.LEAK if leak else Verdict.PROVEN)
    assert result.subject.inputs == ("ids: int[batch, time] < 23" if free else "ids: int[2, time=9] < 23")
    assert result.subject.weights == "given"
    assert {c.mode for c in result.configurations} == {"eval"}


def test_what_is_no_exported_program(tmp_path):
    (tmp_path / "model.pt2").write_bytes(b"no archive")
    with pytest.raises(UsageError, match=r"model\.pt2: not a program that torch\.export\.save wrote"):
        leakcheck.audit(str(tmp_path / "model.pt2"))


# --- the user's own calls ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("leak", [False, True], ids=["causal", "leak"])
def test_calls_are_audited_once_for_each_shape(leak):
    torch.manual_seed(0)
    model = Tokens(leak)
    before = copy.deepcopy(model.state_dict())
    with leakcheck.watch(model) as watched:
        ids = torch.randint(23, (3, 9))
        for rows in (ids, ids, ids[:, :7]):
            model(rows)
    assert [result.subject.seq_len for result in watched.results] == [9, 7]
    assert watched.verdict is (Verdict.LEAK if leak else Verdict.PROVEN)
    assert not model._forward_pre_hooks
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_a_call_is_audited_on_its_own_input():
    """What leaks only on a token that no other draw would give: the first row of the call is where the audit begins."""

    class Trigger(Tokens):
        def forward(self, ids: Tensor) -> Tensor:
            rare = (ids[:, :1] == 12345)[..., None]
            x = self.embed(ids % 23)
            return self.mix(torch.where(rare, x.flip(1), x))

        def __init__(self):
            super().__init__(False)

    torch.manual_seed(0)
    model = Trigger()
    wide = Inputs({"ids": "int[batch, time] < 20000"})
    assert leakcheck.audit(model, inputs=wide).verdict is Verdict.SUSPECT  # flow admits it, no draw shows it
    ids = torch.randint(23, (1, 9))
    ids[0, 0] = 12345
    with leakcheck.watch(model) as watched:
        model(ids)
    assert watched.verdict is Verdict.LEAK


def test_other_arguments_are_handed_over_as_they_were():
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=97, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4
    )
    model = LlamaForCausalLM(config)
    ids = torch.randint(97, (2, 11))
    everything = torch.ones(2, 1, 11, 11, dtype=torch.bool)
    with leakcheck.watch(model, SDPA) as watched:
        model(input_ids=ids, attention_mask=torch.ones_like(ids), labels=ids)
        model(input_ids=ids, attention_mask=everything)
    causal, leaking = watched.results
    assert causal.verdict is Verdict.PROVEN
    assert causal.subject.inputs == "input_ids: int[batch, time=11] < 97, attention_mask: as given, labels: as given"
    assert leaking.verdict is Verdict.LEAK


def test_features_of_a_call():
    torch.manual_seed(0)
    model = Mixer(True)
    with leakcheck.watch(model) as watched:
        model(3 + 100 * torch.randn(2, 9, 5))
    assert watched.verdict is Verdict.LEAK
    assert watched.results[0].subject.inputs == "x: float[batch, time, 5]"


def test_a_block_without_a_call_and_one_that_raises():
    model = Tokens(False)
    with pytest.raises(NothingChecked, match="Tokens was not called inside the block"), leakcheck.watch(model):
        pass
    with pytest.raises(IndexError), leakcheck.watch(model) as watched:
        model(torch.full((1, 9), 23))
    assert not watched.results
    assert not model._forward_pre_hooks


# --- what cannot be audited -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("model", "inputs", "reason"),
    [
        (3, None, "int cannot be audited; a SPEC, a Module or a function is needed"),
        (nn.Bilinear(3, 3, 3), None, "what Bilinear reads could not be told"),
        (Mixer(False), Inputs({"y": "float[batch, time, 5]"}), "has no parameter 'y'; it takes x"),
        (Mixer(False), Inputs({"x": "float[batch, time, 4]"}), "does not run with x: float"),
        (lambda x: x.mean(1), Inputs({"x": "float[batch, time, 4]"}), "no output has a batch and a time axis"),
    ],
)
def test_what_cannot_be_audited_is_said_in_a_line(model, inputs, reason):
    with pytest.raises(UsageError, match=reason) as caught:
        leakcheck.audit(model, inputs=inputs)
    assert "\n" not in str(caught.value)
