"""Finding codes: `LC` and three digits, by family. A code is never renumbered.

1xx future dependence, 2xx masks, padding, packing, 3xx cache and decoding, 4xx batch and determinism,
5xx recompute path, 8xx holes in the proof, 9xx the tool itself.

A code is a page beside this file, `LC101.md`: reports, `leakcheck explain` and docs/codes.md have their words from it.
"""

import re
from dataclasses import dataclass, field
from importlib import resources

HEADINGS = ("What it finds", "Why it is bad", "How it comes about", "Example", "How to fix it")


@dataclass(frozen=True)
class Code:
    """A code and its page in Markdown: a title, and a section for each of `HEADINGS`."""

    id: str
    page: str = field(repr=False)

    def section(self, heading: str) -> str:
        """What stands below one of `HEADINGS`."""
        return self.page.partition(f"\n## {heading}\n")[2].partition("\n## ")[0].strip()

    @property
    def title(self) -> str:
        """What a finding of this code says, in half a sentence."""
        return self.page.partition("\n")[0].removeprefix(f"# {self.id}: ")

    @property
    def remedy(self) -> str:
        """What to do, in half a sentence: how the section about it begins."""
        first = " ".join(self.section("How to fix it").partition("\n\n")[0].split())
        return f"{first[:1].lower()}{first[1:]}".removesuffix(".")

    @property
    def description(self) -> str:
        """What it finds and why that is bad, in plain text of at most 1000 characters."""
        text = f"{self.section('What it finds')} {self.section('Why it is bad')}"
        return " ".join(text.replace("`", "").split())


def _pages() -> dict[str, Code]:
    files = (file for file in resources.files(__name__).iterdir() if re.fullmatch(r"LC\d{3}\.md", file.name))
    ids = {file.name.removesuffix(".md"): file.read_text(encoding="utf-8") for file in files}
    return {id: Code(id, ids[id]) for id in sorted(ids)}


CODES = _pages()

FUTURE_DEPENDENCE = CODES["LC101"]
DEAD_DEPENDENCE = CODES["LC102"]
GRADIENT_ONLY = CODES["LC103"]
ADMITTED = CODES["LC104"]
SEES_NO_LATER = CODES["LC105"]
BEYOND_WINDOW = CODES["LC106"]
MASK_IS_NONE = CODES["LC201"]
SOFT_MASK = CODES["LC202"]
MASK_UNUSED = CODES["LC203"]
PADDING_DEPENDENCE = CODES["LC204"]
DOCUMENT_DEPENDENCE = CODES["LC205"]
CACHE_DISAGREES = CODES["LC301"]
CACHE_SHOWS_FUTURE = CODES["LC302"]
ROW_DEPENDENCE = CODES["LC401"]
RECOMPUTE_LEAK = CODES["LC501"]
NO_RULE = CODES["LC801"]
OPAQUE = CODES["LC802"]
CONTROL_FLOW = CODES["LC803"]
CONTROL_MISSED = CODES["LC901"]
VACUOUS = CODES["LC902"]
CONTRADICTION = CODES["LC903"]
DID_NOT_RUN = CODES["LC904"]
