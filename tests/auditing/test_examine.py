"""What one configuration amounts to: blame among its stages, and the findings."""

import pytest

from leakcheck.auditing.examine import Examiner
from leakcheck.auditing.leaks import findings
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
