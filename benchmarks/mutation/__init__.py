"""The mutation score of leakcheck itself: op rules and probes are broken on purpose, and the suite has to notice.

    python -m benchmarks.mutation            everything, into reports/mutation_score.{json,md}
    python -m benchmarks.mutation --again    only what no test noticed; the other rows stay

Mutants are generated, never written for one rule. Those of *rules* (`rules.py`) change what any rule of flow's registry
is given or returns: unsound ones claim less than the rule (an operand not seen, an axis not joined, an output a position
early, a constant taken for a zero), coarse ones more (everything joined along an axis, a zero not claimed, the
arrangement of slots not cancelled). Each such change is made at one of the rule's entries, in turns, and every entry has
an unsound and a coarse one, where the rule can be coarser than it is. Those of *source* (`source.py`) change one
comparison, constant, operator, call or statement of a function: all of `leakcheck/probes`, and of flow a seeded sample.

One process collects the tests and runs each once, to record how long it takes and which entries and statements it runs
(`suite.py`). Each mutant then gets a fork, in which only tests that run the broken place are run: of an entry first its own
conformance test, then in turns of each test function the fastest, until one fails. A mutant is noticed if a test fails
in its fork that passes without it, or ends the process, or hangs; one that cannot be compiled is none. What survived the first seconds
of tests has survived; a seeded sample of these is tried with all tests that touch it (`ran` and `tests` in its row say which).
No other test can notice a mutant than those that run the place, so that is the whole suite.

A mutant in `equivalent.json` is counted apart, with its reason there, unless a test notices it: then the reason is wrong.
"""
