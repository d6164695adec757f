"""Blame on planted leaks: the sentence, the line, the module and the way from the token to the output."""

import functools
import inspect
import re
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from transformers import LlamaConfig, LlamaForCausalLM
from transformers.models.llama import modeling_llama

from leakcheck.errors import UsageError
from leakcheck.flow import Blame, Violation, blame, sentences, trace
from leakcheck.flow.rows import Axis, Layout
from leakcheck.flow.storage import Mirror
from leakcheck.subjects.load import load
from leakcheck.zoo import LEAKS, registry
from leakcheck.zoo.leaks.convolution import SamePadding
from leakcheck.zoo.leaks.masks import EagerUnmasked
from leakcheck.zoo.leaks.norms import MeanPooled
from leakcheck.zoo.leaks.shifts import Rolled
from leakcheck.zoo.parts import HIDDEN, VOCAB, Attention, Model
from leakcheck.zoo.parts import LENGTH as SEQ

# What is said of each leak, for its first violation; {leak}, {caller} and {reversed} are the marked lines.
SENTENCES = {
    "EagerUnmasked": "attention runs without a mask: `attention_mask` is None at {leak}, called from {caller}",
    "FusedUnmasked": "attention runs without a mask: `attn_mask` is None at {leak}, called from {caller}",
    "MaskDropped": "attention runs without a mask at {leak}: `mask` (bool [{seq}, {seq}]) at {leak} does not reach it",
    "FusedInverted": "attention mask is inverted at {leak}: it blocks the past and lets the future in; "
    "the first such pair is query 0, key 1",
    "EagerInverted": "attention mask is inverted at {leak}: it blocks the past and lets the future in; "
    "the first such pair is query 0, key 1",
    "FusedOffByOne": "attention mask is off by 1 at {leak}: a query sees one step ahead; "
    "the first such pair is query 0, key 1",
    "EagerOffByTwo": "attention mask is off by 2 at {leak}: a query sees 2 steps ahead; "
    "the first such pair is query 0, key 1",
    "OnePair": "attention mask lets 1 pair with a later key through at {leak}; the first such pair is query 4, key 7",
    "DeadRow": "attention mask blocks every key of query 3 at {leak}: softmax then weighs all the same",
    "QueryAxisSoftmax": "softmax over the query axis (dim 2 of [1, 3, {seq}, {seq}]) at {leak}: "
    "the weights of a query depend on later queries",
    "Convolution": "convolution pads 2 steps to the right at {leak}: output t reads input t+2",
    "CutConvolution": "convolution pads 2 steps to the right at {leak}: output t reads input t+2",
    "SamePadding": "convolution pads one step to the right at {leak}: output t reads input t+1",
    "MeanPooled": "mean over the sequence axis (dim 1 of [1, {seq}, 12]) at {leak}: position 0 reads position 10",
    "Overwritten": "maximum over the sequence axis (dim 1 of [1, {seq}, 12]) at {leak}: position 0 reads position 10",
    "SummedGate": "sum over the sequence axis (dim 1 of [1, {seq}, 12]) at {leak}: position 0 reads position 10",
    "Standardised": "standard deviation over the sequence axis (dim 1 of [1, {seq}, 12]) at {leak}: "
    "position 0 reads position 10",
    "BatchNorm": "batch norm in train mode takes its statistics over the sequence axis at {leak}: "
    "position 0 reads position 10",
    "GroupNorm": "group norm takes its statistics over the sequence axis at {leak}: position 0 reads position 10",
    "ReversedSum": "cumulative sum runs from the right at {leak} (the sequence is reversed at {reversed}): "
    "position 0 reads position 10",
    "ReversedConvolution": "convolution runs over the reversed sequence at {leak} "
    "(the sequence is reversed at {reversed}): position 0 reads position 2",
    "ReversedAttention": "attention with a mask runs over the reversed sequence at {leak} "
    "(the sequence is reversed at {reversed}): position 0 reads position 10",
    "Reversed": "the sequence is reversed at {leak}: position 0 reads position 10",
    "Rolled": "roll moves the sequence 3 steps to the left at {leak}: position 0 reads position 3",
    "ShiftedByCat": "the sequence is shifted 2 steps to the left at {leak}: position 0 reads position 2",
    "ShiftedByPad": "the sequence is shifted one step to the left at {leak}: position 0 reads position 1",
    "ShiftedInPlace": "the sequence is shifted one step to the left at {leak}: position 0 reads position 1",
    "ExpertChoice": "top-k over tokens at {leak}: what is chosen depends on later ones (expert choice); "
    "position 0 reads position 10",
    "Sorted": "sort over tokens at {leak}: what is chosen depends on later ones (expert choice); "
    "position 0 reads position 10",
    "Gathered": "index takes a later position at {leak}: position 0 reads position 2",
    "Pointer": "gather by an index that depends on later positions, or reaches them at {leak}: "
    "position 0 reads position 10",
    "Slots": "scatter_add writes to earlier positions at {leak}: position 0 reads position 10",
    "Renormed": "norm over the sequence axis (dim 1 of [1, {seq}, 12]) at {leak}: position 0 reads position 10",
    "BackwardLSTM": "recurrent kernel runs backwards over the sequence at {leak}: position 0 reads position 10",
    "BackwardLoop": "loop over the sequence uses later positions in earlier steps at {leak}: "
    "position 9 reads position 10",
    "StepByStep": "loop over the sequence uses later positions in earlier steps at {leak}: position 0 reads position 1",
    "SequenceMixer": "linear layer mixes the sequence axis (weight [{seq}, {seq}]) at {leak}: "
    "position 0 reads position 10",
    "ConstantMixer": "product with a constant matrix [1, {seq}, {seq}] that is not zero above the diagonal at {leak}: "
    "position 0 reads position 3",
    "LinearAttention": "matrix product sums over the sequence axis, later positions included at {leak}: "
    "position 0 reads position 10",
    "NextToken": "add mixes the sequence axis at {leak}: position 5 reads position 6",
    "LastToken": "mul mixes the sequence axis at {leak}: position 0 reads position 10",
    "Chunked": "bmm mixes the sequence axis at {leak}: position 0 reads position 3",
}
MODULES = {name: "mixer.conv" for name in ("Convolution", "CutConvolution", "SamePadding", "ReversedConvolution")} | {
    "BatchNorm": "mixer.norm",
    "GroupNorm": "mixer.norm",
    "BackwardLSTM": "mixer.lstm",
}
PARTS = inspect.getfile(Model)


def line_of(name: str, marker: str = "leak") -> int:
    """The line of a leak that ends in a comment of this word."""
    ((_, line),) = registry.marked(LEAKS[name].make, marker)
    return line


def file_of(name: str) -> str:
    return inspect.getfile(LEAKS[name].make)


def built(name: str, leaky: bool) -> nn.Module:
    torch.manual_seed(0)
    model = registry.whole(LEAKS[name].make(leaky))
    return model if name == "BatchNorm" else model.eval()


def tokens(batch: int = 1, seq: int = SEQ) -> Tensor:
    return torch.randint(0, VOCAB, (batch, seq), generator=torch.Generator().manual_seed(0))


@functools.cache
def told(name: str) -> tuple[Blame, Violation]:
    """Of the first violation of a leak."""
    model = built(name, True)
    violation = trace(model, tokens()).violations[0]
    return blame(model, tokens(), violation), violation


def short(name: str, marker: str) -> str:
    return f"{Path(file_of(name)).name}:{line_of(name, marker)}"


@pytest.mark.parametrize("name", SENTENCES)
def test_twin_is_proven(name: str) -> None:
    assert trace(built(name, False), tokens()).proven


@pytest.mark.parametrize("name", SENTENCES)
def test_sentence(name: str) -> None:
    found, _ = told(name)
    marks = {m: short(name, m) for m in ("leak", "caller", "reversed") if f"{{{m}}}" in SENTENCES[name]}
    assert found.sentence == SENTENCES[name].format(seq=SEQ, **marks)


@pytest.mark.parametrize("name", SENTENCES)
def test_place_module_and_chain(name: str) -> None:
    found, violation = told(name)
    assert found.place is not None
    assert (found.place.file, found.place.line) == (file_of(name), line_of(name))
    assert found.module == MODULES.get(name, "mixer")
    assert (found.source, found.position) == (violation.source, violation.position)

    first, last = found.chain[0], found.chain[-1]
    assert first.op == "embedding"
    assert first.module == "embed"
    assert first.effect.startswith(f"position {violation.source}, ")
    assert last.place is not None
    assert (last.place.line, last.module) == (_output_line(), "head")
    assert f"position {violation.position}, " in last.effect
    assert [link for link in found.chain if (link.op, link.place, link.module) == (found.op, found.place, found.module)]


@pytest.mark.parametrize("name", SENTENCES)
def test_every_violation_of_a_leak_leads_to_its_line(name: str) -> None:
    model, ids = built(name, True), tokens(batch=2)
    for violation in trace(model, ids).violations[::3]:
        said = blame(model, ids, violation)
        assert said.place is not None
        assert said.place.line == line_of(name), (violation, said.sentence)
        assert said.chain[0].op == "embedding"
        assert (said.source, said.position) == (violation.source, violation.position)


@pytest.mark.parametrize("name", SENTENCES)
def test_causal_ops_on_the_way_are_not_to_blame(name: str) -> None:
    """The causal twin before a leak, and after it."""
    torch.manual_seed(0)
    twin = LEAKS[name].make(False).eval()
    for order in ((twin, MeanPooled(True)), (MeanPooled(True), twin)):
        model = Model(nn.Sequential(*order)).eval()
        for violation in trace(model, tokens()).violations[::4]:
            found = blame(model, tokens(), violation)
            assert found.place is not None
            assert found.place.line == line_of("MeanPooled"), found.sentence
            assert found.chain[0].op == "embedding"


class DelayInChunks(nn.Module):
    """Each position sums those before it in its chunk of four, without itself."""

    def forward(self, x: Tensor) -> Tensor:
        chunks = nn.functional.pad(x, (0, 0, 0, -x.shape[1] % 4)).unflatten(1, (-1, 4))
        summed = torch.einsum("bcih,ij->bcjh", chunks, torch.ones(4, 4).triu(1))
        return summed.flatten(1, 2)[:, : x.shape[1]]


class DelayByConvolution(nn.Module):
    """Each position sees the two before it."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv1d(HIDDEN, HIDDEN, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(nn.functional.pad(x.transpose(1, 2), (2, -1))).transpose(1, 2)


@pytest.mark.parametrize("delay", [DelayInChunks, DelayByConvolution])
def test_what_only_delays_is_not_to_blame(delay: type[nn.Module]) -> None:
    """The way goes to a later position first, and then to an earlier one."""
    torch.manual_seed(0)
    model = Model(nn.Sequential(delay(), Rolled(True))).eval()
    violation = Violation(0, 4, 6)
    assert violation in trace(model, tokens()).violations
    found = blame(model, tokens(), violation)
    assert found.place is not None
    assert found.place.line == line_of("Rolled")


def test_first_of_several_leaks() -> None:
    """Where the future first comes in, also where the sum has the residual stream last."""

    class Added(nn.Module):
        def __init__(self, mixer: nn.Module):
            super().__init__()
            self.mixer = mixer

        def forward(self, x: Tensor) -> Tensor:
            return self.mixer(x) + x

    torch.manual_seed(0)
    layers = nn.Sequential(*(Added(EagerUnmasked(True)) for _ in range(3)))
    model = Model(layers).eval()
    found = blame(model, tokens(), trace(model, tokens()).violations[2])
    assert found.module == "mixer.0.mixer"


def test_shortest_of_several_ways() -> None:
    """Position 0 sees the last one through the attention alone; what the convolution does to others matters less."""
    torch.manual_seed(0)
    model = Model(nn.Sequential(SamePadding(True), EagerUnmasked(True))).eval()
    found = blame(model, tokens(), trace(model, tokens()).violations[0])
    assert found.place is not None
    assert found.place.line == line_of("EagerUnmasked")


def _output_line() -> int:
    lines = Path(PARTS).read_text().splitlines()
    (number,) = [n for n, line in enumerate(lines, 1) if line.endswith("# output")]
    return number


def test_every_mechanism_has_a_leak(monkeypatch: pytest.MonkeyPatch) -> None:
    spoke = set()

    def listening(name: str, function: sentences.Mechanism) -> sentences.Mechanism:
        def listen(meeting: sentences.Meeting) -> str | None:
            said = function(meeting)
            if said is not None:
                spoke.add(name)
            return said

        return listen

    for name, function in list(sentences.MECHANISMS.items()):
        monkeypatch.setitem(sentences.MECHANISMS, name, listening(name, function))
    told.cache_clear()
    for name in SENTENCES:
        told(name)
    assert spoke == set(sentences.MECHANISMS)


def test_a_mechanism_has_one_name() -> None:
    with pytest.raises(ValueError, match="two mechanisms"):
        sentences.mechanism(sentences.convolution)


def test_method1_as_published_names_the_attention_call_and_the_mask() -> None:
    subject = load("method1_v3_as_published")
    subject.model.set_attn_implementation("sdpa")
    ids = torch.randint(0, subject.vocab_size, (1, 19), generator=torch.Generator().manual_seed(0))
    found = blame(subject.model, ids, trace(subject.model, ids).violations[0])
    assert found.place is not None
    assert found.place.function == "Method1LlamaAttention_v3.forward"
    assert found.module == "model.layers.0.self_attn"
    said = r"attention runs without a mask: `attention_mask` is None at (\S+):(\d+), called from (\S+):(\d+)"
    match = re.fullmatch(said, found.sentence)
    assert match is not None, found.sentence
    assert match[1] == match[3] == Path(found.place.file).name
    lines = Path(found.place.file).read_text().splitlines()
    assert "super().forward(" in lines[int(match[2]) - 1]
    assert "self.self_attn(" in lines[int(match[4]) - 1]


def llama(layers: int, attention: str) -> nn.Module:
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "intermediate_size": 56, "num_attention_heads": 4, "num_key_value_heads": 2}
    config = LlamaConfig(vocab_size=VOCAB, num_hidden_layers=layers, attn_implementation=attention, **sizes)
    return LlamaForCausalLM(config).eval()


def test_library_model_without_its_mask() -> None:
    """The line is the one in the model's own file, not in the library's attention function."""
    model = llama(4, "sdpa")
    for layer in model.model.layers:
        layer.self_attn.is_causal = False
    ids = tokens(seq=19)
    violation = trace(model, ids).violations[3]
    found = blame(model, ids, violation)
    assert found.module == "model.layers.0.self_attn"  # where it first comes in
    assert found.place is not None
    assert found.place.file == modeling_llama.__file__
    assert re.match(r"attention runs without a mask: `attention_mask` is None at modeling_llama.py:", found.sentence)
    assert found.op.startswith("_scaled_dot_product")
    assert "model.layers.0.self_attn.v_proj" in [link.module for link in found.chain]  # by its value, not by its key


def test_leak_in_a_late_layer_and_a_short_chain(monkeypatch: pytest.MonkeyPatch) -> None:
    model = llama(30, "eager")
    forward = modeling_llama.LlamaAttention.forward

    def unmasked(self: nn.Module, *args: object, attention_mask: Tensor | None = None, **kwargs: object) -> object:
        if self.layer_idx == 28:
            attention_mask = None
        return forward(self, *args, attention_mask=attention_mask, **kwargs)

    monkeypatch.setattr(modeling_llama.LlamaAttention, "forward", unmasked)
    ids = tokens(seq=19)
    found = blame(model, ids, trace(model, ids).violations[5])
    assert found.module == "model.layers.28.self_attn"
    assert "`attention_mask` is None" in found.sentence
    assert len(found.chain) < 16
    assert any(link.op == "..." for link in found.chain)


def test_own_forward_is_called_in_place_of_the_model() -> None:
    model, ids = built("MeanPooled", True), tokens(batch=2)
    calls = []

    def run(token_ids: Tensor) -> Tensor:
        calls.append(token_ids)
        return model(token_ids)

    found = blame(model, ids, Violation(1, 4, SEQ - 1), run=run)
    assert [call is ids for call in calls] == [True]
    assert found.place is not None
    assert (found.place.line, found.module) == (line_of("MeanPooled"), "mixer")
    assert f"[2, {SEQ}, 12]" in found.sentence


def test_batch_as_large_as_the_sequence() -> None:
    """The axes of the input are known, whatever their sizes."""
    model, ids = built("MeanPooled", True), tokens(batch=SEQ)
    found = blame(model, ids, Violation(3, 4, SEQ - 1), run=model)
    assert found.place is not None
    assert found.place.line == line_of("MeanPooled")


def test_a_mode_of_torch_functions_is_not_to_blame() -> None:
    class PassesOn(TorchFunctionMode):
        def __torch_function__(self, func, types, args=(), kwargs=None):
            return func(*args, **(kwargs or {}))

    model, ids = built("MeanPooled", True), tokens()

    def run(token_ids: Tensor) -> Tensor:
        with PassesOn():
            return model(token_ids)

    found = blame(model, ids, Violation(0, 4, SEQ - 1), run=run)
    assert found.place is not None
    assert (found.place.line, found.module) == (line_of("MeanPooled"), "mixer")


def test_only_calls_inside_the_model_are_named() -> None:
    class Bare(Attention):
        def forward(self, x: Tensor) -> Tensor:
            return self.merge(nn.functional.scaled_dot_product_attention(*self.split(x)))

    model = Model(Bare(True)).eval()

    def run(token_ids: Tensor, attention_mask: None = None) -> Tensor:
        return model(token_ids)

    found = blame(model, tokens(), Violation(0, 1, SEQ - 1), run=run)
    assert re.fullmatch(r"attention runs without a mask at \S+: position 1 reads position 10", found.sentence)


def test_keyword_arguments() -> None:
    model, ids = llama(2, "eager"), tokens(seq=19)
    inputs = {"input_ids": ids, "attention_mask": torch.ones(1, 1, 19, 19), "use_cache": False}  # adds 1 everywhere
    found = blame(model, inputs, trace(model, inputs).violations[0])
    assert found.sentence.startswith("attention runs without a mask")
    assert "does not reach it" in found.sentence


def test_labels_along_the_batch() -> None:
    class Centred(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed, self.head = nn.Embedding(VOCAB, HIDDEN), nn.Linear(HIDDEN, VOCAB)

        def forward(self, ids: Tensor) -> Tensor:
            x = self.embed(ids)
            return self.head(x - x.mean(0))

    model, ids = Centred().eval(), tokens(batch=5)
    labels = torch.arange(5)[:, None].expand(5, SEQ)
    violation = trace(model, ids, labels).violations[0]
    found = blame(model, ids, violation, labels)
    assert re.match(r"mean over the batch axis \(dim 0 of \[5, 11, 12\]\) at .*: row 0 reads row 4", found.sentence)
    assert (found.position, found.source) == (0, 4)


def test_length_that_is_also_another_size() -> None:
    """The replay is longer then, so that positions can be told from features; the violation is the same."""
    torch.manual_seed(0)
    model = Model(MeanPooled(True)).eval()
    ids = tokens(seq=HIDDEN)
    for violation in trace(model, ids).violations:
        found = blame(model, ids, violation)
        assert found.place is not None
        assert found.place.line == line_of("MeanPooled")
        assert (found.position, found.source) == (violation.position, violation.source)


def test_tokens_added_for_the_replay_are_never_the_source() -> None:
    """Behind the last token there are others then, and another one is the last."""
    model, ids = built("LastToken", True), tokens(seq=HIDDEN)
    found = blame(model, ids, trace(model, ids).violations[0])
    assert (found.position, found.source) == (0, HIDDEN - 1)
    assert found.chain[0].effect.startswith(f"position {HIDDEN - 1} ")


def test_function_without_modules() -> None:
    table, head = torch.randn(VOCAB, HIDDEN), torch.randn(HIDDEN, VOCAB)

    def model(ids: Tensor) -> Tensor:
        return table[ids].flip(1) @ head

    found = blame(model, tokens(), trace(model, tokens()).violations[0])
    assert found.module == ""
    assert found.op == "flip"
    assert found.place is not None
    assert found.place.function.endswith("model")


def test_a_violation_that_is_not_there_is_refused() -> None:
    with pytest.raises(UsageError, match="position 2 of row 0 does not see an input with label 7"):
        blame(built("MeanPooled", False), tokens(), Violation(0, 2, 7))


def test_nothing_is_left_behind() -> None:
    model, ids = built("ExpertChoice", True), tokens()
    before = model(ids)
    blame(model, ids, trace(model, ids).violations[0])
    assert torch.equal(model(ids), before)
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())
    assert not any(vars_of(t) for t in (*model.parameters(), ids))


def vars_of(tensor: Tensor) -> dict[str, object]:
    return {k: v for k, v in vars(tensor.untyped_storage()).items() if isinstance(getattr(v, "mirror", None), Mirror)}


@pytest.mark.parametrize(
    "view",
    [
        lambda t: t,
        lambda t: t.transpose(0, 2),
        lambda t: t[1:, ::2, 3:],
        lambda t: t[:, 2],
        lambda t: t.permute(1, 2, 0)[:, 1:4],
        lambda t: t.view(15, 7)[4:, 1:],
    ],
)
def test_layout_finds_elements(view) -> None:
    """Against the storage itself, which holds its own element numbers."""
    whole = torch.arange(3 * 5 * 7).reshape(3, 5, 7)
    tensor = view(whole)
    layout = Layout.of(tensor, 1)
    shown = {}
    for at in torch.cartesian_prod(*(torch.arange(n) for n in tensor.shape)).tolist():
        shown[int(tensor[tuple(at)])] = tuple(at)
        assert layout.byte(at) == int(tensor[tuple(at)]) * whole.element_size()
    for number in range(whole.numel()):
        assert layout.at(number * whole.element_size()) == shown.get(number)


def test_layout_sees_an_axis_through_another_view() -> None:
    whole = torch.arange(2 * 5 * 3).reshape(2, 5, 3)
    view = whole.view(10, 3)[1:, 1:]
    rows = Layout.of(whole, 1).seen_as(Layout.of(view, 1), (1,))
    assert torch.equal(rows.expand(view.shape), view // 3 % 5)


def test_rows_by_axis_by_chunks_and_flattened() -> None:
    axis = Axis("sequence", 12, 2)
    assert axis.rows((2, 12, 5), (1, 7, 3)) == [7]
    assert axis.rows((2, 12, 12), (1, 7, 3)) == [7, 3]
    assert axis.rows((2, 3, 4, 5), (1, 2, 1, 0)) == [9]
    assert axis.rows((24, 5), (19, 0)) == [7]
    assert Axis("batch", 2, 12).rows((24, 5), (19, 0)) == [1]
    assert axis.rows((2, 5), (1, 3)) == []
    assert axis.row((2, 12, 12), (1, 7, 3)) is None
