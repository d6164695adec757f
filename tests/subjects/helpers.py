"""What the tests of loading share."""

import pytest
import torch

from leakcheck.errors import UsageError
from leakcheck.subjects.load import load
from leakcheck.subjects.subject import logits_of


def refusal(spec, **options) -> str:
    """The message of the UsageError that a SPEC raises; it must be one line."""
    with pytest.raises(UsageError) as caught:
        load(str(spec), **options)
    message = str(caught.value)
    assert "\n" not in message
    return message


def run(subject) -> torch.Tensor:
    tokens = torch.arange(2 * subject.seq_len).view(2, -1) % subject.vocab_size
    with torch.no_grad():
        return logits_of(subject.model(tokens))
