"""What flow costs, in forward passes, beside the exhaustive VJP certificate of the package `causal-certificate`.

    python -m benchmarks.flow_cost              the 135M LLaMA shape, into reports/flow_cost.{json,md}
    python -m benchmarks.flow_cost --layers 2 --hidden 36 --vocabulary 50 --lengths 8 --output /tmp/cost

Everything runs in one process, on one thread, in turns: a plain forward, a traced one, and so on; each traced pass is
divided by the plain one before it, and the medians of these ratios are reported. The certificate needs one forward and
one backward for each cut. Where that takes too long it runs on a few random cuts, and the rest is extrapolated, and
marked as such.
"""

import argparse
import json
import os
import platform
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
import transformers
from transformers import LlamaConfig, LlamaForCausalLM

import leakcheck
from leakcheck import flow

try:
    from causal_certificate import certify
except ImportError:
    certify = None

REPORTS = Path(__file__).resolve().parent.parent / "reports"
COMMAND = "python -m benchmarks.flow_cost"
EXHAUSTIVE = 64  # the longest sequence that the certificate probes at every cut
CUTS = 4  # beyond it, so many


@dataclass(frozen=True)
class Cost:
    """Of one backend at one length; `*_forwards` are medians of paired ratios to a plain forward, without gradients."""

    attention: str
    length: int
    forward_seconds: float
    flow_forwards: float
    proven: bool
    operations: int
    certificate_forwards: float | None
    certificate_cuts: int | None  # probed; the figure is extrapolated to all where they are fewer than length - 1
    certificate_passes: bool | None


def seconds(run: Callable[[], object]) -> float:
    started = time.perf_counter()
    run()
    return time.perf_counter() - started


@torch.no_grad()
def plain(model: torch.nn.Module, tokens: torch.Tensor) -> None:
    model(tokens)


def cost(model: LlamaForCausalLM, attention: str, length: int, repeats: int, certificate: bool) -> Cost:
    model.set_attn_implementation(attention)
    tokens = torch.randint(0, model.config.vocab_size, (1, length))
    plain(model, tokens)
    traced = flow.trace(model, tokens)
    forwards, ratios = [], []
    for _ in range(repeats):
        forwards.append(seconds(lambda: plain(model, tokens)))
        ratios.append(seconds(lambda: flow.trace(model, tokens)) / forwards[-1])
    forward = statistics.median(forwards)
    probed = passes = certified = None
    if certificate and certify is not None:
        embedded = model.get_input_embeddings()(tokens).detach()  # [1, seq, hidden]: it needs a differentiable input
        every = length <= EXHAUSTIVE
        before = seconds(lambda: plain(model, tokens))
        started = time.perf_counter()
        report = certify(
            lambda x: model(inputs_embeds=x).logits,
            embedded,
            cuts="all" if every else "rand",
            K=CUTS,
            batch_check=False,
        )
        taken = time.perf_counter() - started
        probed, passes = report.cuts_probed, report.is_strictly_causal
        certified = taken / before * (1 if every else (length - 1) / probed)
    return Cost(
        attention, length, forward, statistics.median(ratios), traced.proven, traced.ops, certified, probed, passes
    )


def table(costs: list[Cost], about: dict) -> str:
    shape = about["shape"]
    lines = [
        "# What flow costs",
        "",
        f"`{about['command']}` (leakcheck {about['leakcheck']}, torch {about['torch']}, transformers "
        f"{about['transformers']}, causal-certificate {about['causal_certificate']}, one thread)",
        "",
        f"LLaMA, {about['parameters']:,} parameters: hidden {shape['hidden']}, {shape['layers']} layers, "
        f"{shape['heads']} heads, {shape['key_value_heads']} key/value heads, intermediate {shape['intermediate']}, "
        f"vocabulary {shape['vocabulary']}. One row of tokens. In plain forward passes of the same model at the same "
        f"length, without gradients; median of {about['repeats']} pairs.",
        "",
        "| attention | tokens | a forward | flow | exhaustive VJP certificate |",
        "|---|--:|--:|--:|--:|",
    ]
    for c in costs:
        certificate = "not run"
        if c.certificate_forwards is not None and c.certificate_cuts is not None:
            certificate = f"{c.certificate_forwards:,.0f}"
            if c.certificate_cuts < c.length - 1:
                certificate += f" (extrapolated from {c.certificate_cuts} of {c.length - 1} cuts)"
        verdict = "PROVEN" if c.proven else "not proven"
        traced = f"{c.flow_forwards:.2f} ({verdict})"
        lines.append(f"| {c.attention} | {c.length} | {c.forward_seconds:.2f} s | {traced} | {certificate} |")
    lines += [
        "",
        "Flow covers every pair of positions, all token values and all weights of the shape. The certificate covers "
        "every pair of positions at the weights and the embeddings that it is run on, as far as gradients show it.",
        "",
    ]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lengths", type=int, nargs="+", default=[64, 512])
    parser.add_argument("--attention", nargs="+", default=["sdpa", "eager"])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--hidden", type=int, default=576)
    parser.add_argument("--layers", type=int, default=30)
    parser.add_argument("--vocabulary", type=int, default=49152)
    parser.add_argument("--output", type=Path, default=REPORTS / "flow_cost", help="two files: .json and .md")
    options = parser.parse_args()

    torch.set_num_threads(1)
    torch.manual_seed(0)
    heads, groups = 9, 3
    config = LlamaConfig(
        hidden_size=options.hidden,
        num_hidden_layers=options.layers,
        num_attention_heads=heads,
        num_key_value_heads=groups,
        intermediate_size=options.hidden * 8 // 3,
        vocab_size=options.vocabulary,
        tie_word_embeddings=True,
    )
    model = LlamaForCausalLM(config).eval()
    # The certificate is run on the default backend only: it costs the same on any.
    costs = [
        cost(model, attention, length, options.repeats, certificate=attention == options.attention[0])
        for attention in options.attention
        for length in options.lengths
    ]
    about = {
        "command": COMMAND,
        "leakcheck": leakcheck.__version__,
        "torch": torch.__version__.partition("+")[0],
        "transformers": transformers.__version__,
        "causal_certificate": __import__("causal_certificate").__version__ if certify else None,
        "python": platform.python_version(),
        "parameters": sum(p.numel() for p in model.parameters()),
        "repeats": options.repeats,
        "shape": {
            "hidden": options.hidden,
            "layers": options.layers,
            "heads": heads,
            "key_value_heads": groups,
            "intermediate": config.intermediate_size,
            "vocabulary": options.vocabulary,
        },
    }
    document = json.dumps({"about": about, "costs": [asdict(c) for c in costs]}, indent=1) + "\n"
    for suffix, text in ((".json", document), (".md", table(costs, about))):
        path = options.output.with_suffix(suffix)
        temporary = path.with_suffix(suffix + ".tmp")
        temporary.write_text(text, encoding="utf-8")
        os.replace(temporary, path)
    print(table(costs, about))


if __name__ == "__main__":
    main()
