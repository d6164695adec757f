"""leakcheck tells whether a sequence model cheats: can anything at or before position t depend on an input after t?"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"
__all__ = ["Inputs", "Settings", "__version__", "audit", "watch"]

if TYPE_CHECKING:
    from leakcheck.auditing import audit
    from leakcheck.auditing.watching import watch
    from leakcheck.config import Settings
    from leakcheck.subjects.inputs import Inputs

_WHERE = {
    "audit": "leakcheck.auditing",
    "watch": "leakcheck.auditing.watching",
    "Settings": "leakcheck.config",
    "Inputs": "leakcheck.subjects.inputs",
}


def __getattr__(name: str) -> Any:
    # Importing torch costs seconds; `import leakcheck` must not.
    if name in _WHERE:
        return getattr(import_module(_WHERE[name]), name)
    raise AttributeError(f"module 'leakcheck' has no attribute {name!r}")
