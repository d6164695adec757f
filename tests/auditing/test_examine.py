"""What one configuration amounts to: blame among its stages, and the findings."""

import linecache

import pytest
import torch
from torch import nn

from leakcheck.auditing.examine import Examiner
from leakcheck.auditing.leaks import findings
from leakcheck.auditing.numbering import numbered
from leakcheck.auditing.verdicts import blame
from leakcheck.checkpoints.reading import RECOMPUTE, STANDARD, Reading, Stage
from leakcheck.config import Configuration, Settings
from leakcheck.findings import Verdict, worst
from leakcheck.probes.probe import Decided
from tests import models
from tests.models import SEQ, VOCAB, subject_of, successor

PLAIN = Configuration("default", "none", "eval")


def reading(number, span, path=STANDARD):
    code = blame.__code__
    return Reading(Stage(number, "p", "t"), path, 0, "m", code, None, span=span)


def decided(output=0.0, local=0.0, gradient=0.0):
    return Decided(output, output, gradient, local, 0.0, 0, None)


MOVED_IN = decided(output=1.0, local=1.0, gradient=1.0)
MOVED_ON = decided(output=1.0, local=0.0, gradient=1.0)
STILL = decided()


@pytest.mark.parametrize(
    ("cases", "verdicts"),
    [
        # the innermost of nested stages lets it in
        ([(1, (1, 10), MOVED_IN), (2, (2, 9), MOVED_IN), (3, (3, 4), STILL)], "CONTAMINATED LEAK OPEN"),
        # what comes later passes it on
        ([(1, (1, 4), MOVED_IN), (2, (5, 8), MOVED_ON)], "LEAK CONTAMINATED"),
        # two stages side by side can both let it in
        ([(1, (1, 4), MOVED_IN), (2, (5, 8), MOVED_IN)], "LEAK LEAK"),
        # one call, two stages: the later is inside
        ([(10, (1, 4), MOVED_IN), (11, (1, 4), MOVED_IN)], "CONTAMINATED LEAK"),
        # an inner stage that is locally clean does not excuse the one around it
        ([(1, (1, 10), MOVED_IN), (2, (2, 9), MOVED_ON)], "LEAK CONTAMINATED"),
        # a stage that could leak but got nothing to leak, and a gradient alone
        ([(1, (1, 4), decided(local=1.0)), (2, (5, 8), decided(gradient=1.0))], "SUSPECT SUSPECT"),
    ],
)
def test_blame(cases, verdicts):
    readings = [(reading(number, span), d) for number, span, d in cases]
    assert [v.value for v in blame(readings, leaks=True)] == verdicts.split()


def test_of_one_call_on_two_paths_the_standard_one_is_inside():
    pair = [(reading(8, (1, 4), RECOMPUTE), MOVED_IN), (reading(8, (1, 4), STANDARD), MOVED_IN)]
    assert [v.value for v in blame(pair, leaks=True)] == ["CONTAMINATED", "LEAK"]


def test_without_a_leak_at_the_output_what_moves_is_a_suspicion():
    readings = [(reading(1, (1, 4)), MOVED_IN), (reading(2, (5, 6)), STILL)]
    assert [v.value for v in blame(readings, leaks=False)] == ["SUSPECT", "OPEN"]


def test_the_worst_verdict():
    assert worst([]) is Verdict.NOT_APPLICABLE
    assert worst([Verdict.OPEN, Verdict.PROVEN]) is Verdict.OPEN
    assert worst([Verdict.OPEN, Verdict.SUSPECT]) is Verdict.SUSPECT
    assert worst([Verdict.CONTAMINATED, Verdict.LEAK, Verdict.NOT_APPLICABLE]) is Verdict.LEAK


def examined(model, configuration=PLAIN):
    return Examiner(model, seq=SEQ, vocab_size=VOCAB, seed=0).examine(configuration)


def codes_of(model, result):
    return [f.code for f in findings(subject_of(model), [result], Settings())]


@pytest.mark.parametrize("strength", [1.0, 1e-4])
def test_a_harness_whose_quiet_control_is_loud_claims_no_leak(strength):
    model = models.toy(models.Noise(strength))
    result = examined(model)
    assert result.result.verdict is Verdict.OPEN
    assert "LC901" in codes_of(model, result)


def test_a_model_that_ignores_its_past_is_reported():
    model = models.toy(lambda x: x.tanh())
    assert codes_of(model, examined(model)) == ["LC902"]


def test_a_dependence_that_no_output_uses_is_a_finding_of_its_own():
    class Unused(models.Toy):
        def forward(self, input_ids):
            x = self.embed(input_ids)
            self.mixer(x)
            return self.head(models.so_far(x))

    model = models.seeded(Unused(models.Mixer(successor)))
    result = examined(model)
    assert result.result.verdict is Verdict.PROVEN
    assert codes_of(model, result) == ["LC102"]
    assert {c.module for c in result.checkpoints if c.verdict is Verdict.SUSPECT} == {"mixer"}
    assert {c.module for c in result.checkpoints if c.horizon} == {"mixer"}


def test_a_dependence_that_only_the_gradient_and_flow_show_is_a_suspicion():
    class Saturated(models.Mixer):
        """Adds nothing to the output of the drawn tokens, yet has a derivative there."""

        def forward(self, x):
            ahead = successor(x)
            return models.so_far(x) + ahead - ahead.detach()

    model = models.toy(Saturated(None))
    result = examined(model)
    assert result.result.verdict is Verdict.SUSPECT
    assert codes_of(model, result) == ["LC104"]  # flow follows values: it does not know that they cancel


def test_a_leak_between_two_modules_is_found_though_no_module_is_to_blame():
    class Between(models.Toy):
        def forward(self, input_ids):
            return self.head(self.mixer(successor(self.embed(input_ids))))

    model = models.seeded(Between(models.Mixer(models.so_far)))
    result = examined(model)
    assert result.result.verdict is Verdict.LEAK
    assert codes_of(model, result) == ["LC101"]
    assert result.first_leak is None or result.first_leak.module == ""


def test_rows_that_depend_on_their_batch_are_judged_without_checkpoints():
    result = examined(models.toy(models.TimeNorm()), Configuration("default", "none", "train"))
    assert result.result.verdict is Verdict.LEAK
    assert result.result.paths == {"standard": Verdict.LEAK}
    assert all(c.output_delta is None for c in result.checkpoints)
    verdicts = {c.module: c.verdict for c in result.checkpoints}
    assert verdicts == dict.fromkeys(("", "mixer", "mixer.norm", "head"), Verdict.SUSPECT) | {"embed": Verdict.PROVEN}


# --- what became of the mask ------------------------------------------------------------------------------------------


class Attention(nn.Module):
    """Attention over `[batch, seq, hidden]` with a mask that is made and handed on, or not."""

    def __init__(self, way: str):
        super().__init__()
        self.way = way
        self.kernel = Kernel()

    def forward(self, x):
        allowed = make_mask(x.shape[1]) if self.way != "none is made" else make_nothing(x.shape[1])
        return self.kernel(x, allowed if self.way == "handed on" else None if self.way == "forgotten" else allowed)


class Kernel(nn.Module):
    def forward(self, x, mask=None):
        scores = x @ x.mT
        if mask is not None:
            scores = scores.masked_fill(~mask, -torch.inf)
        return scores.softmax(-1) @ x


def make_mask(seq):
    return torch.ones(seq, seq, dtype=torch.bool).tril()


def make_nothing(seq):
    return None


@pytest.mark.parametrize(
    ("way", "code", "made", "line"),
    [
        ("forgotten", "LC203", "return torch.ones(seq, seq, dtype=torch.bool).tril()", "return scores.softmax(-1) @ x"),
        ("none is made", "LC201", "return None", "return None"),
        ("handed on", None, "", ""),
    ],
)
def test_a_lost_mask_is_told_with_its_line(way, code, made, line):
    model = models.toy(Attention(way))
    examined = Examiner(model, seq=SEQ, vocab_size=VOCAB, seed=0).examine(PLAIN)
    found = findings(subject_of(model), [examined], Settings())
    assert (examined.result.verdict is Verdict.LEAK) == (code is not None)
    lost = [finding for finding in found if finding.code.startswith("LC2")]
    assert [finding.code for finding in lost] == ([code] if code else [])
    for finding in lost:
        assert linecache.getline(__file__, finding.line).strip() == line
        assert f"`{made}`" in finding.message
        assert found[0] is finding


def test_a_lost_mask_is_not_blamed_for_a_leak_of_another_kind():
    """A mask that is made and acts, and a module that reads ahead: nothing is said of the mask."""
    model = models.toy(nn.Sequential(Attention("handed on"), models.Mixer(successor)))
    examined = Examiner(model, seq=SEQ, vocab_size=VOCAB, seed=0).examine(PLAIN)
    found = findings(subject_of(model), [examined], Settings())
    assert found[0].code == "LC101"
    assert not any(finding.code.startswith("LC2") for finding in found)


def test_stages_have_one_number_under_every_configuration():
    model = models.llama()
    examiner = Examiner(model, seq=SEQ, vocab_size=VOCAB, seed=0)
    one, other = numbered([examiner.examine(Configuration(backend, "none", "eval")) for backend in ("eager", "sdpa")])
    places = [{c.stage: (c.phase, c.function, c.lines) for c in e.checkpoints} for e in (one, other)]
    assert all(places[1].get(stage, place) == place for stage, place in places[0].items())
    assert any(stage not in places[1] for stage in places[0])
    for e in (one, other):
        assert [c.stage for c in e.checkpoints] == sorted(c.stage for c in e.checkpoints)
        assert set(e.lineage.stages) == {(c.stage, c.path, c.layer) for c in e.checkpoints}
    phases = list(dict.fromkeys(c.phase for c in sorted(one.checkpoints, key=lambda c: c.stage)))
    assert phases == ["generation", "distribution", "model", "input", "layers", "output", "application"]
