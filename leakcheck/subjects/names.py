"""The built-in models by name; torch-free, so that the command can list them at once."""

BUILTIN: dict[str, str] = {
    "method1_v3": "Method1_v3 with a materialised causal mask: every layer replays the attention of earlier layers",
    "method1_v3_as_published": "Method1_v3 as published: the attention backend decides whether there is a mask",
    "llama": "LLaMA of the same sizes and weights: the control",
}
