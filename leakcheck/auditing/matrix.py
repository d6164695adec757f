"""The configurations that a run covers."""

from leakcheck.config import MASKS, MODES, Configuration, Settings
from leakcheck.errors import UsageError
from leakcheck.subjects.subject import Subject


def matrix(subject: Subject, settings: Settings) -> list[Configuration]:
    """Attention backend x mask x mode, as far as the subject can be switched.

    Raises:
        UsageError: a backend was asked for that the subject does not have.
    """
    backends = subject.attention_backends
    if settings.attention:
        unknown = [name for name in settings.attention if name not in backends]
        if unknown:
            raise UsageError(f"--attn {unknown[0]}: {subject.spec} can run {', '.join(backends)}")
        backends = settings.attention
    masks = MASKS if subject.takes_attention_mask else MASKS[:1]
    modes = MODES if subject.supports_checkpointing else MODES[:2]
    return [Configuration(backend, mask, mode) for backend in backends for mask in masks for mode in modes]


def default_configuration(subject: Subject, configurations: list[Configuration]) -> Configuration:
    """What a user gets who sets nothing: the model's own backend, no mask, eval; else the first of the matrix."""
    own = getattr(getattr(subject.model, "config", None), "_attn_implementation", None)
    return next((c for c in configurations if c.attention == own), configurations[0])
