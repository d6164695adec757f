"""Flow against brute force, on every causal-LM architecture of the installed transformers.

    python -m benchmarks.architectures                    all of them, into reports/architectures.{json,md}
    python -m benchmarks.architectures --only llama mixtral --jobs 1     some, to the terminal

Each architecture is built small with random weights (`leakcheck.subjects.architectures`), and runs under each attention
backend; one with experts that transformers can run in several ways also under each of these. Flow traces one forward
pass. Brute force, which shares no code with flow, changes tokens in float64 and looks what moves.
"""

import argparse
import contextlib
import copy
import json
import multiprocessing
import os
import platform
import sys
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.utils import logging

import leakcheck
from leakcheck import flow
from leakcheck.probes.precision import float64
from leakcheck.subjects import architectures, backends
from leakcheck.subjects.lengths import derive_seq_len
from leakcheck.subjects.library import SWITCHES_EXPERTS
from leakcheck.subjects.subject import logits_of

REPORTS = Path(__file__).resolve().parent.parent / "reports"
COMMAND = "python -m benchmarks.architectures"
TIMEOUT = 300  # seconds for one architecture
EXPERTS = ("eager", "batched_mm", "grouped_mm")
RESOLUTION = 1e-10  # of the largest logit; float64 rounds far below, float32 far above

# What a row can be; the order is that of the report.
MISS = "MISS"  # brute force moves an output that flow says it cannot: flow is wrong
FALSE_VIOLATION = "FALSE VIOLATION"  # flow reports a violation where brute force moves nothing
CRASH = "CRASH"
OPEN = "OPEN"
LEAK = "LEAK"  # both agree
PROVEN = "PROVEN"
NOT_BUILT = "NOT BUILT"
ORDER = (MISS, FALSE_VIOLATION, CRASH, OPEN, LEAK, PROVEN, NOT_BUILT)


@dataclass
class Row:
    """One architecture under one configuration.

    `causal`: brute force moves no earlier output; `None` where it did not run. `coarse`: how many positions have a
    horizon above what brute force shows.
    """

    type: str
    attention: str
    experts: str
    result: str
    causal: bool | None = None
    length: int = 0
    coarse: int = 0
    details: list[str] = field(default_factory=list)


def examine(model_type: str) -> list[Row]:
    """The rows of one architecture."""
    try:
        model = architectures.build(model_type)
    except Exception as error:
        return [Row(model_type, "", "", NOT_BUILT, details=[_one_line(error)])]
    rows = []
    for attention, experts in configurations(model):
        try:
            with _set(model, attention, experts):
                rows.append(compare(model, model_type, attention, experts))
        except Exception as error:
            rows.append(Row(model_type, attention, experts, CRASH, details=[_one_line(error)]))
    return rows


def configurations(model: PreTrainedModel) -> list[tuple[str, str]]:
    """Attention backends with the default way to run experts, and all ways on the first backend."""
    attention = backends.available(model)
    found = [(backend, "default") for backend in attention]
    if SWITCHES_EXPERTS and model._can_set_experts_implementation() and "expert" in repr(model).lower():
        found = [(backend, EXPERTS[0]) for backend in attention] + [(attention[-1], way) for way in EXPERTS[1:]]
    return found


@contextlib.contextmanager
def _set(model: PreTrainedModel, attention: str, experts: str) -> Iterator[None]:
    if attention != "default":
        backends.switch(model, attention)
    if experts != "default":
        model.set_experts_implementation(experts)
    yield


def compare(model: PreTrainedModel, model_type: str, attention: str, experts: str) -> Row:
    """Flow and brute force on the model as it is set."""
    length = derive_seq_len(model.config, model)
    tokens = usable_tokens(model)
    generator = torch.Generator().manual_seed(0)
    ids = tokens[torch.randint(0, len(tokens), (2, length), generator=generator)]  # [batch, seq]
    torch.manual_seed(0)
    traced = flow.trace(model, ids)
    moved = brute_force(model, ids, tokens)  # [batch, seq, seq]: input j, output t
    return classify(Row(model_type, attention, experts, "", length=length), traced, moved)


def classify(row: Row, traced: flow.Trace, moved: Tensor) -> Row:
    """What flow says of each position, against which inputs move it: `moved` is `[batch, input, output]`.

    With a hole flow claims nothing, so it can miss nothing.
    """
    positions = torch.arange(moved.shape[1])
    truth = torch.where(moved, positions[:, None], -1).amax(1)  # [batch, output]: the latest input that moves it
    missed = (truth > traced.horizon) & traced.covered
    row.causal = not bool((truth > positions).any())
    row.coarse = int(((traced.horizon > truth) & traced.covered).sum())
    holes = sorted({_relative(str(hole)) for hole in traced.holes})
    if bool(missed.any()) and not holes:
        row.result = MISS
        row.details = [
            f"position {t} moves with input {int(truth[b, t])}, horizon {int(traced.horizon[b, t])}"
            for b, t in missed.nonzero().tolist()
        ]
    elif traced.violations and row.causal:
        row.result = FALSE_VIOLATION
        row.details = [f"{len(traced.violations)} of {truth.numel()} positions", *holes]
    elif traced.violations:
        row.result, row.details = LEAK, holes
    elif traced.proven:
        row.result = PROVEN
    else:
        row.result = OPEN
        row.details = holes or ["not covered, no hole named"]
        if not row.causal:
            row.details.append("brute force shows a leak")
    return row


@torch.no_grad()
def brute_force(model: nn.Module, ids: Tensor, tokens: Tensor, draws: int = 4) -> Tensor:
    """Boolean `[batch, seq, seq]`: whether a change of input j moves output t, in float64."""
    return moved(copy.deepcopy(model).double(), ids, tokens, draws)


def moved(double: nn.Module, ids: Tensor, tokens: Tensor, draws: int = 4) -> Tensor:
    """`brute_force` of a model that is in float64 already.

    Each position alone is set to several other tokens. Then every suffix is drawn anew several times; an output that
    only such a change of many tokens moves counts as moved by the earliest of them.
    """
    batch, length = ids.shape
    found = torch.zeros(batch, length, length, dtype=torch.bool)
    generator = torch.Generator().manual_seed(1)

    def other(than: Tensor) -> Tensor:
        """Another token for each."""
        at = torch.searchsorted(tokens, than)
        return tokens[(at + torch.randint(1, len(tokens), than.shape, generator=generator)) % len(tokens)]

    for row in range(batch):
        one, many = [], []
        for j in range(length):
            for _ in range(draws):
                changed = ids[row].clone()
                changed[j] = other(changed[j])
                one.append((j, changed))
                changed = ids[row].clone()
                changed[j:] = other(changed[j:])
                many.append((j, changed))
        everything = torch.stack([ids[row], *(changed for _, changed in one + many)])
        torch.manual_seed(0)
        with float64():
            logits = logits_of(double(everything))  # [1 + changes, seq, vocab]
        if logits.dtype != torch.float64 or not bool(torch.isfinite(logits).all()):
            raise RuntimeError(f"brute force needs finite float64 logits, not {logits.dtype}")
        difference = (logits[1:] - logits[0]).abs().amax(-1)  # [changes, seq]
        above = difference > RESOLUTION * logits.abs().max()
        for (j, _), outputs in zip(one, above[: len(one)], strict=True):
            found[row, j] |= outputs
        for (j, _), outputs in zip(many, above[len(one) :], strict=True):
            found[row, j] |= outputs & ~found[row, j:].any(0)
    return found


def usable_tokens(model: PreTrainedModel) -> Tensor:
    """Sorted token ids without those that have a meaning of their own (padding, image placeholders)."""
    config = model.config
    special: set[int] = set()
    _collect_special(config.to_dict(), special)
    size = config.get_text_config(decoder=True).vocab_size
    return torch.tensor([t for t in range(3, size) if t not in special])


def _collect_special(values: dict[str, Any], found: set[int]) -> None:
    for name, value in values.items():
        if isinstance(value, dict):
            _collect_special(value, found)
        elif str(name).endswith(("token_id", "token_index")):
            found.update(value if isinstance(value, list) else [value])


def _one_line(error: BaseException) -> str:
    frame = traceback.extract_tb(error.__traceback__)[-1]
    message = " ".join(str(error).split())[:200]
    return f"{type(error).__name__}: {message} ({_relative(frame.filename)}:{frame.lineno})"


def _relative(text: str) -> str:
    """Paths of installed packages without the folder that they are installed in."""
    for folder in (Path(transformers.__file__).parent.parent, Path(leakcheck.__file__).parent.parent):
        text = text.replace(f"{folder}{os.sep}", "")
    return text


def _child(pipe: Connection, model_type: str) -> None:
    torch.set_num_threads(1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pipe.send(examine(model_type))


def run(types: list[str], jobs: int) -> Iterator[list[Row]]:
    """The rows of each architecture, from a process of its own: a crash or a hang costs one row."""
    context = multiprocessing.get_context("fork")
    waiting = list(types)
    active: dict[Connection, tuple[Any, str, float]] = {}
    while waiting or active:
        while waiting and len(active) < jobs:
            here, there = context.Pipe(duplex=False)
            process = context.Process(target=_child, args=(there, waiting[0]))
            process.start()
            there.close()
            active[here] = (process, waiting.pop(0), time.monotonic())
        for pipe in wait(list(active), timeout=1):
            assert isinstance(pipe, Connection)
            process, model_type, _ = active.pop(pipe)
            try:
                rows = pipe.recv()
            except EOFError:
                process.join()
                rows = [Row(model_type, "", "", CRASH, details=[f"the process ended with code {process.exitcode}"])]
            process.join()
            yield rows
        for pipe, (process, model_type, started) in list(active.items()):
            if time.monotonic() - started > TIMEOUT:
                process.kill()
                process.join()
                del active[pipe]
                yield [Row(model_type, "", "", CRASH, details=[f"more than {TIMEOUT} s"])]


def of_types(rows: list[Row]) -> dict[str, str]:
    """One result for each architecture: the worst of its rows."""
    worst: dict[str, str] = {}
    for row in rows:
        known = worst.get(row.type, NOT_BUILT)
        worst[row.type] = min(known, row.result, key=ORDER.index)
    return worst


def document(rows: list[Row]) -> dict[str, Any]:
    results = of_types(rows)
    by_type = Counter(results.values())
    built = {name for name, result in results.items() if result != NOT_BUILT}
    causal = built - {row.type for row in rows if row.causal is False}
    return {
        "command": COMMAND,
        "versions": {
            "leakcheck": leakcheck.__version__,
            "torch": torch.__version__.partition("+")[0],
            "transformers": transformers.__version__,
            "python": platform.python_version(),
        },
        "built": len(built),
        "causal": len(causal),
        "causal_and_proven": sum(results[name] == PROVEN for name in causal),
        "architectures": {result: by_type[result] for result in ORDER},
        "configurations": {result: sum(row.result == result for row in rows) for result in ORDER},
        "rows": [asdict(row) for row in sorted(rows, key=lambda r: (r.type, r.attention, r.experts))],
    }


def markdown(found: dict[str, Any]) -> str:
    versions = ", ".join(f"{name} {version}" for name, version in found["versions"].items())
    lines = [
        "# Flow against brute force on the causal-LM architectures of transformers",
        "",
        f"`{found['command']}` ({versions})",
        "",
        f"{found['built']} architectures are built; brute force finds {found['causal']} of them causal, and flow "
        f"proves {found['causal_and_proven']} of these. An architecture counts as its worst configuration.",
        "",
        "| result | architectures | configurations |",
        "|---|--:|--:|",
        *(f"| {r} | {found['architectures'][r]} | {found['configurations'][r]} |" for r in ORDER),
    ]
    for result in ORDER:
        chosen = [row for row in found["rows"] if row["result"] == result]
        if not chosen:
            continue
        lines += ["", f"## {result}", ""]
        if result == PROVEN:
            proven = sorted({row["type"] for row in chosen})
            lines += [", ".join(proven)]
            continue
        for row in chosen:
            setting = ", ".join(s for s in (row["attention"], row["experts"]) if s)
            lines += [f"- **{row['type']}**" + (f" ({setting})" if setting else "")]
            lines += [f"  - {detail}" for detail in row["details"]]
    return "\n".join(lines) + "\n"


def write(path: Path, text: str) -> None:
    """All of it or nothing."""
    beside = path.with_name(path.name + ".tmp")
    beside.write_text(text, encoding="utf-8")
    beside.replace(path)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", metavar="TYPE", help="these model types; writes no report")
    parser.add_argument("--jobs", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(1)
    logging.set_verbosity_error()
    rows: list[Row] = []
    for found in run(options.only or architectures.names(), options.jobs):
        rows += found
        for row in found:
            print(
                f"{row.type:28} {row.attention:8} {row.experts:11} {row.result:16} coarse {row.coarse:3}  "
                + "; ".join(row.details)[:200],
                file=sys.stderr,
                flush=True,
            )
    made = document(rows)
    print(json.dumps({name: value for name, value in made.items() if name != "rows"}))
    if not options.only:
        write(REPORTS / "architectures.json", json.dumps(made, indent=1) + "\n")
        write(REPORTS / "architectures.md", markdown(made))
    return 0


if __name__ == "__main__":
    sys.exit(main())
