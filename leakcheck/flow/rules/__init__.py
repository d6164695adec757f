"""Op rules, one family a file; importing this package registers them all."""

from leakcheck.flow.rules import (
    attention,
    indexing,
    matmul,
    pointwise,
    reductions,
    softmax,
    sorting,
    storing,
)

__all__ = ["attention", "indexing", "matmul", "pointwise", "reductions", "softmax", "sorting", "storing"]
