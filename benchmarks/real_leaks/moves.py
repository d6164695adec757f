"""`python -m benchmarks.real_leaks.moves SPEC LENGTH`: does a later input move an earlier output? By brute force."""

import sys
import warnings

import torch

from benchmarks.architectures import moved
from leakcheck.subjects.load import load


def moves(spec: str, length: int) -> bool:
    """In float64, eval mode and the attention backend that the model has by itself."""
    subject = load(spec)
    ids = torch.randint(subject.vocab_size, (2, length), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        found = moved(subject.model.double(), ids, torch.arange(subject.vocab_size))  # [batch, input, output]
    return bool(found.tril(-1).any())


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    print("moves" if moves(sys.argv[1], int(sys.argv[2])) else "nothing moves")
