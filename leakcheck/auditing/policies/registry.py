"""The registry of policies: one decorator, one dictionary, an error on a duplicate.

A policy is a function of a prober and a configuration that returns the questions to put; none if it does not apply.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from leakcheck.auditing.policies.question import Question
from leakcheck.config import CAUSAL, Configuration
from leakcheck.errors import UsageError
from leakcheck.probes.probe import Prober

Ask = Callable[[Prober, Configuration], Sequence[Question]]


@dataclass(frozen=True)
class Policy:
    """`needs` says in words what a model must have for the policy to apply."""

    name: str
    needs: str
    questions: Ask


POLICIES: dict[str, Policy] = {}


def policy(name: str, *, needs: str) -> Callable[[Ask], Ask]:
    """Register the decorated function as the policy of that name.

    Raises:
        ValueError: the name is taken.
    """

    def register(ask: Ask) -> Ask:
        if name in (*POLICIES, str(CAUSAL)):
            raise ValueError(f"policy {name} is registered twice")
        POLICIES[name] = Policy(name, needs, ask)
        return ask

    return register


def asked_for(names: Sequence[str]) -> tuple[str, ...]:
    """The names of `Settings.policies`, each once, with `all` spelled out.

    Raises:
        UsageError: there is no such policy.
    """
    known = (str(CAUSAL), *POLICIES)
    for name in names:
        if name not in (*known, "all"):
            raise UsageError(f"--policy {name}: known are {', '.join(known)} and all")
    return known if "all" in names else tuple(dict.fromkeys(names))
