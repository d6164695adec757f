"""The model that this tool was written for, as it was published."""

from torch import nn

from leakcheck.subjects.builtin import build_builtin
from leakcheck.zoo.registry import leak


@leak(
    learned_from="https://github.com/huggingface/transformers/pull/48769",
    attention="sdpa",
    codes=("LC201", "LC101", "LC501"),
    blamed=False,  # the first finding names the library's line that made the mask None
)
def method1_v3(leaky: bool) -> nn.Module:
    """Without padding the library's mask is `None` for fused attention, and kernels of its own mask by it alone."""
    return build_builtin("method1_v3_as_published" if leaky else "method1_v3")  # leak
