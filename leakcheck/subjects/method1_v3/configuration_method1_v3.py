"""Configuration of Method1_v3: LLaMA's, plus what is under audit."""

from transformers import LlamaConfig

from leakcheck.subjects.library import strict


@strict
class Method1Config_v3(LlamaConfig):
    """LLaMA's configuration with the merge revision, the mask's origin and the three safety checks.

    `materialize_causal_mask=False` is the model as it was published: the library decides whether a mask is needed,
    and under `sdpa` without padding it returns `None`.

    The three `safety_*` switches exist for the ablation: each takes away one check that the hand-written trace
    counts, and nothing else.
    """

    model_type = "method1-v3"

    materialize_causal_mask: bool = True
    merge_attention_output: bool = False  # the later revision: x_{l+1} also receives h_l
    safety_parent_mask: bool = True  # S1: the parent attention gets the mask
    safety_length_check: bool = True  # S2: re-mask only where the lengths fit
    safety_strict_remask: bool = True  # S3: re-mask and renormalise the stored weights
