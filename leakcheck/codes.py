"""Finding codes: `LC` and three digits, by family. A code is never renumbered.

1xx future dependence, 2xx masks, padding, packing, 3xx cache and decoding, 4xx batch and determinism,
5xx recompute path, 8xx holes in the proof, 9xx the tool itself.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Code:
    id: str
    title: str
    remedy: str


CODES: dict[str, Code] = {}


def _register(id: str, title: str, remedy: str) -> Code:
    if id in CODES:
        raise ValueError(f"finding code {id} is registered twice")
    CODES[id] = Code(id, title, remedy)
    return CODES[id]


FUTURE_DEPENDENCE = _register(
    "LC101",
    "a past position depends on a future token",
    "find the first stage marked LEAK; give its kernel a causal mask, or shift what it reads by one position",
)
DEAD_DEPENDENCE = _register(
    "LC102",
    "an inner tensor depends on a future token, the output does not",
    "make sure that nothing past the audited output ever reads this tensor",
)
GRADIENT_ONLY = _register(
    "LC103",
    "a past output has a gradient with respect to a future embedding, but no changed token moved it",
    "look for a path that the drawn tokens did not excite; audit with trained weights or a longer sequence",
)
ADMITTED = _register(
    "LC104",
    "flow admits that a past position reads a future token; no witness was found",
    "follow the chain to where past and future meet, and cut it there; if it cannot be cut, no proof is possible",
)
SEES_NO_LATER = _register(
    "LC105",
    "a position that was declared to see later ones sees none",
    "look for a causal mask, or a causal flag, where the model is meant to be bidirectional",
)
BEYOND_WINDOW = _register(
    "LC106",
    "a position depends on an input before its window",
    "let the mask of every layer block what lies before the window, and add up the windows of stacked layers",
)
MASK_IS_NONE = _register(
    "LC201",
    "the attention mask was None and the kernel does not mask by itself",
    "materialise the mask whenever the kernel that runs masks only by the tensor it is given",
)
SOFT_MASK = _register(
    "LC202",
    "a soft mask: a finite value blocks only as long as scores stay above it",
    "mask with -inf or the dtype's minimum, which block whatever the scores are",
)
MASK_UNUSED = _register(
    "LC203",
    "a mask was made and never met scores",
    "hand the mask on to the kernel, or apply it where the scores are made",
)
PADDING_DEPENDENCE = _register(
    "LC204",
    "what stands in the padding reaches a valid position",
    "hand the attention mask on to every kernel, pooling and norm that looks across positions",
)
DOCUMENT_DEPENDENCE = _register(
    "LC205",
    "packed documents reach each other",
    "let the mask of every layer block other documents, and reset convolutions and states at each border",
)
CACHE_DISAGREES = _register(
    "LC301",
    "decoding with a cache gives another output than the full forward",
    "compare masks, positions and states of both at the first position that differs; a cache of every layer goes on",
)
CACHE_SHOWS_FUTURE = _register(
    "LC302",
    "with a cache a position depends on a future token, in the full forward it does not",
    "let the mask of a chunk that is decoded onto a cache begin where the cache ends",
)
ROW_DEPENDENCE = _register(
    "LC401",
    "a row of the batch depends on another row",
    "compute statistics, capacities and scales for each row by itself, or say so with --accept-batch",
)
RECOMPUTE_LEAK = _register(
    "LC501",
    "the recompute path lets the future in",
    "re-mask the stored attention weights before they are applied to new values",
)
NO_RULE = _register(
    "LC801",
    "the proof ends at an op that flow has no rule for, or whose rule failed",
    "use an op that flow knows, or register a rule for this one",
)
OPAQUE = _register(
    "LC802",
    "the proof ends at an op or a forward that flow cannot look into",
    "give the model a path of plain torch ops for the audit",
)
CONTROL_FLOW = _register(
    "LC803",
    "the proof ends where values that depend on tokens decide in Python what runs",
    "keep the decision in tensors (torch.where, masks), so that every token takes the same path",
)
CONTROL_MISSED = _register(
    "LC901",
    "the harness did not see a leak that it planted itself",
    "do not trust the other verdicts of this run; report the subject to leakcheck",
)
VACUOUS = _register(
    "LC902",
    "no past token reaches any later output",
    "a model that ignores its past cannot leak by this measure; check the weights and the input",
)
CONTRADICTION = _register(
    "LC903",
    "a witness refutes what flow proved: one of the two is wrong",
    "trust the witness; report the model to leakcheck, a rule of flow or a probe is unsound",
)
DID_NOT_RUN = _register(
    "LC904",
    "the subject raised under this configuration, while it leaks under another",
    "repair what the message says, or leave the configuration out if nobody runs it",
)
