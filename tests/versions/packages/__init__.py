"""Packages as users wrote them for one version of transformers; tests copy them."""

from pathlib import Path

PACKAGES = Path(__file__).parent
