"""Any model as one that reads token ids and returns a row of numbers for each, so that all are audited in one way."""

from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

import torch
from torch import Tensor, nn

from leakcheck.errors import SubjectCrash
from leakcheck.subjects.function import Function, called, forward_parameters
from leakcheck.subjects.inputs import BATCH, TIME, Argument, Inputs, Result
from leakcheck.subjects.outputs import aligned, named_tensors

VOCABULARY = 97  # of random feature vectors, where a model reads no token ids


class Front(nn.Module):
    """Turns ids `[batch, seq]` into the arguments of a forward, each in the layout that was described.

    Of features, id i stands for the i-th of a table of random vectors. What is held fixed is drawn once.
    """

    def __init__(self, inputs: Inputs, examples: Mapping[str, Tensor] | None = None):
        super().__init__()
        self.inputs, self.ids = inputs, nn.Identity()
        self.widths = {
            name: int(torch.Size(a.features).numel()) for name, a in inputs.audited.items() if a.kind == "float"
        }
        self.own: Tensor | None = None  # ids of an example
        self.table: nn.Embedding | None = None
        generator = torch.Generator().manual_seed(0)
        given = {name: value for name, value in (examples or {}).items() if name in inputs.audited}
        if self.widths:
            vectors = torch.randn(VOCABULARY, sum(self.widths.values()), generator=generator)
            if given.keys() == self.widths.keys():
                own = torch.cat([_steps(inputs.audited[name], given[name]) for name in self.widths], -1)
                self.own = torch.arange(VOCABULARY, VOCABULARY + len(own))
                vectors = torch.cat([vectors * own.std() + own.mean(), own])
            self.table = nn.Embedding.from_pretrained(vectors)
        elif given:
            name, value = next(iter(given.items()))
            self.own = _steps(inputs.audited[name], value)[:, 0].long()
        for name, a in inputs.arguments.items():
            if isinstance(a, Argument) and TIME not in a.axes:
                shape = [axis if isinstance(axis, int) else 1 for axis in a.axes]
                if a.kind == "int":
                    drawn = torch.randint(a.below or 1, shape, generator=generator)
                    self.register_buffer(f"fixed_{name}", drawn, persistent=False)
                elif a.kind == "float":  # a parameter, so that nothing is assumed of its values
                    drawn = torch.randn(shape, generator=generator)
                    self.register_parameter(f"fixed_{name}", nn.Parameter(drawn, requires_grad=False))

    @property
    def vocabulary(self) -> int:
        below = [a.below for a in self.inputs.audited.values() if a.below]
        return self.table.num_embeddings if self.table is not None else min(below)

    def forward(self, ids: Tensor) -> tuple[Tensor, Tensor | None]:
        """The ids, and with features their vectors `[batch, seq, features]`, of all arguments side by side."""
        ids = self.ids(ids)
        return ids, None if self.table is None else self.table(ids)

    def arguments(self, ids: Tensor, vectors: Tensor | None) -> dict[str, Any]:
        """The arguments of one call."""
        features = {}
        if vectors is not None:
            features = dict(zip(self.widths, vectors.split(list(self.widths.values()), -1), strict=True))
        return {
            name: self._argument(name, a, ids, features.get(name))
            if isinstance(a, Argument)
            else self._given(a, len(ids))
            for name, a in self.inputs.arguments.items()
        }

    def _given(self, value: Any, rows: int) -> Any:
        if isinstance(value, Tensor) and value.dim() and len(value) == self.inputs.rows:
            return value[:1].expand(rows, *value.shape[1:])
        return value

    def _argument(self, name: str, a: Argument, ids: Tensor, features: Tensor | None) -> Tensor:
        rows, seq = ids.shape
        sizes = [axis if isinstance(axis, int) else rows if axis == BATCH else seq for axis in a.axes]
        if a.kind == "bool":
            return torch.ones(sizes, dtype=torch.bool)
        if a.kind == "length":
            return torch.full(sizes, seq)
        if TIME not in a.axes:
            return getattr(self, f"fixed_{name}").expand(sizes)
        if a.kind == "float":
            assert features is not None
            values = features.reshape(rows, seq, *a.features)
        else:
            assert a.below is not None
            values = ids if a.below >= self.vocabulary else ids % a.below
            values = values.reshape(rows, seq, *[1] * len(a.features)).expand(rows, seq, *a.features)
        if not a.batched:
            (values,) = values  # one row, run by itself
        return values.permute(_order(a))


def _order(a: Argument) -> list[int]:
    """Where each axis of the description lies in `[batch, time, *features]`."""
    leading = [BATCH, TIME] if a.batched else [TIME]
    others = iter(range(len(leading), len(a.axes)))
    return [leading.index(axis) if axis in leading else next(others) for axis in a.axes]


def _steps(a: Argument, value: Tensor) -> Tensor:
    """The vectors `[time, features]` of the first row of a tensor in the described layout."""
    order = _order(a)
    steps = value.detach().permute([order.index(d) for d in range(len(order))])  # [batch, time, *features]
    steps = steps[0] if a.batched else steps
    return (steps.float() if a.kind == "float" else steps).reshape(len(steps), -1)


class Adapter(nn.Module):
    """Reads token ids `[batch, seq]` and returns `[batch, seq, channels]`, whatever `audited` reads and returns.

    Row t of the output holds all that the model has put out by step t. A model that puts out one step for r of its
    inputs does so once it has read all r; one that puts out several for each, all at once.
    """

    def __init__(
        self,
        model: Callable[..., Any],
        inputs: Inputs,
        results: Mapping[str, Result],
        *,
        examples: Mapping[str, Tensor] | None = None,
    ):
        super().__init__()
        self.audited = model if isinstance(model, nn.Module) else Function(model)
        self.front = Front(inputs, examples)
        self.inputs, self.results = inputs, dict(results)
        self.by_rows = not all(a.batched for a in inputs.audited.values())
        self._reads: str | None = None  # the name of the embedding that is given the ids

    @property
    def config(self) -> Any:
        return getattr(self.audited, "config", None)

    @property
    def vocabulary(self) -> int:
        return self.front.vocabulary

    @property
    def fixed_length(self) -> int | None:
        """The only number of steps that the model takes, if there is one."""
        return next((a.fixed for a in self.inputs.audited.values() if a.fixed), None)

    @property
    def held(self) -> set[int]:
        """Sizes of tokens that are held fixed: the embedding that reads them may be the one that is tapped."""
        arguments = self.inputs.arguments.values()
        fixed = [a for a in arguments if isinstance(a, Argument) and a.kind == "int" and not a.audited]
        return {size for a in fixed for size in a.features}

    def base(self, seq: int) -> Tensor | None:
        """The ids `[seq]` of the first row of the examples, as often as they fit; `None` without examples."""
        own = self.front.own
        return None if own is None else own.repeat(-(-seq // len(own)))[:seq]

    @property
    def step(self) -> int:
        """Of how many inputs one output is made; 1 where every input has one."""
        rates = [result.rate for result in self.results.values()]
        return max([1, *(rate.denominator for rate in rates)])

    @property
    def mask_argument(self) -> str | None:
        """The forward's parameter that says which of the audited tokens are padding."""
        parameters = forward_parameters(self.audited)
        for name in ("decoder_attention_mask", "attention_mask"):
            if name in parameters and name not in self.inputs.arguments and not self.by_rows:
                return name
        return None

    @property
    def tap(self) -> nn.Module:
        """The module whose output `[batch, seq, ...]` stands for the inputs: there leaks are planted."""
        if self.front.table is not None:
            return self.front.table
        if self.by_rows:
            return self.front.ids
        if self._reads is None:
            self._reads = _embedding_of_ids(self) or ""
        return self.audited.get_submodule(self._reads) if self._reads else self.front.ids

    def train(self, mode: bool = True) -> "Adapter":
        self.training = mode
        with suppress(NotImplementedError):  # an exported program has one mode
            self.audited.train(mode)
        return self

    @property
    def has_modes(self) -> bool:
        return not isinstance(self.audited, torch.fx.GraphModule)

    def forward(self, ids: Tensor, attention_mask: Tensor | None = None, **others: Any) -> Tensor:
        """`others` replace what the arguments of the audited forward would be."""
        ids, vectors = self.front(ids)
        if not self.by_rows:
            return self._rows(self._call(ids, vectors, attention_mask, others), ids)
        each = [slice(row, row + 1) for row in range(len(ids))]
        return torch.cat(
            [self._rows(self._call(ids[r], None if vectors is None else vectors[r], None), ids[r]) for r in each]
        )

    def outputs(self, ids: Tensor) -> dict[str, Tensor]:
        """The tensors that the model itself returns for ids `[batch, seq]`, by name."""
        ids, vectors = self.front(ids)
        return dict(named_tensors(self._call(ids, vectors, None)))

    def _call(
        self,
        ids: Tensor,
        vectors: Tensor | None,
        attention_mask: Tensor | None,
        others: Mapping[str, Any] | None = None,
    ) -> Any:
        arguments = {**self.front.arguments(ids, vectors), **(others or {})}
        if attention_mask is not None and self.mask_argument:
            arguments[self.mask_argument] = attention_mask
        if "use_cache" not in arguments and "use_cache" in forward_parameters(self.audited):
            arguments["use_cache"] = False
        return called(self.audited, arguments)

    def _rows(self, output: Any, ids: Tensor) -> Tensor:
        """The audited outputs side by side, `[batch, seq, channels]`."""
        leaves = dict(named_tensors(output))
        missing = self.results.keys() - leaves.keys()
        if missing:
            returned = ", ".join(leaves) or "no tensor"
            raise SubjectCrash(f"the forward returned no output {min(missing)!r}; it returned {returned}")
        rows = [aligned(leaves[name], result, *ids.shape) for name, result in self.results.items()]
        return torch.cat(rows, -1) if len(rows) > 1 else rows[0]


def _embedding_of_ids(adapter: Adapter) -> str | None:
    """The name of the first embedding that is given the ids themselves."""
    seq = adapter.fixed_length or 24
    ids = torch.arange(seq)[None] % adapter.vocabulary
    found: list[str] = []
    handles = []
    for name, module in adapter.audited.named_modules():
        if isinstance(module, nn.Embedding):

            def seen(module: nn.Module, args: tuple, output: Any, name: str = name) -> None:
                if args and isinstance(args[0], Tensor) and torch.equal(args[0].reshape(-1), ids[0].to(args[0].dtype)):
                    found.append(name)

            handles.append(module.register_forward_hook(seen))
    try:
        with torch.no_grad(), suppress(Exception):  # it is run again where that is told
            adapter.outputs(ids)
    finally:
        for handle in handles:
            handle.remove()
    return found[0] if found else None
