"""hf:ORG/NAME, out of a cache that is laid out as huggingface_hub lays it out; there is no network in these tests."""

import pytest
import torch
from huggingface_hub import constants

from leakcheck.subjects.load import load

from .helpers import refusal, run

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    return tmp_path


def cached(cache, model, name="models--org--small", **options):
    """Put a model into the cache, as if its branch main had been fetched."""
    blobs, snapshot, refs = (cache / name / part for part in ("blobs", f"snapshots/{COMMIT}", "refs"))
    model.save_pretrained(blobs, **options)
    snapshot.mkdir(parents=True)
    for blob in blobs.iterdir():
        (snapshot / blob.name).symlink_to(blob)
    refs.mkdir()
    (refs / "main").write_text(COMMIT)
    return snapshot


@pytest.mark.parametrize("spec", ["hf:org/small", "hf:org/small@main", f"hf:org/small@{COMMIT}"])
def test_a_model_in_the_cache(spec, cache):
    saved = load("llama")
    cached(cache, saved.model)
    loaded = load(spec)
    assert (loaded.spec, loaded.weights) == (spec, "given")
    assert torch.equal(run(loaded), run(saved))


def test_a_name_without_organisation_and_shards(cache):
    saved = load("llama")
    cached(cache, saved.model, "models--small", max_shard_size="20KB")
    assert torch.equal(run(load("hf:small")), run(saved))


def test_a_shard_that_was_not_fetched(cache):
    snapshot = cached(cache, load("llama").model, max_shard_size="20KB")
    sorted(snapshot.glob("*.safetensors"))[2].unlink()
    assert "1 is missing: model-00003-of-00009.safetensors" in refusal("hf:org/small")


def test_pickles_where_there_is_nothing_else(cache):
    saved = load("llama")
    snapshot = cached(cache, saved.model)
    (snapshot / "model.safetensors").unlink()
    torch.save(saved.model.state_dict(), snapshot / "pytorch_model.bin")
    assert torch.equal(run(load("hf:org/small")), run(saved))


def test_what_is_not_in_the_cache(cache):
    cached(cache, load("llama").model)
    for spec in ("hf:org/other", "hf:org/small@other"):
        message = refusal(spec)
        assert message.startswith(f"{spec}: not in the cache {cache}, and could not be fetched (OfflineModeIsEnabled")


@pytest.mark.parametrize("name", ["", "@main", "org/small@", "a/b/c", "org/no spaces", "../../etc", "org/" + "n" * 300])
def test_what_is_no_name(name, cache):
    assert "not the name of a model" in refusal(f"hf:{name}")
