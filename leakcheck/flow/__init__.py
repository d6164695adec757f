"""The proof: one forward pass in which every element carries the latest input that it can depend on."""

from leakcheck.flow.trace import Trace, Violation, trace

__all__ = ["Trace", "Violation", "trace"]
