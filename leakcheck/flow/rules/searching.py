"""Where values lie among others, what takes its turn, and which elements share a bag."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from leakcheck.flow import labels as L
from leakcheck.flow.context import Context, tensors_of
from leakcheck.flow.labels import HOLE, KNOWN, ZERO, Labels
from leakcheck.flow.operand import Operand
from leakcheck.flow.registry import rule
from leakcheck.flow.rules.matmul import contract
