"""Models out of Python code: discovery, packages, factories, and everything that a user's file can do wrong."""

import sys
import textwrap

import pytest
import torch
from transformers import GPT2LMHeadModel, LlamaForCausalLM

from leakcheck.subjects.load import load

from .helpers import refusal, run

FACTORY = """
    from torch import nn

    def build():
        return nn.Sequential(nn.Embedding(50, 8), nn.Linear(8, 50)).double()
"""
CONFIG = """
    from transformers import LlamaConfig

    class OwnConfig(LlamaConfig):
        model_type = "own"
        num_key_value_heads: int | None = 8
"""
MODEL = """
    from transformers import LlamaForCausalLM
    {import_config}

    class OwnForCausalLM(LlamaForCausalLM):
        def __init__(self, config: OwnConfig):
            super().__init__(config)
"""


@pytest.fixture
def write(tmp_path):
    def write(name, content, **fields):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(content).format(**fields) if fields else textwrap.dedent(content))
        return path

    return write


def assert_own_model(subject):
    assert type(subject.model).__name__ == "OwnForCausalLM"
    config = subject.model.config
    assert type(config).__name__ == "OwnConfig"
    assert (config.num_hidden_layers, config.num_key_value_heads, config.vocab_size) == (3, 2, 97)
    assert (subject.weights, subject.seq_len) == ("random", 13)
    assert run(subject).shape == (2, 13, 97)


# --- where a file is


def test_file_in_a_package_with_relative_imports(write):
    write("outer/__init__.py", "")
    write("outer/inner/__init__.py", "")
    write("outer/shared/__init__.py", "")
    write("outer/shared/configuration.py", CONFIG)
    path = write("outer/inner/modeling.py", MODEL, import_config="from ..shared.configuration import OwnConfig")
    subject = load(str(path))
    assert_own_model(subject)
    assert type(subject.model).__module__ == "outer.inner.modeling"


@pytest.mark.parametrize("folder", ["plain", "model-v1.0", "123"])
def test_relative_imports_without_a_package(folder, write):
    write(f"{folder}/configuration.py", CONFIG)
    path = write(f"{folder}/modeling.py", MODEL, import_config="from .configuration import OwnConfig")
    assert_own_model(load(str(path)))


def test_relative_imports_of_the_folder_above_without_a_package(write):
    write("family/configuration.py", CONFIG)
    path = write("family/member/modeling.py", MODEL, import_config="from ..configuration import OwnConfig")
    assert_own_model(load(str(path)))


def test_sibling_imports_of_a_file_on_its_own(write):
    write("configuration.py", CONFIG)
    path = write("modeling-1.2.py", MODEL, import_config="from configuration import OwnConfig")
    before = list(sys.path)
    assert_own_model(load(str(path)))
    assert sys.path == before


def test_configuration_class_from_an_imported_module_of_the_package(write):
    write("package_a/__init__.py", "")
    write("package_a/configuration.py", CONFIG)
    path = write(
        "package_a/modeling.py",
        """
        from transformers import LlamaForCausalLM
        from . import configuration

        class OwnForCausalLM(LlamaForCausalLM):
            pass
        """,
    )
    assert_own_model(load(str(path)))


def test_two_folders_with_modules_of_the_same_name(write, tmp_path):
    """Neither file is answered from the other's helper, nor package from the other's package."""
    for folder, size in (("a", 40), ("b", 50)):
        write(f"{folder}/helper.py", f"VOCABULARY = {size}")
        write(
            f"{folder}/file.py",
            """
            from torch import nn

            def build():
                from helper import VOCABULARY  # as late as can be
                return nn.Sequential(nn.Embedding(VOCABULARY, 8))
            """,
        )
        write(f"{folder}/package_b/__init__.py", "")
        write(f"{folder}/package_b/helper.py", f"VOCABULARY = {size}")
        write(
            f"{folder}/package_b/file.py",
            """
            from torch import nn
            from .helper import VOCABULARY

            class Own(nn.Sequential):
                pass

            def build():
                return Own(nn.Embedding(VOCABULARY, 8))
            """,
        )
    for file in ("file.py", "package_b/file.py"):
        first, second = tmp_path / "a" / file, tmp_path / "b" / file
        subjects = [load(str(path)) for path in (first, second, first)]
        assert [subject.vocab_size for subject in subjects] == [40, 50, 40]
        assert type(subjects[0].model) is type(subjects[2].model)


def test_no_bytecode_is_left_behind(write, tmp_path):
    write("helper.py", "")
    load(str(write("file.py", "import helper\n" + textwrap.dedent(FACTORY))))
    assert not list(tmp_path.rglob("__pycache__"))


def test_loaded_twice(write):
    """A file that registers itself with the library can do so only once."""
    path = write(
        "file.py",
        textwrap.dedent(CONFIG)
        + textwrap.dedent(MODEL).format(import_config="")
        + "from transformers import AutoConfig\nAutoConfig.register('own', OwnConfig)\n",
    )
    assert type(load(str(path)).model) is type(load(str(path)).model)


# --- which model


def test_factory(write):
    subject = load(str(write("file.py", FACTORY)))
    assert (subject.weights, subject.vocab_size, subject.seq_len) == ("as built", 50, 13)
    assert subject.rebuild is None
    assert subject.attention_backends == ("default",)
    assert not subject.model.training
    assert {parameter.dtype for parameter in subject.model.parameters()} == {torch.float32}
    assert run(subject).shape == (2, 13, 50)


def test_factory_draws_the_same_weights_every_time(write):
    path = write("file.py", FACTORY)
    first = load(str(path)).model[0].weight
    torch.rand(3)
    assert torch.equal(load(str(path)).model[0].weight, first)


def test_factory_weights_are_not_drawn_anew(write):
    content = (
        FACTORY + "\n    def zeros():\n        m = build()\n        nn.init.zeros_(m[1].weight)\n        return m\n"
    )
    path = write("file.py", content)
    assert not load(f"{path}:zeros").model[1].weight.any()


@pytest.mark.parametrize("annotation", ["nn.Module", "'nn.Module'", "nn.Sequential"])
def test_factory_by_its_return_annotation(annotation, write):
    content = FACTORY.replace("def build():", f"def anything(size: int = 3) -> {annotation}:")
    assert load(str(write("file.py", content))).vocab_size == 50


def test_a_factory_wins_over_a_class(write):
    content = textwrap.dedent(FACTORY) + textwrap.dedent(CONFIG) + textwrap.dedent(MODEL).format(import_config="")
    path = write("file.py", content)
    assert load(str(path)).weights == "as built"
    assert_own_model(load(f"{path}:OwnForCausalLM"))


def test_functions_that_are_no_factories(write):
    """Private ones, imported ones, and those with required parameters."""
    write("helper.py", FACTORY)
    content = textwrap.dedent(FACTORY).replace("build()", "build_model()") + textwrap.dedent(
        """
        from helper import build

        def _hidden() -> nn.Module: ...
        def wrap(inner) -> nn.Module: ...
        def tokenizer(): ...
        """
    )
    assert load(str(write("file.py", content))).vocab_size == 50


def test_a_class_that_generates_is_a_causal_lm(write):
    path = write("file.py", "from transformers import GPT2LMHeadModel\nclass Own(GPT2LMHeadModel): pass\n")
    subject = load(str(path))
    assert isinstance(subject.model, GPT2LMHeadModel)
    assert subject.model.config.n_layer == 3


def test_library_file():
    import transformers.models.llama.modeling_llama as module

    assert type(load(module.__file__).model) is LlamaForCausalLM


def test_module_and_factory(write, tmp_path, monkeypatch):
    write("importable_models.py", FACTORY)
    monkeypatch.chdir(tmp_path)
    assert load("importable_models:build").vocab_size == 50
    assert "nothing in it is called 'other'; models in it: build" in refusal("importable_models:other")
    assert "No module named" in refusal("no_such_module:build")


def test_rebuild_of_a_factorys_model(write):
    path = write(
        "file.py",
        """
        from transformers import LlamaConfig, LlamaForCausalLM

        def build():
            return LlamaForCausalLM(LlamaConfig(vocab_size=97, hidden_size=32, intermediate_size=64,
                                                num_hidden_layers=2, num_attention_heads=4))
        """,
    )
    subject = load(str(path))
    rebuilt = subject.rebuild({"rms_norm_eps": 0.5})
    assert rebuilt.config.rms_norm_eps == 0.5
    assert torch.equal(rebuilt.lm_head.weight, subject.model.lm_head.weight)


# --- what goes wrong


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("def build(:\n    pass\n", "file.py:1: invalid syntax"),
        ("import os\n\nraise ValueError('two\\nlines')\n", "file.py:3: importing file.py raised ValueError: two lines"),
        ("import sys\nsys.exit(0)\n", "file.py:2: importing file.py raised SystemExit: 0"),
        ("import no_such_library\n", "No module named 'no_such_library'"),
        ("from .nothing import x\n", "importing file.py raised ModuleNotFoundError"),
        ("x = 3\n", "no model in it"),
        (
            "from torch import nn\ndef a() -> nn.Module: ...\ndef build(): ...\n",
            "several models in it (a, build); choose one",
        ),
        (
            "from transformers import LlamaForCausalLM\nclass AForCausalLM(LlamaForCausalLM): pass\n"
            "class BForCausalLM(LlamaForCausalLM): pass\n",
            "several models in it (AForCausalLM, BForCausalLM); choose one",
        ),
        ("def build():\n    raise RuntimeError('no\\ndata')\n", "file.py:build raised: RuntimeError: no data"),
        ("def build():\n    raise SystemExit('bye')\n", "file.py:build raised: SystemExit: bye"),
        ("def build():\n    return {'weights': 1}\n", "file.py:build returned a dict"),
        ("def build():\n    pass\n", "file.py:build returned a NoneType"),
        (
            "from transformers import LlamaForCausalLM\nclass OwnForCausalLM(LlamaForCausalLM):\n"
            "    def __init__(self, config):\n        super().__init__(config)\n        config.no_such_field\n",
            "OwnForCausalLM could not be built small: AttributeError",
        ),
        (
            "from transformers import LlamaForCausalLM\nclass OwnForCausalLM(LlamaForCausalLM):\n"
            "    def __init__(self, config):\n        assert config.hidden_size > 99\n",
            "OwnForCausalLM could not be built small: AssertionError; give a factory: file.py:factory",
        ),
        (
            "from transformers import PreTrainedModel\nclass OwnForCausalLM(PreTrainedModel): pass\n",
            "could not be built small: ValueError: it names no configuration class",
        ),
        (
            "from torch import nn\ndef build():\n    return nn.Bilinear(3, 3, 3)\n",
            "file.py: what Bilinear reads could not be told",
        ),
    ],
)
def test_bad_file(content, reason, write):
    path = write("file.py", content)
    message = refusal(path)
    assert str(path) in message
    assert reason in message


def test_a_name_that_is_no_factory(write):
    path = write("file.py", "def build(size): ...\nSIZE = 3\n")
    assert "missing 1 required positional argument" in refusal(f"{path}:build")
    assert "it is a int" in refusal(f"{path}:SIZE")
    assert "nothing in it is called 'other'" in refusal(f"{path}:other")


def test_broken_package(write):
    write("package_c/__init__.py", "\nraise RuntimeError('not\\ntoday')\n")
    message = refusal(write("package_c/file.py", FACTORY))
    assert "__init__.py:2: importing file.py raised RuntimeError: not today" in message


def test_package_with_the_name_of_an_imported_one(write):
    write("torch/__init__.py", "")
    assert "'torch' has the name of one that is already imported" in refusal(write("torch/file.py", FACTORY))
    assert torch.ones(1)


def test_a_failed_import_can_be_tried_again(write):
    path = write("file.py", "raise ValueError\n")
    refusal(path)
    write("file.py", FACTORY)
    assert load(str(path)).vocab_size == 50
