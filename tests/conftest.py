"""For the whole suite: one thread, since models are tiny and tests run beside each other; and shorter audits."""

import pytest
import torch

torch.set_num_threads(1)


@pytest.fixture
def in_eval_mode(monkeypatch):
    """Audits leave out the train modes, two thirds of the matrix, where what is asked has nothing to do with them."""
    from leakcheck import auditing
    from leakcheck.auditing.matrix import matrix

    monkeypatch.setattr(auditing, "matrix", lambda *given: [c for c in matrix(*given) if c.mode == "eval"])
