"""For the whole suite: one thread. The models are tiny, and the tests run beside each other already."""

import torch

torch.set_num_threads(1)
