"""The proof: one forward pass in which every element carries the latest input that it can depend on.

    trace(model, input_ids).horizon     # [batch, seq]: how late an input each output position can see

An op that flow does not know makes a hole. There are two ways to close it. A custom op (`torch.library.custom_op`) can
be given a rule, written in the algebra of `leakcheck.flow.labels`; it is believed:

    @flow.rule("mylib::swiglu", rowwise=True)
    def swiglu(x, gate):
        return flow.labels.join(x.labels, gate.labels)

Any function can be declared; it is checked by brute force first:

    @flow.declare("causal", dim=1)
    def long_convolution(x, kernel): ...
"""

from leakcheck.flow import labels
from leakcheck.flow.blame import Blame, Link, blame
from leakcheck.flow.declare import declare
from leakcheck.flow.registry import Tier, rule
from leakcheck.flow.trace import Trace, Violation, trace

__all__ = ["Blame", "Link", "Tier", "Trace", "Violation", "blame", "declare", "labels", "rule", "trace"]
