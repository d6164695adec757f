"""Small models of the library: what varies stays within what the architecture takes; leaks can be planted in them."""

import torch
from hypothesis import Phase, find, given, settings

from leakcheck.laws import Broken, Twin, causal
from leakcheck.strategies import Mutant, Small, configurations, mutants, mutators
from leakcheck.subjects import architectures
from leakcheck.zoo import MUTATORS

QUICK = settings(max_examples=12, deadline=None, database=None, derandomize=True, phases=set(Phase) - {Phase.explain})
NAMES = ("llama", "mistral", "mixtral", "deepseek_v3", "gpt2")
TOKENS = torch.tensor([[1, 2, 3, 4]])


@QUICK
@given(configurations(names=NAMES))
def test_a_small_model_is_built_as_it_says(small: Small) -> None:
    model = small.build()
    assert model.config.model_type == small.model_type
    assert all(getattr(model.config, name) == size for name, size in small.fields)
    again = small.build().state_dict()
    assert all(torch.equal(value, again[name]) for name, value in model.state_dict().items())
    assert Twin(model).double.logits(TOKENS).isfinite().all()


def test_layers_heads_experts_and_windows_vary_and_shrink() -> None:
    small = find(configurations(names=["mixtral"]), lambda small: True, settings=QUICK)
    assert (
        dict(small.fields).items()
        >= {
            "num_hidden_layers": 1,
            "num_attention_heads": 1,
            "num_key_value_heads": 1,
            "num_local_experts": 2,
        }.items()
    )
    for name, size in (("num_hidden_layers", 3), ("num_local_experts", 4), ("num_key_value_heads", 2)):
        other = find(
            configurations(names=["mixtral"]),
            lambda small, name=name, size=size: dict(small.fields)[name] == size,
            settings=settings(QUICK, max_examples=200),
        )
        assert dict(other.fields)[name] == size
    windows = find(configurations(names=["mistral"]), lambda s: dict(s.fields)["sliding_window"] == 5, settings=QUICK)
    assert windows.build().config.sliding_window == 5


def test_what_an_architecture_refuses_is_left_out() -> None:
    assert "rwkv" in architectures.names()
    small = find(configurations(names=["rwkv"]), lambda small: True, settings=QUICK)
    assert dict(small.fields)["num_hidden_layers"] == 2  # it divides by one less than that


def test_a_leak_is_planted_in_it() -> None:
    def leaks(mutant: Mutant) -> bool:
        try:
            causal(mutant.build(leaky=True), TOKENS, torch.tensor([[1, 2, 3, 5]]))
        except Broken:
            return True
        return False

    successor = mutators(names=["last_layer_reads_successor"])
    mutant = find(mutants(hosts=configurations(names=["llama"]), planted=successor), leaks, settings=QUICK)
    causal(mutant.build(leaky=False), TOKENS, torch.tensor([[1, 2, 3, 5]]))
    assert mutant.mutator in MUTATORS
