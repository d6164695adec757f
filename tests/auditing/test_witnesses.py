"""The smallest pair of inputs that shows a leak, held against brute force; and what a replay says of it."""

import copy
import math
import sys
import textwrap
from collections.abc import Callable
from dataclasses import replace
from itertools import product
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from leakcheck import Settings, audit
from leakcheck.auditing import witnesses
from leakcheck.auditing.replaying import replay
from leakcheck.auditing.smallest import smallest
from leakcheck.errors import SubjectCrash, UsageError
from leakcheck.findings import AuditResult, Verdict, Witness
from leakcheck.report import pytest_file
from leakcheck.report.inputs import shown_by, values
from leakcheck.report.witness import store

HEAD = """
import torch
from torch import nn

LEAKY = True

class Model(nn.Module):
    def __init__(self, sizes=(7, 6)):
        super().__init__()
        self.embedding = nn.Embedding(*sizes)
        self.head = nn.Linear(*sizes[::-1])

    def mix(self, x):
        return x

    def forward(self, input_ids):
        x = self.embedding(input_ids)
        x = x.cumsum(1) / torch.arange(1, x.shape[1] + 1)[:, None]
        return self.head(self.mix(x) if LEAKY else x)
"""

AHEAD = """
class Ours(Model):
    def mix(self, x):
        return x + torch.cat([x[:, 3:], torch.zeros_like(x[:, :3])], 1)[:, :x.shape[1]]

def build():
    return Ours()
"""

BOTH = """
class Ours(Model):
    def mix(self, x):  # two later tokens cancel unless both are changed
        near, far = torch.roll(x, -1, 1), torch.roll(x, -2, 1)
        return x + torch.where(torch.arange(x.shape[1])[:, None] < x.shape[1] - 2, near.sign() * far.sign(), 0.0)

def build():
    return Ours()
"""


@pytest.fixture
def written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], str]:
    """Writes a subject into the working folder; its SPEC."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])  # the tests that are written put the folder there

    def write(source: str, name: str = "subject.py") -> str:
        (tmp_path / name).write_text(textwrap.dedent(source))
        return name

    return write


def witness_of(result: AuditResult, policy: str = "causal", mode: str = "eval") -> Witness:
    return next(w for w in result.witnesses if w.policy == policy and w.configuration["mode"] == mode)


def tensors(witness: Witness) -> tuple[Tensor, Tensor]:
    return torch.tensor(values(witness.tokens).copy()), torch.tensor(values(witness.changed).copy())


def moved(model: nn.Module, tokens: Tensor, changed: Tensor) -> Tensor:
    """How far each position moves, `[rows, seq]`, in float64; written without any of leakcheck."""
    model = copy.deepcopy(model).double().eval()
    with torch.no_grad():
        return (model(changed) - model(tokens)).abs().amax(-1)


def loaded(source: str) -> nn.Module:
    torch.manual_seed(0)
    names: dict = {}
    exec(source, names)
    return names["build"]()


def test_no_shorter_input_and_no_smaller_change_shows_it(written) -> None:
    result = audit(written(HEAD + AHEAD))
    witness = witness_of(result)
    tokens, changed = tensors(witness)
    assert tokens.shape == (1, 4)
    assert (tokens != changed).sum() == 1
    assert witness.position == 0
    model = loaded(HEAD + AHEAD)
    moves = moved(model, tokens, changed)
    assert moves[0, 0].item() == pytest.approx(witness.delta, rel=1e-12)
    for seq in (2, 3):  # every change of every single token
        ids = torch.tensor(list(product(range(7), repeat=seq)))
        for at in range(1, seq):
            other = ids.clone()
            other[:, at] = (other[:, at] + 1) % 7
            assert not moved(model, ids, other)[:, :at].any()


def test_a_change_is_as_small_as_halving_finds_it(written) -> None:
    tokens, changed = tensors(witness_of(audit(written(HEAD + BOTH))))
    assert tokens.shape == (1, 3)
    assert 1 <= (tokens != changed).sum() <= 2


@pytest.mark.parametrize(("norm", "scaled"), [(1.0, False), (40.0, True)])
def test_embeddings_are_longer_only_where_that_shows_it(written, norm: float, scaled: bool) -> None:
    gated = f"""
class Ours(Model):
    def mix(self, x):
        later = torch.cat([x[:, 1:], torch.zeros_like(x[:, :1])], 1)
        return x + torch.relu(later - {norm if scaled else -40.0})

def build():
    return Ours()
"""
    witness = witness_of(audit(written(HEAD + gated)))
    assert bool((values(witness.scale) != 1).any()) is scaled
    assert ("times as long" in shown_by(witness)) is scaled
    assert replay(witness).exact


def test_one_cut_of_many_is_found_where_rows_run_one_by_one(written) -> None:
    hidden = """
class Ours(Model):
    def mix(self, x):  # in train mode one position reads the next one, at one length
        x = nn.functional.dropout(x, 0.2, self.training)
        if self.training and x.shape[1] == 47:
            x = x + torch.eye(47)[22][:, None] * x[:, 23:24]
        return x

def build():
    return Ours()
"""
    (witness,) = audit(written(HEAD + hidden), Settings(seq_len=47)).witnesses
    assert witness.configuration["mode"] == "train"
    assert (witness.position, values(witness.tokens).shape) == (22, (1, 47))
    assert replay(witness).exact


def test_what_does_not_leak_has_none(written) -> None:
    assert audit(written(HEAD.replace("LEAKY = True", "LEAKY = False") + AHEAD)).witnesses == ()


POLICIES = {
    "batch": "def mix(self, x): return x + x.mean(0, keepdim=True)",
    "padding": """def forward(self, input_ids, attention_mask=None):
        x = self.embedding(input_ids)
        kept = torch.ones(x.shape[:2]) if LEAKY or attention_mask is None else attention_mask
        return self.head((x * kept[..., None].to(x)).cumsum(1))""",
    "document": """def forward(self, input_ids, document_ids=None):
        x = self.embedding(input_ids)
        ids = torch.zeros_like(input_ids) if document_ids is None or LEAKY else document_ids
        seen = (ids[:, :, None] == ids[:, None]) & torch.ones(x.shape[1], x.shape[1]).tril().bool()
        return self.head(seen.to(x) @ x)""",
    "cache": """def forward(self, input_ids, past_key_values=None, use_cache=False):
        x = self.embedding(input_ids)
        if past_key_values is not None and not LEAKY:
            x = torch.cat([past_key_values, x], 1)
        return (self.head(x.cumsum(1))[:, -input_ids.shape[1]:], x)""",
}


@pytest.mark.parametrize("policy", POLICIES)
def test_policies(written, policy: str, tmp_path: Path) -> None:
    body = textwrap.indent(POLICIES[policy], "    ")
    source = HEAD + f"\nclass Ours(Model):\n{body}\n\ndef build():\n    return Ours()\n"
    spec = written(source)
    result = audit(spec, Settings(policies=(policy,), seq_len=9))
    assert result.verdict is Verdict.LEAK
    told = [finding for finding in result.findings if finding.verdict is Verdict.LEAK]
    assert all(finding.witness and "id" in finding.witness for finding in told)
    for witness in [w for w in result.witnesses if w.configuration["mode"] == "eval"]:
        tokens, changed = tensors(witness)
        assert tokens.shape[1] < 9
        assert (tokens != changed).sum() == (0 if witness.codes == ("LC301",) else 1)
        assert replay(witness).exact
        fails, passes = emitted(witness, source), emitted(witness, source.replace("LEAKY = True", "LEAKY = False"))
        assert (fails, passes) == (False, True)
    fixed = written(source.replace("LEAKY = True", "LEAKY = False"), "fixed.py")
    assert not replay(replace(result.witnesses[0], spec=fixed)).leaks


def emitted(witness: Witness, source: str) -> bool:
    """Whether the test that is written of a witness passes with this subject."""
    text = pytest_file.render(witness)
    assert len(text.splitlines()) < 40
    assert "leakcheck" not in text
    names: dict = {}
    exec(text.replace("from subject import build", source), names)
    (test,) = [value for name, value in names.items() if name.startswith("test_")]
    try:
        test()
    except AssertionError:
        return False
    return True


def test_a_replay_gives_the_same_delta_to_the_last_bit_and_sees_what_was_fixed(written) -> None:
    spec = written(HEAD + AHEAD)
    witness = witness_of(audit(spec))
    again = replay(witness)
    assert again.leaks
    assert again.exact
    assert again.same_weights
    assert again.changed == ()
    assert (again.delta, again.position, again.channel) == (witness.delta, witness.position, witness.channel)

    assert not replay(replace(witness, delta=math.nextafter(witness.delta, 1))).exact
    assert replay(replace(witness, versions={**witness.versions, "torch": "2.0"})).changed == (
        f"torch 2.0 is {torch.__version__}",
    )
    fixed = written((HEAD + AHEAD).replace("LEAKY = True", "LEAKY = False"), "fixed.py")
    assert not replay(replace(witness, spec=fixed)).leaks


def test_a_leak_that_is_smaller_now_still_leaks(written) -> None:
    witness = witness_of(audit(written(HEAD + AHEAD)))
    smaller = written((HEAD + AHEAD).replace("return x + torch.cat", "return x + 1e-9 * torch.cat"), "smaller.py")
    again = replay(replace(witness, spec=smaller))
    assert again.leaks
    assert not again.exact
    assert again.delta < 1e-6 * witness.delta


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (
            (
                "self.head(self.mix(x) if LEAKY else x)",
                "self.head(torch.fft.ifft(torch.fft.fft(x, dim=1), dim=1).real)",
            ),
            "has other weights",
        ),
        (("sizes=(7, 6)", "sizes=(3, 6)"), "the witness has token [3-6], the model knows 3"),
        (("def build", "def make"), "nothing in it|no model in it"),
        (("import torch\n", "import torch, missing_package\n"), "missing_package"),
    ],
)
def test_what_cannot_run_is_no_fix(written, edit: tuple[str, str], message: str) -> None:
    source = HEAD + AHEAD
    witness = witness_of(audit(written(source)))
    fixed = source.replace("LEAKY = True", "LEAKY = False")
    assert edit[0] in fixed
    edited = written(
        fixed.replace(*edit).replace("(7, 6)", "(7, 5)" if "weights" in message else "(7, 6)"), "edited.py"
    )
    with pytest.raises(UsageError, match=message):
        replay(replace(witness, spec=edited))


def test_other_weights_that_still_leak_do(written) -> None:
    source = HEAD + AHEAD
    witness = witness_of(audit(written(source)))
    again = replay(replace(witness, spec=written(source.replace("sizes=(7, 6)", "sizes=(7, 5)"), "other.py")))
    assert again.leaks
    assert not again.same_weights


def test_weights_are_told_by_their_values(written) -> None:
    source = HEAD + AHEAD
    witness = witness_of(audit(written(source)))
    again = replay(
        replace(witness, spec=written(source.replace("Ours()", "torch.manual_seed(5) and Ours()"), "more.py"))
    )
    assert again.leaks
    assert not again.same_weights


def test_a_subject_that_raises_is_a_crash(written) -> None:
    source = HEAD + AHEAD
    witness = witness_of(audit(written(source)))
    raising = written(source.replace("x = self.embedding(input_ids)", "raise ValueError('not today')"), "raising.py")
    with pytest.raises(SubjectCrash, match="not today"):
        replay(replace(witness, spec=raising))


def test_a_policy_that_does_not_apply_any_more_is_said(written) -> None:
    source = HEAD + "\nclass Ours(Model):\n    " + POLICIES["cache"] + "\n\ndef build():\n    return Ours()\n"
    result = audit(written(source), Settings(policies=("cache",), seq_len=9))
    without = written(source.replace("past_key_values", "nothing_of_the_kind"), "without.py")
    with pytest.raises(UsageError, match="policy cache does not apply to it any more"):
        replay(replace(result.witnesses[0], spec=without))


# --- the test that is written -----------------------------------------------------------------------------------------

FEATURES = """
import torch
from torch import nn

LEAKY = True

class Ours(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(20, 5)

    def forward(self, features):
        y = self.layer(features)
        return {"smoothed": y + y.roll(-1, 1) if LEAKY else y}

def build():
    from leakcheck import Inputs
    return Ours(), Inputs({"features": "float[batch, time, 20]"})
"""


def test_a_test_of_features(written) -> None:
    witness = witness_of(audit(written(FEATURES)))
    assert "base64" in pytest_file.render(witness)  # two steps of twenty numbers are too many to be written out
    ours = FEATURES.replace(
        'from leakcheck import Inputs\n    return Ours(), Inputs({"features": "float[batch, time, 20]"})',
        "return Ours()",
    )
    assert not emitted(witness, ours)
    assert emitted(witness, ours.replace("LEAKY = True", "LEAKY = False"))


OURS = """
from transformers import LlamaConfig, LlamaForCausalLM

class OursConfig(LlamaConfig):
    model_type = "ours"

class OursForCausalLM(LlamaForCausalLM):
    config_class = OursConfig

    def forward(self, input_ids=None, attention_mask=None, **options):
        output = super().forward(input_ids, attention_mask=attention_mask, **options)
        output.logits = output.logits + 1e-4 * output.logits.roll(-1, 1)
        return output
"""


def test_every_configuration_that_leaks_has_a_witness_and_a_test(written, monkeypatch) -> None:
    sought = []
    monkeypatch.setattr(witnesses, "smallest", lambda *given: sought.append(given) or smallest(*given))
    result = audit(written(OURS, "leaking_llama.py"), Settings(attention=("sdpa",), seq_len=5))
    leaks = [finding for finding in result.findings if finding.verdict is Verdict.LEAK]
    by_id = {witness.id: witness for witness in result.witnesses}
    assert len(by_id) == len(result.witnesses) == len(result.configurations) == 12
    for finding in leaks:
        assert finding.witness is not None
        witness = by_id[finding.witness["id"]]
        assert (witness.configuration["id"], witness.policy) == (finding.configuration, finding.policy)
        assert finding.code in witness.codes
    assert {w.tokens.shape for w in by_id.values() if "padded" not in w.id} == {(1, 2)}
    assert len({w.tokens for w in by_id.values() if "padded" not in w.id}) == 1
    assert len(sought) < len(by_id)  # what was found under one configuration is tried first under the next

    text = pytest_file.render(witness_of(result, mode="train+checkpointing"))
    assert "gradient_checkpointing_enable" in text
    assert len(text.splitlines()) < 40
    names: dict = {}
    exec(text, names)
    with pytest.raises(AssertionError, match="it moves by") as raised:
        names["test_lc101_is_fixed"]()
    moved = float(str(raised.value).splitlines()[0].rpartition(" ")[2])
    assert moved == pytest.approx(
        witness_of(result, mode="train+checkpointing").delta, rel=1e-2
    )  # with the same weights
    fixed = "from transformers import LlamaForCausalLM as OursForCausalLM"
    exec(text.replace("from leaking_llama import OursForCausalLM", fixed), names)
    names["test_lc101_is_fixed"]()


def test_an_argument_that_no_file_can_hold_is_left_out(written, tmp_path: Path) -> None:
    source = FEATURES.replace("features):", "features, gain):").replace(
        '"float[batch, time, 20]"', '"float[batch, time, 20]", "gain": torch.ones(1, dtype=torch.bfloat16)'
    )
    result = audit(written(source))
    assert result.verdict is Verdict.LEAK
    assert {witness.arguments for witness in result.witnesses} == {()}
    assert store(result, tmp_path / "stored").findings[0].reproduce.startswith("leakcheck replay")
    assert replay(result.witnesses[0]).exact
    with pytest.raises(UsageError, match="more than one plain call"):
        pytest_file.render(result.witnesses[0])


def test_what_no_test_can_be_written_of_is_said() -> None:
    class Ours(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embedding = nn.Embedding(7, 7)

        def forward(self, input_ids: Tensor) -> Tensor:
            return self.embedding(input_ids).flip(1)

    (witness, *_) = audit(Ours(), Settings(seq_len=5)).witnesses
    with pytest.raises(UsageError, match="handed over in Python"):
        pytest_file.render(witness)
