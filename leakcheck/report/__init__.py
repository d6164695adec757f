"""One document, `AuditResult`, and its renderings. Nothing here imports torch."""

from leakcheck.report import github, html, json, junit, markdown, sarif, svg
from leakcheck.report.registry import RENDERERS, check_writable, write
from leakcheck.report.terminal import print_audit

__all__ = [
    "RENDERERS",
    "check_writable",
    "github",
    "html",
    "json",
    "junit",
    "markdown",
    "print_audit",
    "sarif",
    "svg",
    "write",
]
