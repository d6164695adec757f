"""`hf:ORG/NAME[@REVISION]`: a model on the hub, through huggingface_hub's own cache."""

from pathlib import Path

from huggingface_hub import constants, snapshot_download
from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

from leakcheck.errors import UsageError
from leakcheck.subjects.refusal import one_line, refusing

PREFIX = "hf:"
_ALWAYS = ("*.json", "*.py")
_SAFETENSORS = ("model*.safetensors",)
_PICKLES = ("pytorch_model*.bin",)


def snapshot(spec: str, *, weights: bool = True) -> Path:
    """The folder in the cache that holds this model; what is not there yet is fetched.

    Those are its configuration, its code and its weights: pickled ones only where there are no safetensors.

    Raises:
        UsageError: this is no name, or the model is not in the cache and cannot be fetched.
    """
    name, at, revision = spec.removeprefix(PREFIX).partition("@")
    if not name or (at and not revision):
        raise UsageError(f"{spec}: not the name of a model; write hf:ORG/NAME or hf:ORG/NAME@REVISION")
    folder = _fetched(spec, name, revision or None, (*_ALWAYS, *(_SAFETENSORS if weights else ())))
    if weights and not any(folder.glob(_SAFETENSORS[0])):
        folder = _fetched(spec, name, revision or None, (*_ALWAYS, *_PICKLES))
    return folder


def _fetched(spec: str, name: str, revision: str | None, patterns: tuple[str, ...]) -> Path:
    with refusing(f"{spec}: could not be fetched"):
        try:
            folder = snapshot_download(name, revision=revision, allow_patterns=[*patterns], ignore_patterns=["*/*"])
        except HFValidationError as error:
            raise UsageError(f"{spec}: not the name of a model: {one_line(error)}") from error
        except LocalEntryNotFoundError as error:
            why = one_line(error.__cause__ or error)
            raise UsageError(
                f"{spec}: not in the cache {constants.HF_HUB_CACHE}, and could not be fetched ({why}); fetch it where "
                "there is a network, or name a folder"
            ) from error
    return Path(folder)
