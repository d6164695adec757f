"""A witness as a test of its own: it needs torch and the subject, and fails until the leak is gone."""

import math
from collections.abc import Iterator

import numpy

from leakcheck.errors import UsageError
from leakcheck.findings import Array, Witness
from leakcheck.report.inputs import values
from leakcheck.report.words import visible

_SHARE = 1e-3  # of the delta: what moves less is rounding
_WRITTEN_OUT = 16  # values of a tensor of floats; of a longer one the bytes are written

_RANDOM = """\
    generator = torch.Generator().manual_seed(0)
    embeddings = {m.weight for m in model.modules() if isinstance(m, torch.nn.Embedding)}
    with torch.no_grad():
        for p in filter(torch.is_floating_point, model.parameters()):
            noise = torch.randn(p.shape, generator=generator)
            if p.dim() < 2:
                p.add_(0.1 * noise)
            else:
                p.copy_(noise if p in embeddings else noise * p[0].numel() ** -0.5)"""


def render(witness: Witness) -> str:
    """Fewer than 40 lines of Python.

    Raises:
        UsageError: the model or its call takes more than that; the message says what.
    """
    why_not = "" if witness.outputs else "it takes more than one plain call of the forward, or other outputs"
    why_not = witness.recipe.get("why_not") or why_not
    if why_not:
        raise UsageError(f"no test can be written of {witness.id}: {why_not}")
    first, second = _outputs(witness)
    moves = [f"({a} - {b}).abs().max().item()" for a, b in zip(first, second, strict=True)]
    moved = moves[0] if len(moves) == 1 else f"max({', '.join(moves)})"
    return "\n".join(
        [
            *_imports(witness),
            "",
            "",
            f"def test_{witness.codes[0].lower()}_is_fixed():",
            f'    """{_claim(witness)}."""',
            "    torch.manual_seed(0)",
            *_model(witness),
            "",
            *_arguments(witness),
            "",
            *_runs(witness),
            f"    moved = {moved}",
            f'    assert moved <= {_tolerance(witness)}, f"it moves by {{moved:.3g}}"',
            "",
        ]
    )


def _claim(witness: Witness) -> str:
    whose = f"position {witness.position} of row {witness.row}"
    under = witness.configuration["id"]
    if _same(witness):
        said = f"decoded in pieces {whose} has to be what the full forward gives, under {under}"
    else:
        differing = values(witness.tokens) != values(witness.changed)
        differing |= values(witness.scale) != 1
        rows, positions = (", ".join(map(str, sorted(set(each.tolist())))) for each in differing.nonzero())
        said = f"{whose} may not see position {positions} of row {rows}, under {under}"
    return visible(f"{', '.join(witness.codes)}: {said}").replace("\\", "\\\\").replace('"', "'")


def _imports(witness: Witness) -> Iterator[str]:
    recipe = witness.recipe
    imported = [recipe[name] for name in ("model", "config", "from") if name in recipe]
    roots = list(dict.fromkeys(one["root"] for one in imported if one["root"]))
    if _in_bytes(witness):
        yield "import base64"
    if roots:
        yield "import sys"
    if roots or _in_bytes(witness):
        yield ""
    yield "import torch"
    if recipe["kind"] == "pretrained":
        yield "from transformers import AutoModelForCausalLM"
    if roots:
        yield ""
        yield from (f"sys.path.insert(0, {root!r})" for root in roots)
    yield from (f"from {one['module']} import {one['name']}" for one in imported)


def _model(witness: Witness) -> Iterator[str]:
    recipe, attention = witness.recipe, witness.configuration["attention"]
    chosen = {} if attention == "default" else {"attn_implementation": attention}
    match recipe["kind"]:
        case "class":
            options = "".join(f", {name}={value!r}" for name, value in chosen.items())
            yield f"    config = {recipe['config']['name']}.from_dict({recipe['fields']!r})"
            yield f"    model = {recipe['model']['name']}._from_config(config{options}).float()"
            yield _RANDOM
        case "pretrained":
            options = "".join(f", {name}={value!r}" for name, value in {**recipe["options"], **chosen}.items())
            yield f"    model = AutoModelForCausalLM.from_pretrained({recipe['path']!r}{options})"
        case "program":
            yield f"    model = torch.export.load({recipe['path']!r}).module()"
        case _:
            yield f"    model = {recipe['from']['name']}()"
            if recipe["pair"]:
                yield "    model = model[0] if isinstance(model, tuple) else model"
            if chosen:
                yield f"    model.set_attn_implementation({attention!r})"
    if recipe.get("function"):
        return
    mode = witness.configuration["mode"]
    yield "    model.double()" if recipe["kind"] == "program" else f"    model.double().train({mode != 'eval'})"
    yield from (f"    model.get_submodule({name!r}).eval()" for name in witness.configuration["accepted"])
    if mode == "train+checkpointing":
        yield "    model.gradient_checkpointing_enable({'use_reentrant': False})"


def _arguments(witness: Witness) -> Iterator[str]:
    first, second = witness.arguments
    said = [f"{name!r}: {_tensor(array, witness)}" for name, array in first.items()]
    said += [f"{name!r}: {value!r}" for name, value in witness.options.items()]
    yield f"    first = {{{', '.join(said)}}}"
    others = [f"{name!r}: {_tensor(array, witness)}" for name, array in second.items() if array != first[name]]
    if others:
        yield f"    second = {{**first, {', '.join(others)}}}"
    elif not _same(witness):
        yield "    second = first"


def _runs(witness: Witness) -> Iterator[str]:
    by_name = not any(name.isdecimal() for name in (*witness.arguments[0], *witness.options))
    call = "model(**arguments)" if by_name else "model(*arguments.values())"
    yield "    def run(arguments):"
    yield "        torch.manual_seed(0)"
    if witness.configuration["mode"] == "eval":
        yield "        with torch.no_grad():"
        yield f"            return {call}"
    else:
        yield f"        return {call}"
    yield ""
    if witness.chunks:
        yield from _decoding(witness)
    yield "    a = decoded(first)" if witness.chunks else "    a = run(first)"
    scale = values(witness.scale)
    if witness.embedding and (scale != 1).any():
        yield f"    scale = torch.tensor({scale.tolist()}, dtype=torch.float64)[..., None]"
        yield f"    embedding = model.get_submodule({witness.embedding!r})"
        yield "    embedding.register_forward_hook(lambda module, args, output: output * scale)"
    if _same(witness):
        yield "    b = run(first)"
    else:
        yield "    b = decoded(second)" if witness.chunks else "    b = run(second)"


def _decoding(witness: Witness) -> Iterator[str]:
    """`decoded`, which returns the audited output alone."""
    ids = next(name for name, array in witness.arguments[0].items() if array == witness.tokens)
    (output,) = witness.outputs
    mask = ""
    if "attention_mask" in witness.arguments[0]:
        begin = "seen" if witness.cache == "cache_params" else ""
        mask = f", 'attention_mask': arguments['attention_mask'][:, {begin}:seen + piece.shape[1]]"
    cache = {"[0]": "[1]", "['logits']": f"[{witness.cache!r}]"}.get(output, f".{witness.cache}")
    yield "    def decoded(arguments):"
    yield "        seen, pieces, state = 0, [], {'use_cache': True}"
    yield f"        for piece in arguments[{ids!r}].split({list(witness.chunks)}, 1):"
    yield f"            output = run({{**arguments, {ids!r}: piece{mask}, **state}})"
    yield f"            seen, state[{witness.cache!r}] = seen + piece.shape[1], output{cache}"
    yield f"            pieces.append(output{output})"
    yield "        return torch.cat(pieces, 1)"
    yield ""


def _outputs(witness: Witness) -> tuple[list[str], list[str]]:
    """What is compared, of either run."""
    first, second = [], []
    for expression, (batch, time) in witness.outputs.items():
        index = f"[{witness.row}, {witness.position}]"
        moved = "" if (batch, time) == (0, 1) else f".movedim(({batch}, {time}), (0, 1))"
        if batch is None:
            index, moved = f"[{witness.position}]", f".movedim({time}, 0)" if time else ""
        first.append(f"a{'' if witness.chunks else expression}{moved}{index}")
        second.append(f"b{'' if witness.chunks and not _same(witness) else expression}{moved}{index}")
    return first, second


def _same(witness: Witness) -> bool:
    """Whether two ways to run the same tokens are compared."""
    alike = bool((values(witness.tokens) == values(witness.changed)).all() and (values(witness.scale) == 1).all())
    return alike and bool(witness.chunks)


def _tolerance(witness: Witness) -> str:
    return f"{_SHARE * witness.delta:.1g}" if math.isfinite(witness.delta) else "1e-6"


def _tensor(array: Array, witness: Witness) -> str:
    content = values(array)
    floats = numpy.issubdtype(content.dtype, numpy.floating)
    double = ".double()" if floats and not witness.recipe.get("function") else ""
    if floats and content.size > _WRITTEN_OUT:
        read = f"torch.frombuffer(bytearray(base64.b64decode({array.data!r})), dtype=torch.{array.dtype})"
        return f"{read}.reshape({list(array.shape)}){double}"
    kind = "" if array.dtype in ("int64", "bool", "float32") else f", dtype=torch.{array.dtype}"
    return f"torch.tensor({content.tolist()}{kind}){double}"


def _in_bytes(witness: Witness) -> bool:
    arrays = [array for arguments in witness.arguments for array in arguments.values()]
    return any("float" in array.dtype and values(array).size > _WRITTEN_OUT for array in arrays)
