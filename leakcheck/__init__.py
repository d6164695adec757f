"""leakcheck tells whether a sequence model cheats: can anything at or before position t depend on an input after t?"""

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"
__all__ = ["__version__", "audit"]

if TYPE_CHECKING:
    from leakcheck.auditing import audit


def __getattr__(name: str) -> Any:
    # Importing torch costs seconds; `import leakcheck` must not.
    if name == "audit":
        from leakcheck.auditing import audit

        return audit
    raise AttributeError(f"module 'leakcheck' has no attribute {name!r}")
