"""The configurations that a run covers."""

from torch import nn

from leakcheck.config import MASKS, Configuration, Settings
from leakcheck.errors import UsageError
from leakcheck.subjects.subject import Subject, unwrapped


def matrix(subject: Subject, settings: Settings) -> list[Configuration]:
    """Attention backend x mask x mode, as far as the subject can be switched.

    Raises:
        UsageError: a backend or a module was asked for that the subject does not have.
    """
    backends = subject.attention_backends
    if settings.attention:
        unknown = [name for name in settings.attention if name not in backends]
        if unknown:
            raise UsageError(f"--attn {unknown[0]}: {subject.spec} can run {', '.join(backends)}")
        backends = settings.attention
    masks = MASKS if subject.takes_attention_mask else MASKS[:1]
    accepted = _accepted(unwrapped(subject.model), settings.accept_batch)
    return [
        Configuration(backend, mask, mode, contract=settings.contract, accepted=accepted)
        for backend in backends
        for mask in masks
        for mode in subject.modes
    ]


def _accepted(model: nn.Module, wanted: tuple[str, ...]) -> tuple[str, ...]:
    """The names of the modules that are called so, or whose class is."""
    accepted: list[str] = []
    for what in wanted:
        found = [name for name, module in model.named_modules() if what in (name, type(module).__name__)]
        if not found:
            raise UsageError(f"--accept-batch {what}: {type(model).__name__} has no module of that name or class")
        accepted += found
    return tuple(dict.fromkeys(accepted))


def default_configuration(subject: Subject, configurations: list[Configuration]) -> Configuration:
    """What a user gets who sets nothing: the model's own backend, no mask, eval; else the first of the matrix."""
    own = getattr(getattr(unwrapped(subject.model), "config", None), "_attn_implementation", None)
    return next((c for c in configurations if c.attention == own), configurations[0])
