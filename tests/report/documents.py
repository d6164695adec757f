"""Example audits that every rendering is held against: made up, but shaped like the audit's own."""

import base64
import itertools
import math
import struct
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cache

from leakcheck.findings import (
    SCHEMA_VERSION,
    AblationRow,
    Array,
    AuditResult,
    Checkpoint,
    ClaimVerdict,
    Conclusion,
    ConfigurationResult,
    Control,
    DeltaMatrix,
    Excerpt,
    Fidelity,
    Finding,
    HorizonMap,
    HorizonRow,
    Location,
    PathStatistics,
    SafetyCheck,
    Step,
    SubjectInfo,
    Tool,
    Verdict,
    Witness,
    WorstCase,
    fingerprint,
    worst,
)

MODELING = "leakcheck/subjects/method1_v3/modeling_method1_v3.py"
LLAMA = "/opt/venv/lib/python3.11/site-packages/transformers/models/llama/modeling_llama.py"
LEAKS_UNDER = ("sdpa/none/eval", "sdpa/none/train")
HARMLESS = Verdict.NOT_APPLICABLE

# stage, phase, function, lines, operation, passes, has a tensor
STAGES = (
    (1, "generation", "Method1LlamaModel_v3.forward", (225, 227), "causal_mask = self._update_causal_mask(\n"
     "            attention_mask, inputs_embeds, cache_position, past_key_values, output_attentions\n        )",
     ("attention_mask", "inputs_embeds", "cache_position", "past_key_values", "output_attentions"), True),
    (2, "generation", "Method1LlamaModel_v3._update_causal_mask", (157, 164), "causal_mask = create_causal_mask(",
     ("causal_mask",), True),
    (3, "distribution", "Method1LlamaModel_v3.forward", (231, 231),
     "for layer_idx, decoder_layer in enumerate(self.layers):", (), False),
    (4, "distribution", "Method1LlamaModel_v3.forward", (233, 233), "if layer_idx > 0:", (), False),
    (5, "standard", "Method1LlamaModel_v3.forward", (243, 251), "layer_outputs = decoder_layer(",
     ("attention_mask=causal_mask",), True),
    (6, "standard", "Method1DecoderLayer_v3.forward", (108, 115), "attn_output, attn_weights = self.self_attn(",
     ("attention_mask=attention_mask",), True),
    (7, "standard", "Method1LlamaAttention_v3.forward", (45, 51), "return super().forward(",
     ("attention_mask=attention_mask",), True),
    (8, "standard", "LlamaAttention.forward", (252, 262), "attn_output, attn_weights = attention_interface(", (), True),
    (9, "recompute", "Method1LlamaModel_v3.forward", (241, 241),
     "previous_mlp_outputs = self._recompute_previous_mlp_outputs(*recompute_args, past_key_values)",
     ("causal_mask", "position_ids", "cache_position"), True),
    (10, "recompute", "Method1LlamaModel_v3._recompute_previous_mlp_outputs", (185, 193),
     "attn_output = layer.self_attn.forward_with_precomputed_weights(", ("attention_mask=attention_mask",), True),
    (11, "recompute", "Method1LlamaAttention_v3.forward_with_precomputed_weights", (66, 66),
     "if apply_strict_causal_mask and attention_mask is not None:", ("apply_strict_causal_mask=True",), True),
    (12, "recompute", "Method1LlamaAttention_v3.forward_with_precomputed_weights", (71, 72),
     "masked_weights = trimmed_attn_weights + causal_mask", (), True),
    (13, "merge", "Method1LlamaModel_v3.forward", (252, 252), "hidden_states = layer_outputs[0]", (), True),
    (14, "merge", "Method1LlamaModel_v3.forward", (254, 254), "stored_weights.append(current_weights)", (), True),
)  # fmt: skip


def configuration(attention: str, mask: str, mode: str, delta: float = 0.0, **changes) -> ConfigurationResult:
    verdict = Verdict.LEAK if delta else Verdict.PROVEN
    padded = 3 if mask == "left-padded" else 0
    document = ConfigurationResult(
        id=f"{attention}/{mask}/{mode}",
        attention=attention,
        mask=mask,
        mode=mode,
        cache="none",
        verdict=verdict,
        policies={"causal": verdict},
        paths={"standard": verdict},
        output_delta=delta,
        relative_delta=delta / 2,
        gradient_delta=delta / 4,
        rounding_delta=0.0,
        worst_case=WorstCase(cut=1, position=0, channel=7, draw="uniform", delta=delta) if delta else None,
        pairs_covered=78,
        pairs_total=78,
        padded_queries=padded,
        padded_queries_moved=padded,
        horizon=12 if delta else 0,
    )
    return replace(document, **changes)


def checkpoint(stage: int, path: str, layer: int | None, configuration: str, **changes) -> Checkpoint:
    _, phase, function, lines, operation, passes, has_tensor = STAGES[stage - 1]
    library = Location("eager_attention_forward", LLAMA, (208, 208), "attn_weights = attn_weights + attention_mask")
    document = Checkpoint(
        stage=stage,
        phase=phase,
        path=path,
        layer=layer,
        configuration=configuration,
        module="model" if layer is None else f"model.layers.{layer}",
        function=function,
        file=LLAMA if stage == 8 else MODELING,
        lines=lines,
        operation=operation,
        passes=passes,
        runs=1,
        horizon=0 if has_tensor else None,
        output_delta=0.0 if has_tensor else None,
        relative_delta=0.0 if has_tensor else None,
        gradient_delta=0.0 if has_tensor else None,
        local_delta=0.0 if has_tensor else None,
        rounding_delta=0.0 if has_tensor else None,
        worst_case=None,
        verdict=Verdict.PROVEN if has_tensor else HARMLESS,
        library=library if stage == 8 else None,
        note="the weights stored for replay" if path == "recompute" and stage == 8 else "",
    )
    return replace(document, **changes)


def leaking(checkpoint: Checkpoint) -> Checkpoint:
    """What the lost mask does to a checkpoint: stage 8 lets the future in, later stages carry it on."""
    if checkpoint.stage in (11, 12):
        return replace(
            checkpoint,
            runs=int(checkpoint.stage == 11),
            output_delta=None,
            relative_delta=None,
            gradient_delta=None,
            local_delta=None,
            rounding_delta=None,
            horizon=None,
            verdict=HARMLESS,
        )
    if checkpoint.stage == 2:
        return replace(checkpoint, note="returned None")
    if checkpoint.stage < 5:
        return checkpoint
    layer = checkpoint.layer or 0
    own = layer == 0 and checkpoint.path == "standard"
    delta = 4.5 + layer
    return replace(
        checkpoint,
        output_delta=delta,
        gradient_delta=delta / 2,
        local_delta=1.25,
        horizon=12,
        worst_case=WorstCase(cut=1, position=0, channel=5, draw="uniform", delta=delta),
        verdict=Verdict.LEAK if own and checkpoint.stage <= 8 else Verdict.CONTAMINATED,
    )


def method1_checkpoints(
    configurations: Sequence[str], leaks_under: Sequence[str] = (), layers: int = 3
) -> tuple[Checkpoint, ...]:
    found = []
    for configuration, stage, path in itertools.product(configurations, range(1, 15), ("standard", "recompute")):
        replayed = 9 <= stage <= 12
        if path == "standard" and (replayed or stage == 14):
            continue
        for layer in (None,) if stage <= 4 else range(int(replayed), layers):
            entry = checkpoint(stage, path, layer, configuration)
            if stage in (3, 4):
                entry = replace(entry, runs={(3, "standard"): 3, (4, "standard"): 1}.get((stage, path), 2))
            found.append(leaking(entry) if configuration in leaks_under else entry)
    return tuple(found)


def statistics() -> dict[str, PathStatistics]:
    return {
        "standard": PathStatistics(4, 4, 1, 4, 5, 1),
        "recompute": PathStatistics(5, 7, 2, 6, 7, 2),
        "total": PathStatistics(None, 11, 3, None, 12, 3),
    }


def safety_check(id: str, lines: tuple[int, int], claim: str, acted: Mapping[str, int], **changes) -> SafetyCheck:
    function = "Method1LlamaAttention_v3.forward_with_precomputed_weights"
    document = SafetyCheck(
        id=id,
        where=Location(function, MODELING, lines, "masked_weights = trimmed_attn_weights + causal_mask"),
        claim=claim,
        active=any(acted.values()),
        acted=dict(acted),
        mask="float32 [2, 1, 13, 13], made at stage 2",
        load_bearing=False,
        verdict=ClaimVerdict.HOLDS,
        evidence=f"with {id} off, every other check on, no past output moved",
    )
    return replace(document, **changes)


def ablation(configuration: str, clean_without_s1: bool) -> tuple[AblationRow, ...]:
    rows = []
    for s1, s2, s3 in itertools.product((True, False), repeat=3):
        clean = s1 and clean_without_s1
        rows.append(
            AblationRow(
                configuration=configuration,
                checks={"S1": s1, "S2": s2, "S3": s3},
                paths=dict.fromkeys(("standard", "recompute"), Verdict.PROVEN if clean else Verdict.LEAK),
                output_delta=0.0 if clean else 4.5,
                first_leak=None if clean else "stage 8, LlamaAttention.forward, layer 0",
            )
        )
    return tuple(rows)


def method1(leaks_under: Sequence[str] = ()) -> AuditResult:
    cells = itertools.product(("eager", "sdpa"), ("none", "ones", "left-padded"), ("eval", "train"))
    configurations = tuple(
        configuration(*cell, delta=4.5 * ("/".join(cell) in leaks_under), paths={"standard": Verdict.PROVEN})
        for cell in cells
    )
    ids = [c.id for c in configurations]
    acted = {id: 0 if id in leaks_under else 3 for id in ids}
    refuted = ClaimVerdict.REFUTED if leaks_under else ClaimVerdict.HOLDS
    return AuditResult(
        schema_version=SCHEMA_VERSION,
        tool=Tool("leakcheck", "0.1.0"),
        subject=SubjectInfo(
            spec="method1_v3_as_published" if leaks_under else "method1_v3",
            class_name="Method1LlamaForCausalLM_v3",
            parameters=21_600,
            seq_len=13,
            weights="random",
            plan="method1_v3",
        ),
        verdict=worst(c.verdict for c in configurations),
        configurations=configurations,
        checkpoints=method1_checkpoints(ids, leaks_under),
        statistics=statistics(),
        safety_checks=(
            safety_check("S1", (252, 262), "the parent attention applies the mask", acted, load_bearing=True),
            safety_check("S2", (68, 68), "the length check before the re-mask", acted),
            safety_check("S3", (71, 72), "the re-mask with renormalisation", acted, verdict=refuted),
        ),
        ablation=ablation("eager/ones/eval", True) + ablation("sdpa/none/eval", not leaks_under),
        fidelity=Fidelity(worst=0.6153, mean=0.31, layer=0, head=1, position=12),
        conclusions=(
            Conclusion(
                "C1",
                "single source: every mask in use comes from the one generation call",
                refuted,
                "1 call made every mask that was used",
            ),
            Conclusion("C2", "both paths protected", refuted, "standard and recompute path proven"),
            Conclusion(
                "C3",
                "defence in depth: three independent checks",
                ClaimVerdict.REFUTED,
                "S1 alone is load-bearing: taking S2 or S3 away changes nothing, taking S1 away opens both "
                "paths in every configuration that was measured",
            ),
        ),
        findings=tuple(future_finding(id) for id in leaks_under),
        controls=(
            Control("planted leak: attention without a mask", "LEAK", True),
            Control("causal mean of the past", "no LEAK", True),
        ),
        environment={"python": "3.11.9", "torch": "2.13.0", "seconds": 12.5},
        horizon_map=horizons(13, 3, 12 if leaks_under else 0),
        delta_matrix=deltas(13, leaks=bool(leaks_under)),
        witnesses=tuple(future_witness(id) for id in leaks_under),
    )


def horizons(seq: int, layers: int, furthest: int) -> HorizonMap:
    """Of a model whose every position sees `furthest` ahead, as far as there is something to see."""
    ahead = tuple(min(furthest, seq - 1 - position) for position in range(seq))
    rows = [HorizonRow(path, layer, ahead) for layer in range(layers) for path in ("standard", "recompute")]
    return HorizonMap("sdpa/none/eval", (*rows, HorizonRow("", None, ahead)))


def deltas(seq: int, *, leaks: bool) -> DeltaMatrix:
    """What moves is the less, the farther away the input is."""
    rows = [
        tuple(
            0.0 if source > reader and not leaks else round(1 / (1 + abs(reader - source)), 3) for source in range(seq)
        )
        for reader in range(seq)
    ]
    return DeltaMatrix("sdpa/none/eval", tuple(rows))


def array(dtype: str, *rows: Sequence[float]) -> Array:
    code = {"int64": "q", "float32": "f"}[dtype]
    data = b"".join(struct.pack(f"<{len(row)}{code}", *row) for row in rows)
    return Array(dtype, (len(rows), len(rows[0])), base64.b64encode(data).decode())


def future_witness(configuration: str) -> Witness:
    tokens, changed = array("int64", [5, 7]), array("int64", [5, 9])
    return Witness(
        id=f"LC201-{configuration.replace('/', '-')}-0123abcd",
        codes=("LC201",),
        policy="causal",
        question=0,
        configuration=dict(zip(("attention", "mask", "mode"), configuration.split("/"), strict=False)),
        settings={"seed": 0},
        spec="method1_v3_as_published",
        row=0,
        position=0,
        channel=7,
        delta=4.5123456,
        tokens=tokens,
        changed=changed,
        scale=array("float32", [1.0, 1.0]),
        weights="0" * 64,
        versions={"torch": "2.13.0", "transformers": "5.23.0"},
        recipe={},
        arguments=({"input_ids": tokens}, {"input_ids": changed}),
    )


def excerpt(file: str, line: int, before: str, marked: str, after: str) -> Excerpt:
    """Three lines, the second of which is marked whole."""
    column = len(marked) - len(marked.lstrip()) + 1
    return Excerpt(file, (line, column, line, len(marked) + 1), line - 1, (before, marked, after))


def future_finding(configuration: str) -> Finding:
    masked = excerpt(
        LLAMA,
        208,
        "    if attention_mask is not None:",
        "        attn_weights = attn_weights + attention_mask",
        "    attn_weights = nn.functional.softmax(attn_weights, dim=-1, dtype=torch.float32)",
    )
    lost = excerpt(
        MODELING,
        157,
        "    ) -> torch.Tensor | None:",
        "        causal_mask = create_causal_mask(",
        "            config=self.config,",
    )
    finding = Finding(
        code="LC201",
        verdict=Verdict.LEAK,
        policy="causal",
        configuration=configuration,
        message="the attention mask was None and the eager kernel does not mask by itself: layer 0 reads every "
        "position, future ones included",
        module="model.layers.0.self_attn",
        file=LLAMA,
        line=208,
        chain=("Method1LlamaModel_v3._update_causal_mask", "Method1DecoderLayer_v3.forward", "LlamaAttention.forward"),
        witness={
            "cut": 1,
            "position": 0,
            "draw": "uniform",
            "delta": 4.5123456,
            "seed": 0,
            "id": future_witness(configuration).id,
        },
        reproduce=f"leakcheck replay .leakcheck/witnesses/{future_witness(configuration).id}.json",
        operation="aten::add",
        excerpt=masked,
        steps=(
            Step("embedding, position 1", "model.embed_tokens", None),
            Step("create_causal_mask, None", "model", lost),
            Step("add, position 1 -> 0, [2, 4, 13, 13]", "model.layers.0.self_attn", masked),
        ),
    )
    return replace(finding, fingerprint=fingerprint(finding, "method1_v3_as_published"))


ENDS = (
    ("LC202", 31, "soft mask, value -1e+04, margin 9.99e+03: a score that much higher crosses it"),
    ("LC802", 52, "aten::_fft_r2c: every output mixes all positions, in a way that can cancel"),
)


def end_of_proof(code: str, line: int, message: str) -> Finding:
    return Finding(
        code=code,
        verdict=Verdict.OPEN,
        policy="causal",
        configuration="default/none/eval",
        message=message,
        module="",
        file="models/mixer.py",
        line=line,
        chain=(),
        witness=None,
        reproduce="leakcheck run --model models/mixer.py:build --seq-len 97",
    )


def generic() -> AuditResult:
    """A model without a plan of its own: one path, forty layers, no claims to check; one control missed."""
    ids = ("default/none/eval", "default/right-padded/eval")
    moved = 1.9073486328125e-06
    checkpoints = [
        replace(
            checkpoint(5, "standard", layer, id, output_delta=moved, gradient_delta=None, rounding_delta=moved),
            stage=layer + 1,
            phase="layers",
            module=f"backbone.layers.{layer}",
            function="MixerBlock.forward",
            file="models/mixer.py",
            lines=(80, 80),
            operation="x = x + self.mixer(x)",
            passes=(),
            horizon=None if layer > 20 else 0,
            verdict=Verdict.OPEN,
        )
        for layer in range(40)
        for id in ids
    ]
    return AuditResult(
        schema_version=SCHEMA_VERSION,
        tool=Tool("leakcheck", "0.1.0"),
        subject=SubjectInfo("models/mixer.py:build", "MixerLM", 1_250_304, 97, "given", "modules"),
        verdict=Verdict.OPEN,
        configurations=tuple(
            configuration(
                "default", mask, "eval", output_delta=moved, pairs_covered=96 * n, verdict=Verdict.OPEN, horizon=None
            )
            for n, mask in enumerate(("none", "right-padded"), 1)
        ),
        checkpoints=tuple(checkpoints),
        statistics={},
        safety_checks=(),
        ablation=(),
        fidelity=None,
        conclusions=(),
        findings=tuple(end_of_proof(code, line, text) for code, line, text in ENDS),
        controls=(
            Control("planted leak: next token added to the embedding", "LEAK", False),
            Control("causal mean of the past", "no LEAK", True),
        ),
        environment={},
    )


def crash() -> AuditResult:
    """One of two configurations leaks, the other one does not run."""
    found = future_finding("default/none/eval")
    raised = replace(
        end_of_proof("LC904", 1, "MixerLM.forward raised under default/ones/eval: ValueError: no mask, please"),
        configuration="default/ones/eval",
        file="",
        line=None,
    )
    return replace(
        generic(),
        verdict=Verdict.LEAK,
        configurations=(configuration("default", "none", "eval", 4.5),),
        checkpoints=(),
        findings=(replace(found, fingerprint=fingerprint(found, "models/mixer.py:build")), raised),
        delta_matrix=deltas(4, leaks=True),
    )


def hostile() -> AuditResult:
    """Names that a terminal, Markdown or HTML would obey, numbers that are none, and nothing short."""
    name = "[red]a|b`c`[/red]<script>alert(1)</script>\x1b[31m\u202e\n*bold* _x_ :smile: 深度学习"
    long = "very_long_name_" * 12
    id = f"{name}/ones/eval"
    return replace(
        generic(),
        subject=SubjectInfo(name, long, 0, 13, name, name),
        verdict=Verdict.LEAK,
        configurations=(
            configuration(name, "ones", "eval", math.inf),
            configuration(long, "x" * 120, "train", math.nan),
        ),
        checkpoints=(
            checkpoint(
                8, name, 3, id, phase=name, module=name, function=f"{long}.{name}", file=f"/tmp/{name}/{long}.py",
                operation=name * 3, passes=(name, long), output_delta=math.nan, local_delta=-math.inf,
                verdict=Verdict.LEAK, note=name, library=Location(name, name, (1, 2), name),
            ),
            checkpoint(5, "standard", 3, id, output_delta=1e-300),
        ),
        safety_checks=(
            SafetyCheck("S|1", None, name, False, {id: 0}, None, False, ClaimVerdict.NOT_APPLICABLE, long),
        ),
        ablation=(AblationRow(id, {name: True}, {name: Verdict.SUSPECT}, math.nan, long),),
        fidelity=Fidelity(math.nan, math.inf, None, None, None),
        conclusions=(Conclusion("C1", name, ClaimVerdict.HOLDS, long),),
        findings=(
            Finding("LC101", Verdict.LEAK, "causal", id, name, name, f"/tmp/\udcff/{long}.py", None, (name, long),
                    {name: math.nan, "tokens": [1, 2]}, f"leakcheck run --model '{name}'", name, long,
                    Excerpt(f"/tmp/\udcff/{long}.py", (1, 1, 1, 9), 1, (name, long, "</script>")),
                    (Step(name, name, None), Step(long, long, Excerpt(name, (2, 1, 2, 2), 2, (name * 9,))))),
        ),
        controls=(Control(name, long, False),),
        environment={name: -math.inf},
        horizon_map=HorizonMap(id, (HorizonRow(name, 3, (None, 10**9)), HorizonRow("", None, (0, 0)))),
        delta_matrix=DeltaMatrix(id, ((math.nan, math.inf), (1e-300, 0.0))),
    )  # fmt: skip


def empty() -> AuditResult:
    """An audit that could measure nothing."""
    return replace(
        generic(),
        verdict=Verdict.NOT_APPLICABLE,
        configurations=(),
        checkpoints=(),
        findings=(),
        controls=(),
        environment={},
    )


@cache
def large(layers: int = 40) -> AuditResult:
    """The most that a report is made for: 40 layers under 24 configurations, half of which leak, 128 positions."""
    cells = [
        *itertools.product(
            ("eager", "flex_attention", "sdpa"), ("none", "ones", "left-padded", "right-padded"), ("eval", "train")
        )
    ]
    ids = ["/".join(cell) for cell in cells]
    leaks_under = [id for id in ids if "/none/" in id or "/left-padded/" in id]
    leak = method1(leaks_under)
    tokens, changed = array("int64", range(128)), array("int64", range(1, 129))
    return replace(
        leak,
        subject=replace(leak.subject, parameters=7_000_000_000, seq_len=128),
        verdict=Verdict.LEAK,
        configurations=tuple(
            configuration(*cell, delta=4.5 * (id in leaks_under), pairs_covered=8128, pairs_total=8128)
            for cell, id in zip(cells, ids, strict=True)
        ),
        checkpoints=method1_checkpoints(ids, leaks_under, layers),
        findings=(
            *leak.findings,
            *(
                replace(end_of_proof(*end), configuration=id, module=f"model.layers.{layer}.self_attn")
                for id in ids
                for layer, end in enumerate(ENDS)
            ),
        ),
        horizon_map=horizons(128, layers, 127),
        delta_matrix=deltas(128, leaks=True),
        witnesses=tuple(
            replace(
                witness,
                tokens=tokens,
                changed=changed,
                scale=array("float32", [1.0] * 128),
                arguments=({"input_ids": tokens}, {"input_ids": changed}),
            )
            for witness in leak.witnesses
        ),
    )


DOCUMENTS = {
    "clean": method1(),
    "leak": method1(LEAKS_UNDER),
    "crash": crash(),
    "generic": generic(),
    "hostile": hostile(),
    "empty": empty(),
}
