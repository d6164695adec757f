"""`leakcheck run`."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from leakcheck.cli.progress import Bar
from leakcheck.config import Limits, Settings, parse_contract
from leakcheck.errors import ExitCode, LeakcheckError, UsageError
from leakcheck.findings import AuditResult, Verdict


class Format(StrEnum):
    """What goes to standard output."""

    TEXT = "text"
    GITHUB = "github"


def run(
    model: Annotated[
        str,
        typer.Option(
            help="A built-in name, a folder from save_pretrained, hf:ORG/NAME, a config.json, file.py, "
            "file.py:factory or package.module:factory."
        ),
    ],
    attn: Annotated[list[str] | None, typer.Option(help="Audit only this attention backend; may be repeated.")] = None,
    seq_len: Annotated[
        int | None, typer.Option(help="Positions to audit. Default: enough to cross the model's chunks and windows.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Of the tokens that are drawn.")] = 0,
    no_weights: Annotated[
        bool, typer.Option("--no-weights", help="Of a folder read config.json alone, and prove the architecture.")
    ] = False,
    report: Annotated[
        list[Path] | None,
        typer.Option(help="Also write the audit here (.json, .md, .svg, .sarif or .xml: JUnit); may be repeated."),
    ] = None,
    format: Annotated[Format, typer.Option(help="Print tables, or annotations for GitHub.")] = Format.TEXT,
    contract: Annotated[
        list[str] | None,
        typer.Option(
            help="What a position may see: lookahead:N, prefix:N, window:N or bidirectional. Default: causal. May be "
            "repeated."
        ),
    ] = None,
    policy: Annotated[
        list[str] | None,
        typer.Option(
            help="What to audit: causal (the contract), batch, document, padding, cache, or all; may be repeated. "
            "Default: causal."
        ),
    ] = None,
    accept_batch: Annotated[
        list[str] | None,
        typer.Option(help="Accept that this module, or class of modules, couples the batch; may be repeated."),
    ] = None,
    input: Annotated[
        list[str] | None,
        typer.Option(help="What an argument of the forward is: 'NAME=float\\[batch, time, 80]'; may be repeated."),
    ] = None,
    output: Annotated[
        list[str] | None,
        typer.Option(help="An output to audit: '0=\\[batch, time/2, 40]'. Default: all over time. May be repeated."),
    ] = None,
    trust_remote_code: Annotated[
        bool,
        typer.Option("--trust-remote-code", help="Run the code that a folder or hf: model brings along (auto_map)."),
    ] = False,
    timeout: Annotated[float | None, typer.Option(help="Seconds after which the audit is stopped; exit 3.")] = None,
    memory_limit: Annotated[
        str | None, typer.Option(metavar="<size>", help="Memory, as 8GiB, above which the audit is stopped; exit 3.")
    ] = None,
    witnesses: Annotated[
        Path, typer.Option(help="Folder for the smallest inputs that show each leak, which `leakcheck replay` runs.")
    ] = Path(".leakcheck/witnesses"),
    emit_test: Annotated[
        Path | None, typer.Option(help="Write a pytest file of the first leak, as `leakcheck replay --emit-test` does.")
    ] = None,
    strict: Annotated[bool, typer.Option("--strict", help="Exit 4 unless the verdict is PROVEN.")] = False,
) -> None:
    """Audit a model; exit 0 when the gate holds, 1 on a leak."""
    from leakcheck import isolation
    from leakcheck.report import check_writable, github, print_audit, write
    from leakcheck.report.witness import store

    reports = report or []
    for path in reports:
        check_writable(path)

    settings = Settings(
        attention=tuple(attn) if attn else None,
        seq_len=seq_len,
        seed=seed,
        policies=tuple(policy) if policy else Settings.policies,
        contract=parse_contract(tuple(contract or ())),
        accept_batch=tuple(accept_batch or ()),
        inputs=tuple(input or ()),
        no_weights=no_weights,
        trust_remote_code=trust_remote_code,
        outputs=tuple(output or ()),
    )
    limits = Limits(timeout, isolation.parse_size(memory_limit) if memory_limit is not None else None)
    with Bar() as bar:
        result = isolation.audit(model, settings, limits, progress=bar.step)
    try:
        result = store(result, witnesses)
    except LeakcheckError as error:  # must not hide the verdict
        _warn(str(error))
    if format is Format.GITHUB:
        typer.echo(github.render(result), nl=False)
    else:
        print_audit(result, Console())
    for path in reports:
        write(result, path)
    if emit_test is not None:
        _emit(result, emit_test)
    raise typer.Exit(exit_code(result, strict=strict))


def _emit(result: AuditResult, path: Path) -> None:
    """The first leak as a test; where there is none to be had, a line that says so: the verdict stays what it is."""
    from leakcheck.report import pytest_file
    from leakcheck.report.registry import put

    try:
        if not result.witnesses:
            raise UsageError(f"no test is written to {path}: no inputs are known that show a leak")
        put(pytest_file.render(result.witnesses[0]), path)
    except LeakcheckError as error:
        _warn(str(error))


def _warn(what: str) -> None:
    from leakcheck.report.words import visible

    typer.echo(f"leakcheck: {visible(what)}", err=True)


def exit_code(result: AuditResult, *, strict: bool) -> ExitCode:
    """The gate: a leak is 1; a pass without a proof is 4 under `--strict`; an audit of no pair at all is 5."""
    if result.verdict is Verdict.LEAK:
        return ExitCode.LEAK
    if strict and result.verdict in (Verdict.SUSPECT, Verdict.OPEN):
        return ExitCode.INCONCLUSIVE
    if not any(c.pairs_covered for c in result.configurations):
        return ExitCode.NOTHING_CHECKED
    return ExitCode.GATE_HOLDS
