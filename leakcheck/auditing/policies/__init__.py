"""Policies beside causality, one a file: what may not reach what. Importing this package registers them all."""

from leakcheck.auditing.policies import batch, cache, document, padding
from leakcheck.auditing.policies.judge import Judge
from leakcheck.auditing.policies.outcome import Answer, Policed, PolicyOutcome
from leakcheck.auditing.policies.registry import POLICIES, Policy, asked_for, policy

__all__ = [
    "POLICIES",
    "Answer",
    "Judge",
    "Policed",
    "Policy",
    "PolicyOutcome",
    "asked_for",
    "batch",
    "cache",
    "document",
    "padding",
    "policy",
]
