"""Each law sees what is planted against it, and says where; of the clean twin it says nothing."""

import pytest
import torch
from torch import nn

from leakcheck import laws
from leakcheck.errors import SubjectCrash
from leakcheck.laws import LAWS, Append, Broken, Crop, NotApplicable, Reorder, Reset, Vacuous, registry, soundness
from tests.laws.planted import PLANTED, Planted, Wrapped, unchanged
from tests.models import VOCAB, gpt2, llama, mamba, mamba2, mistral, mixtral, reading, so_far, successor, toy

TOKENS = torch.randint(VOCAB, (3, 11), generator=torch.Generator().manual_seed(0))
OTHERS = (TOKENS + 1) % VOCAB
CHANGED = torch.cat([TOKENS[:, :9], OTHERS[:, 9:]], 1)
THREE = Append(((1,), (2,), (3,)))
EVERYTHING = [*laws.chunks(TOKENS, [3, 4, 1, 1, 2]), Crop(2), THREE, Reorder((2, 1, 1)), THREE, Reset(), THREE]

GIVEN = {
    "causal": {"tokens": TOKENS, "changed": CHANGED},
    "prefix_consistent": {"tokens": TOKENS, "length": 10},
    "repeatable": {"tokens": TOKENS, "between": OTHERS},
    "batch_independent": {"tokens": TOKENS, "order": [2, 0, 1]},
    "padding_unseen": {"tokens": TOKENS, "changed": OTHERS, "lengths": [11, 8, 3], "side": "left"},
    "padding_invariant": {"tokens": TOKENS, "lengths": [11, 8, 3], "side": "left"},
    "documents_independent": {"tokens": TOKENS[:1], "lengths": [4, 1, 6]},
    "cache_consistent": {"steps": EVERYTHING},
    "flow_is_sound": {"tokens": TOKENS[:1], "changed": CHANGED[:1]},
}


def keeps(law: str, model: nn.Module) -> None:
    LAWS[law](model, **GIVEN[law])


@pytest.mark.parametrize("name", PLANTED)
def test_a_planted_break_is_seen(name: str) -> None:
    planted: Planted = PLANTED[name]
    with pytest.raises(Broken) as broken:
        keeps(planted.law, planted.broken())
    found = broken.value.counterexample
    assert found.law == planted.law
    assert found.delta > found.rounding
    assert found.module == planted.first or not planted.first
    assert f"position {found.position} of row {found.row}" in str(found)
    assert found.inputs.keys() == GIVEN[planted.law].keys()


@pytest.mark.parametrize("name", PLANTED)
def test_its_clean_twin_keeps_the_law(name: str) -> None:
    keeps(PLANTED[name].law, PLANTED[name].clean())


class Cancelling(nn.Module):
    """What cancels is of size 1, and rounded otherwise in a batch; what is left is a thousandth of it."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(VOCAB, 4)

    def forward(self, input_ids: torch.Tensor) -> torch.Tensor:
        summed = 1 + 1e-3 * self.embedding(input_ids).tanh() + 4e-16 * (len(input_ids) > 1)
        return summed - 1


def test_rounding_before_a_cancellation_breaks_no_law() -> None:
    keeps("batch_independent", Cancelling())


def test_every_law_has_a_planted_break() -> None:
    assert {planted.law for planted in PLANTED.values()} | {"flow_is_sound"} == LAWS.keys() == GIVEN.keys()


@pytest.mark.parametrize("build", [llama, gpt2, mixtral])
@pytest.mark.parametrize("law", LAWS)
def test_models_of_the_library_keep_every_law(build, law: str) -> None:
    keeps(law, build())


@pytest.mark.parametrize("build", [mistral, mamba, mamba2])
@pytest.mark.parametrize("law", ["causal", "prefix_consistent", "repeatable", "batch_independent", "padding_unseen"])
def test_windows_and_recurrences_keep_the_laws_that_they_can(build, law: str) -> None:
    keeps(law, build())


def test_a_counterexample_names_its_layer() -> None:
    with pytest.raises(Broken) as broken:
        keeps("causal", PLANTED["successor"].broken())
    assert broken.value.counterexample.layer == 1
    with pytest.raises(Broken) as broken:
        keeps("repeatable", PLANTED["memory"].broken())
    assert broken.value.counterexample.layer is None


# --- flow -------------------------------------------------------------------------------------------------------------


def test_flow_that_claims_too_much_is_unsound(monkeypatch: pytest.MonkeyPatch) -> None:
    clean = soundness.trace(llama(), TOKENS[:1])
    monkeypatch.setattr(soundness, "trace", lambda model, tokens: clean)
    leaking = reading(llama, "model.layers.1.mlp", successor, "3e-7 of it")
    with pytest.raises(Broken, match="flow says that nothing here reads position 9"):
        keeps("flow_is_sound", leaking)


def test_flow_that_claims_nothing_is_not_sound() -> None:
    with pytest.raises(NotApplicable, match="claims nothing"):
        keeps("flow_is_sound", toy(lambda x: x.flip(1).cumsum(1) + x.mean(1, keepdim=True)))


# --- decoding ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("step", [Crop(1), Reorder((1, 0, 2))])
def test_one_step_that_goes_wrong_is_enough(step: laws.Step) -> None:
    name = "a layer is cropped and reordered wrongly"
    steps = [Append(((1, 2), (3, 4), (5, 6))), step, THREE]
    with pytest.raises(Broken) as broken:
        laws.cache_consistent(PLANTED[name].broken(), steps)
    assert "layers.1.self_attn" in broken.value.counterexample.module
    laws.cache_consistent(PLANTED[name].clean(), steps)


@pytest.mark.parametrize("build", [mistral, mamba2])
def test_what_a_cache_cannot_do_is_not_applicable_and_changes_nothing(build) -> None:
    decoding = laws.Decoding(build())
    for step in laws.chunks(TOKENS[:, :8], [6, 1, 1]):
        decoding.take(step)
    with pytest.raises(NotApplicable, match="refuses crop"):
        decoding.take(Crop(1))
    decoding.take(THREE)
    assert decoding.tokens.shape == (3, 9)


def test_mamba_decodes_token_by_token() -> None:
    laws.cache_consistent(mamba(), laws.chunks(TOKENS, [4, *[1] * 7]))


def test_mamba_forgets_its_state_where_a_chunk_follows() -> None:
    """As transformers has it: several tokens behind a cache are taken for a prompt."""
    with pytest.raises(Broken, match="3 tokens behind 4 in the cache"):
        laws.cache_consistent(mamba(), laws.chunks(TOKENS[:, :7], [4, 3]))


# --- what says nothing ------------------------------------------------------------------------------------------------


class OnlyFloat32(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if x.dtype != torch.float32:
            raise RuntimeError("this kernel has no float64")
        return so_far(x)


class Raising(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        raise RuntimeError("no way")


def undefined() -> nn.Module:
    return toy(lambda x: so_far(x) * torch.nan)


@pytest.mark.parametrize(
    ("law", "build", "reason"),
    [
        ("cache_consistent", lambda: toy(so_far), "takes no cache"),
        ("padding_unseen", lambda: toy(so_far), "takes no attention mask"),
        ("padding_invariant", mamba, "takes no position_ids"),
        ("documents_independent", lambda: toy(so_far), "does not tell packed documents apart"),
        ("documents_independent", lambda: Wrapped(llama(), lambda given: given | {"position_ids": None}), "apart"),
        ("causal", lambda: toy(OnlyFloat32()), "does not run in float64"),
    ],
)
def test_what_does_not_apply_is_said(law: str, build, reason: str) -> None:
    with pytest.raises(NotApplicable, match=reason):
        keeps(law, build())


@pytest.mark.parametrize("law", ["causal", "batch_independent", "prefix_consistent"])
@pytest.mark.parametrize("build", [lambda: toy(Raising()), undefined])
def test_a_model_that_cannot_be_compared_is_no_pass(law: str, build) -> None:
    with pytest.raises(SubjectCrash):
        keeps(law, build())


@pytest.mark.parametrize(
    ("law", "given"),
    [
        ("causal", {"tokens": TOKENS, "changed": TOKENS}),
        ("causal", {"tokens": TOKENS, "changed": OTHERS}),
        ("prefix_consistent", {"tokens": TOKENS, "length": 11}),
        ("batch_independent", {"tokens": TOKENS[:1], "order": [0]}),
        ("padding_unseen", {**GIVEN["padding_unseen"], "changed": TOKENS}),
        ("padding_invariant", {**GIVEN["padding_invariant"], "lengths": [11, 11, 11]}),
        ("documents_independent", {"tokens": TOKENS[:1], "lengths": [11]}),
        ("cache_consistent", {"steps": [Reset()]}),
        ("cache_consistent", {"steps": [Crop(1), *EVERYTHING]}),
        ("flow_is_sound", {"tokens": TOKENS[:1], "changed": TOKENS[:1]}),
    ],
)
def test_inputs_that_show_nothing_are_vacuous(law: str, given: dict) -> None:
    with pytest.raises(Vacuous):
        LAWS[law](llama(), **given)


def test_a_model_that_ignores_its_inputs_is_vacuous() -> None:
    with pytest.raises(Vacuous, match="moved no output"):
        keeps("causal", toy(lambda x: -x))


# --- the model that is given ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("law", LAWS)
def test_the_model_is_as_before(law: str) -> None:
    model = toy(nn.Dropout(0.5)) if law == "repeatable" else Wrapped(llama(), unchanged)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    random = torch.get_rng_state()
    keeps(law, model)
    assert torch.equal(random, torch.get_rng_state())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert {p.dtype for p in model.parameters()} == {torch.float32}


def test_a_name_is_taken_once() -> None:
    with pytest.raises(ValueError, match="there is a law 'causal' already"):
        registry.law(laws.causal)
