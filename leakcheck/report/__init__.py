"""One document, `AuditResult`, and its renderings. Nothing here imports torch."""

from leakcheck.report import html, json, markdown, svg
from leakcheck.report.registry import RENDERERS, check_writable, write
from leakcheck.report.terminal import print_audit

__all__ = ["RENDERERS", "check_writable", "html", "json", "markdown", "print_audit", "svg", "write"]
