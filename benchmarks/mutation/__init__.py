"""The mutation score of leakcheck itself: op rules and probes are broken on purpose, and the suite has to notice.

    python -m benchmarks.mutation            everything, into reports/mutation_score.{json,md}
    python -m benchmarks.mutation --again    only what no test noticed; the other rows stay
    python -m benchmarks.mutation --minutes 15    what can be tried in that time, one of each family in turn

Mutants are generated, never written for one rule. Those of *rules* (`rules.py`) change what any rule of flow's
registry is given or returns: unsound ones claim less than the rule (an operand not seen, an axis not joined, an output
a position early, a constant taken for a zero), coarse ones more (everything joined along an axis, a zero not claimed,
the arrangement of slots not cancelled). What is generated of an entry follows from what the suite gives it and gets
from it: no axis is joined that the rule always joins. Of every entry an unsound and a coarse one are tried, seeded,
where it can be coarser than it is. Those of *source* (`source.py`) change one comparison, constant, operator, call or
statement of a function; of each module of `leakcheck/probes` and of flow's rules and labels a seeded sample is tried.

One process collects the tests and runs each once, to record how long it takes and which entries and statements it
runs (`suite.py`). Each mutant then gets a fork, in which tests that run the broken place are run until one fails: of
an entry first its own conformance test, then the fastest, of as many test functions as may be. A mutant is noticed if
a test fails in its fork, or ends the process, or hangs; one that cannot be compiled is none. At the end the tests that
noticed something are run in a fork where nothing is broken, and have to pass. What survived the first seconds of tests
is tried with all others that touch the place, which are all that could notice it (`ran` and `tests` in its row). The
score is that of rules and probes; of flow's other sources only the first seconds of tests are run, and they are told
apart.

A mutant in `equivalent.json` is counted apart, with its reason there, unless a test notices it.
"""
