"""Hypothesis profiles: `dev` while writing, `ci` for every change, `soak` for a long night (`--hypothesis-profile`)."""

import torch
from hypothesis import HealthCheck, settings

torch.set_num_threads(1)  # the models are tiny

_SLOW = [HealthCheck.too_slow, HealthCheck.data_too_large]  # an example is a model that is built and probed

settings.register_profile("dev", max_examples=5, deadline=None, suppress_health_check=_SLOW)
settings.register_profile("ci", max_examples=20, deadline=None, suppress_health_check=_SLOW, derandomize=True)
settings.register_profile("soak", max_examples=2000, deadline=None, suppress_health_check=_SLOW)
settings.load_profile("ci")
