"""Policies beside causality, on models of the library: what is planted is found, its clean twin is not, as brute force
says of both."""

import copy
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from leakcheck import Settings, audit, codes
from leakcheck.auditing.context import Context
from leakcheck.auditing.policies import POLICIES, Judge, Policed, PolicyOutcome, asked_for, policy, registry
from leakcheck.auditing.policies.question import Order, Question
from leakcheck.auditing.policies.telling import told
from leakcheck.checkpoints import plan_for
from leakcheck.config import Configuration
from leakcheck.errors import NothingChecked, SubjectCrash, UsageError
from leakcheck.findings import Verdict
from leakcheck.probes.groups import Mix
from leakcheck.probes.probe import Prober
from leakcheck.report import view
from tests import models
from tests.models import VOCAB

SEQ = 13
EVAL, TRAIN = Configuration("default", "none", "eval"), Configuration("default", "none", "train")
LEFT, RIGHT = Configuration("default", "left-padded", "eval"), Configuration("default", "right-padded", "eval")


def judged(model: nn.Module, name: str, configuration: Configuration = EVAL, seq: int = SEQ) -> PolicyOutcome:
    prober = Prober(model, plan_for, seq=seq, vocab_size=VOCAB, seed=0)
    return Judge(prober).judge(POLICIES[name], configuration)


# --- what is planted in a LLaMA or a GPT-2 ----------------------------------------------------------------------------


class Beside(nn.Module):
    """A module of the model, and what `extra` makes of its output `[batch, seq, hidden]` added to it."""

    def __init__(self, inner: nn.Module, extra: Callable[[Tensor], Tensor]):
        super().__init__()
        self.inner, self.extra = inner, extra

    def forward(self, x: Tensor) -> Tensor:
        y = self.inner(x)
        return y + self.extra(y)


def llama_with(extra: Callable[[Tensor], Tensor]) -> nn.Module:
    model = models.llama()
    model.model.layers[0].mlp = Beside(model.model.layers[0].mlp, extra)
    return model


def without_mask(leaky: bool) -> nn.Module:
    """A LLaMA that takes a mask of the padding; without it in the leaking one."""
    model = models.llama(attn_implementation="eager")

    def drop(module: nn.Module, args: tuple, kwargs: dict) -> tuple[tuple, dict]:
        return args, {**kwargs, "attention_mask": None}

    if leaky:
        model.model.register_forward_pre_hook(drop, with_kwargs=True)
    return model


def with_positions_only(leaky: bool) -> nn.Module:
    """Positions begin anew with each document; the leaking one is given a mask too, so that no packing is seen."""
    model = models.llama(attn_implementation="eager")

    def give(module: nn.Module, args: tuple, kwargs: dict) -> tuple[tuple, dict]:
        ids = args[0] if args else kwargs["input_ids"]
        return args, {**kwargs, "attention_mask": torch.ones_like(ids)}

    if leaky:
        model.model.register_forward_pre_hook(give, with_kwargs=True)
    return model


def with_positions_from_zero(leaky: bool) -> nn.Module:
    """A GPT-2 whose positions are counted from zero again with each piece that is decoded."""
    model = models.gpt2(attn_implementation="eager")

    def count(module: nn.Module, args: tuple, kwargs: dict) -> tuple[tuple, dict]:
        ids = args[0] if args else kwargs["input_ids"]
        return args, {**kwargs, "position_ids": torch.arange(ids.shape[1])[None]}

    if leaky:
        model.transformer.register_forward_pre_hook(count, with_kwargs=True)
    return model


def with_an_open_chunk(leaky: bool) -> nn.Module:
    """A LLaMA whose kernel is given no mask for a piece that is decoded onto a cache."""
    model = models.llama(attn_implementation="eager")

    def drop(module: nn.Module, args: tuple, kwargs: dict) -> tuple[tuple, dict]:
        onto = kwargs["past_key_values"] is not None and kwargs["past_key_values"].get_seq_length() > 0
        return args, {**kwargs, "attention_mask": None if onto else kwargs["attention_mask"]}

    if leaky:
        for layer in model.model.layers:
            layer.register_forward_pre_hook(drop, with_kwargs=True)
    return model


BATCH = {
    "mean of the rows": (lambda y: 0.1 * y.mean(0, keepdim=True), lambda y: 0.1 * y.mean(-1, keepdim=True)),
    "a row reads the one after it": (lambda y: y.roll(-1, 0), lambda y: y.roll(1, -1)),
    "a row reads the first": (lambda y: 1e-6 * y[:1], lambda y: 1e-6 * y),
    "rounded": (lambda y: y.amax(0, keepdim=True).round(), lambda y: y.round()),
}


def moves(model: nn.Module, run: Callable[[nn.Module, Tensor], Tensor], changed: Tensor) -> Tensor:
    """Brute force in float64: how far each output `[rows, seq]` moves when the inputs in `changed` get other tokens."""
    model = copy.deepcopy(model).double().eval()
    base = torch.randint(VOCAB, changed.shape, generator=torch.Generator().manual_seed(5))
    other = torch.where(changed, (base + 7) % VOCAB, base)
    with torch.no_grad():
        return (run(model, other) - run(model, base)).abs().amax(-1)


def plain(model: nn.Module, ids: Tensor) -> Tensor:
    return model(ids, use_cache=False).logits


@pytest.mark.parametrize("what", BATCH)
def test_rows_of_a_batch(what: str) -> None:
    leak, twin = (llama_with(extra) for extra in BATCH[what])
    rows = torch.arange(3)[:, None].expand(3, SEQ)
    for model, reached in ((leak, True), (twin, False)):
        by_others = [moves(model, plain, rows == row)[rows != row].max().item() for row in range(3)]
        assert (max(by_others) > 1e-9) == reached
    found, clean = judged(leak, "batch"), judged(twin, "batch")
    assert found.verdict is Verdict.LEAK
    assert found.moved
    assert found.violations
    assert found.blame
    assert found.blame.place.file == __file__
    assert clean.verdict is Verdict.PROVEN
    assert clean.moved == 0.0
    assert clean.violations == ()
    assert all(control.caught for control in (*found.controls, *clean.controls))


def test_rows_that_a_gate_keeps_apart_for_now_are_a_suspicion() -> None:
    class Gated(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.gate = nn.Parameter(torch.zeros(()))

        def forward(self, y: Tensor) -> Tensor:
            return self.gate * y.mean(0, keepdim=True)

    outcome = judged(llama_with(Gated()), "batch")
    assert outcome.verdict is Verdict.SUSPECT
    assert outcome.moved == 0.0
    assert outcome.violations


def test_batch_statistics_in_train_mode_alone() -> None:
    class Normed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm = nn.BatchNorm1d(models.HIDDEN)

        def forward(self, y: Tensor) -> Tensor:
            return self.norm(y.transpose(1, 2)).transpose(1, 2)

    model = llama_with(Normed())
    assert judged(model, "batch").verdict is Verdict.PROVEN
    assert judged(model, "batch", TRAIN).verdict is Verdict.LEAK
    accepted = Configuration("default", "none", "train", accepted=("model.layers.0.mlp.extra.norm",))
    assert judged(model, "batch", accepted).verdict is Verdict.PROVEN


def test_without_a_planted_leak_that_was_seen_nothing_is_proven(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Question, "leak", lambda self, order: None)
    outcome = judged(models.llama(), "batch")
    assert outcome.answers[0].proven
    assert outcome.verdict is Verdict.OPEN


def test_a_sequence_too_short_for_chunks_is_still_compared() -> None:
    outcome = judged(models.llama(), "cache", seq=5)
    assert [answer.question.code for answer in outcome.answers] == [codes.CACHE_DISAGREES] * 2
    assert outcome.verdict is Verdict.OPEN
    assert outcome.pairs


def test_what_float64_takes_for_rounding_is_none() -> None:
    """A sum over rows and one of the same taken away: it moves in float32, by rounding alone."""
    outcome = judged(llama_with(lambda y: (y + 300 * y.sum(0, keepdim=True)) - 300 * y.sum(0, keepdim=True)), "batch")
    assert outcome.answers[0].moved.rounding > 0
    assert outcome.moved == 0.0
    assert outcome.verdict is Verdict.SUSPECT  # flow does not know that it cancels


# --- documents, padding -----------------------------------------------------------------------------------------------


def test_documents() -> None:
    index = torch.tensor([0] * 4 + [1] * 3 + [2] * 6)
    positions = torch.cat([torch.arange(n) for n in (4, 3, 6)])

    def packed(model: nn.Module, ids: Tensor) -> Tensor:
        return model(ids, position_ids=positions[None].expand_as(ids), use_cache=False).logits

    for leaky in (True, False):
        model = with_positions_only(leaky)
        moved = moves(model, packed, (index == 0)[None])[0]
        assert (moved[index != 0].max().item() > 1e-9) == leaky
        outcome = judged(model, "document")
        assert outcome.verdict is (Verdict.LEAK if leaky else Verdict.PROVEN)
        assert bool(outcome.violations) == leaky
        assert all(control.caught for control in outcome.controls)


def test_documents_are_numbered_in_whatever_way_the_forward_takes() -> None:
    """By numbers, borders or positions: the value that is given tells the same documents."""
    seen: dict[str, Tensor] = {}

    class Taking(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed, self.head = nn.Embedding(VOCAB, 8), nn.Linear(8, VOCAB)

        def forward(self, ids: Tensor, segment_ids: Tensor = None, cu_seqlens: Tensor = None) -> Tensor:
            seen.update(segment_ids=segment_ids, cu_seqlens=cu_seqlens)
            return self.head(self.embed(ids))

    assert judged(Taking(), "document").verdict is Verdict.PROVEN
    numbers, borders = seen["segment_ids"][0], seen["cu_seqlens"]
    assert len(seen["segment_ids"]) == 1  # borders are those of one row
    assert numbers.unique_consecutive(return_counts=True)[1].tolist() == borders.diff().tolist()
    assert len(borders) == 4
    assert borders[0] == 0
    assert borders[-1] == SEQ


@pytest.mark.parametrize("configuration", [LEFT, RIGHT], ids=lambda c: c.mask)
def test_padding(configuration: Configuration) -> None:
    valid = torch.ones(SEQ, dtype=torch.bool)
    valid[:3] = configuration.mask == "right-padded"
    valid[-3:] &= configuration.mask == "left-padded"

    def masked(model: nn.Module, ids: Tensor) -> Tensor:
        return model(ids, attention_mask=valid.long()[None].expand_as(ids), use_cache=False).logits

    for leaky in (True, False):
        model = without_mask(leaky)
        reached = moves(model, masked, ~valid[None])[0, valid].max().item() > 1e-9
        assert reached == (leaky and configuration.mask == "left-padded")  # what is right is later, and hidden anyway
        outcome = judged(model, "padding", configuration)
        assert outcome.verdict is (Verdict.LEAK if reached else Verdict.PROVEN)
        assert bool(outcome.violations) == reached


def test_padding_is_asked_where_there_is_some() -> None:
    assert judged(models.llama(), "padding", EVAL).verdict is Verdict.NOT_APPLICABLE


# --- a cache ----------------------------------------------------------------------------------------------------------


def decoded(model: nn.Module, ids: Tensor, sizes: tuple[int, ...]) -> Tensor:
    cache, pieces = None, []
    for piece in ids.split(list(sizes), 1):
        output = model(piece, past_key_values=cache, use_cache=True)
        cache = output.past_key_values
        pieces.append(output.logits)
    return torch.cat(pieces, 1)


@pytest.mark.parametrize(
    ("planted", "code"), [(with_positions_from_zero, "LC301"), (with_an_open_chunk, "LC302")], ids=["LC301", "LC302"]
)
def test_a_cache(planted: Callable[[bool], nn.Module], code: str) -> None:
    ids = torch.randint(VOCAB, (2, SEQ), generator=torch.Generator().manual_seed(3))
    later = (torch.arange(SEQ) >= 11)[None]
    for leaky in (True, False):
        model = planted(leaky)
        with torch.no_grad():
            double = copy.deepcopy(model).double()
            apart = (decoded(double, ids, (5, 4, 4)) - plain(double, ids)).abs().max().item()
        assert (apart > 1e-9) == leaky
        shown = moves(model, lambda m, i: decoded(m, i, (5, 4, 4)), later)[0, :11].max().item() > 1e-9
        assert shown == (leaky and code == "LC302")
        outcome = judged(model, "cache")
        assert outcome.verdict is (Verdict.LEAK if leaky else Verdict.OPEN)  # that two ways agree is never proven
        guilty = {a.question.code.id for a in outcome.answers if a.verdict is Verdict.LEAK}
        assert (code in guilty) == leaky
        assert bool(outcome.violations) == shown
        assert not outcome.crash
        assert all(control.caught for control in outcome.controls)


def test_what_the_full_forward_shows_as_well_is_no_matter_of_the_cache() -> None:
    """A position reads its successor, with a cache or without."""
    outcome = judged(llama_with(models.successor), "cache")
    future = next(a for a in outcome.answers if a.question.code is codes.CACHE_SHOWS_FUTURE)
    assert future.verdict is Verdict.OPEN
    assert outcome.verdict is Verdict.LEAK  # they disagree: a token alone has no successor to read


def test_a_chunk_onto_the_state_of_a_mamba_starts_anew() -> None:
    """transformers 5.23 drops the state there; 2 keeps it. Nothing planted: brute force says the same."""
    for model, agrees in ((models.mamba(), False), (models.mamba2(), True)):
        ids = torch.randint(VOCAB, (2, 8), generator=torch.Generator().manual_seed(3))
        double = copy.deepcopy(model).double()
        with torch.no_grad():
            first = double(ids[:, :4], use_cache=True)
            rest = double(ids[:, 4:], cache_params=first.cache_params, use_cache=True).logits
            apart = (rest - double(ids, use_cache=False).logits[:, 4:]).abs().max().item()
        assert (apart < 1e-9) == agrees
        assert (judged(model, "cache").verdict is Verdict.LEAK) != agrees


@pytest.mark.parametrize(("apart", "verdict"), [(1e-8, Verdict.OPEN), (1e-6, Verdict.LEAK)])
def test_one_rounding_of_a_constant_in_float32_is_no_disagreement(apart: float, verdict: Verdict) -> None:
    class Rounded(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed, self.head = nn.Embedding(VOCAB, 8), nn.Linear(8, VOCAB)

        def forward(self, ids: Tensor, past_key_values: Tensor | None = None, use_cache: bool = False) -> tuple:
            return self.head(self.embed(ids)) * (1 + apart * use_cache), ids

    outcome = judged(Rounded(), "cache")
    assert outcome.verdict is verdict
    assert (outcome.moved == 0.0) == (verdict is Verdict.OPEN)


def test_a_cache_is_asked_for_in_eval_mode_and_of_models_that_have_one() -> None:
    assert judged(models.llama(), "cache", TRAIN).verdict is Verdict.NOT_APPLICABLE
    assert judged(nn.Sequential(nn.Embedding(VOCAB, 8), nn.Linear(8, VOCAB)), "cache").verdict is Verdict.NOT_APPLICABLE


def test_a_cache_that_cannot_be_decoded_onto_is_said_and_no_pass() -> None:
    class Forgetful(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed, self.head = nn.Embedding(VOCAB, 8), nn.Linear(8, VOCAB)

        def forward(self, ids: Tensor, past_key_values: Tensor = None, use_cache: bool = False) -> tuple:
            return (self.head(self.embed(ids)),)

    outcome = judged(Forgetful(), "cache")
    assert outcome.verdict is Verdict.OPEN
    assert "returned no past_key_values" in outcome.crash
    with pytest.raises(SubjectCrash, match="returned no past_key_values"):
        audit(Forgetful(), Settings(policies=("cache",)))
    beside = audit(Forgetful(), Settings(policies=("cache", "batch")))
    assert beside.verdict is Verdict.OPEN
    assert [(f.code, f.policy) for f in beside.findings] == [("LC904", "cache")]


# --- correct models ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["llama", "mistral", "mixtral"])
def test_no_policy_cries_over_a_model_of_the_library(name: str) -> None:
    model = models.LIBRARY[name]()
    attention = "eager" if name == "mistral" else "sdpa"
    for mask in ("none", "left-padded"):
        configuration = Configuration(attention, mask, "eval")
        verdicts = {policy: judged(model, policy, configuration).verdict for policy in POLICIES}
        padded = mask != "none"
        assert verdicts == {
            "batch": Verdict.PROVEN,
            "cache": Verdict.OPEN,
            "document": Verdict.NOT_APPLICABLE if padded else Verdict.PROVEN,
            "padding": Verdict.PROVEN if padded else Verdict.NOT_APPLICABLE,
        }


# --- questions, findings, reports -------------------------------------------------------------------------------------


def test_a_planted_leak_lies_within_one_chunk_and_its_twin_within_what_may_be_seen() -> None:
    at = torch.arange(8).expand(2, -1)
    question = Question(
        code=codes.CACHE_SHOWS_FUTURE,
        what="",
        run=plain,
        tokens=at,
        valid=torch.ones(2, 8, dtype=torch.bool),
        orders=(Order(at, at),),
        groups=(("later", at >= 6),),
        chunks=(5, 3),
    )
    leak, clean = question.leak(question.orders[0]), question.clean(question.orders[0])
    assert isinstance(leak, Mix)
    assert isinstance(clean, Mix)
    assert leak.targets.nonzero().tolist() == [[1, 5], [1, 6]]
    assert (leak.row, leak.position) == (1, 7)
    assert clean.targets.nonzero().tolist() == [[1, 6]]
    assert (clean.row, clean.position) == (1, 5)
    (change,) = question.changes
    assert change.blind[0].tolist() == [True] * 6 + [False] * 2
    assert question.pairs == 4 * 12


def test_findings_name_the_line_the_witness_and_the_command(in_eval_mode) -> None:
    leak = BATCH["mean of the rows"][0]
    result = audit(llama_with(leak), Settings(policies=("batch",), attention=("sdpa",), seed=2))
    assert result.verdict is Verdict.LEAK
    assert {frozenset(c.policies) for c in result.configurations} == {frozenset({"batch"})}
    assert all(c.policy_deltas["batch"] > 0 and c.pairs_covered for c in result.configurations)
    finding = result.findings[0]
    assert (finding.code, finding.policy, finding.verdict) == ("LC401", "batch", Verdict.LEAK)
    assert finding.file.endswith("test_policies.py")
    assert finding.line
    assert finding.chain
    assert finding.witness["seed"] == 2
    assert finding.witness["changed"].startswith("row ")
    assert "policies=('batch',)" in finding.reproduce
    assert view.headline(result).startswith("LEAK: a row of the batch reaches another. batch: LEAK in 4 of 4")
    titles = [section.title for section in view.sections(result)]
    assert titles[:2] == ["Policies", "Configurations"]
    assert "Checkpoints" not in titles


def test_a_policy_stands_beside_the_question_about_time() -> None:
    """The worst of them is the verdict; whatever is not applicable passes."""
    result = audit(nn.Sequential(nn.Embedding(VOCAB, 8), nn.Linear(8, VOCAB)), Settings(policies=("causal", "cache")))
    assert result.verdict is Verdict.PROVEN
    assert result.configurations[0].policies == {"causal": Verdict.PROVEN, "cache": Verdict.NOT_APPLICABLE}
    assert "causal: PROVEN" in view.headline(result)
    assert "cache: does not apply" in view.headline(result)


def test_what_shows_the_future_explains_that_it_disagrees() -> None:
    model = with_an_open_chunk(leaky=True)
    outcome = judged(model, "cache")
    subject = models.subject_of(model, SEQ)
    found = list(told(Policed(EVAL, (outcome,)), Context(subject, Settings())))
    assert [f.code for f in found if f.verdict is Verdict.LEAK] == ["LC302"]
    assert f"--seq-len {SEQ} --policy cache" in found[0].reproduce


def test_nothing_to_check_is_no_pass() -> None:
    model = nn.Sequential(nn.Embedding(VOCAB, 8), nn.Linear(8, VOCAB))
    with pytest.raises(NothingChecked, match=r"nothing to check in .*: document needs .*; cache needs past_key_values"):
        audit(model, Settings(policies=("document", "cache")))


def test_an_unknown_policy_is_refused_before_anything_is_loaded() -> None:
    with pytest.raises(UsageError, match="--policy rows: known are causal, batch, cache, document, padding and all"):
        audit("no-such-model", Settings(policies=("rows",)))
    assert asked_for(("all",)) == ("causal", *POLICIES)
    assert asked_for(("batch", "causal", "batch")) == ("batch", "causal")


def test_a_policy_has_a_name_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "POLICIES", dict(POLICIES))
    for taken in ("batch", "causal"):
        with pytest.raises(ValueError, match=f"policy {taken} is registered twice"):
            policy(taken, needs="")(lambda prober, configuration: ())
