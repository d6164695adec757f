import pytest
from syrupy.extensions.single_file import SingleFileSnapshotExtension, WriteMode

from .documents import DOCUMENTS


def _text_files(suffix: str) -> type[SingleFileSnapshotExtension]:
    """One readable file for each snapshot: they are what the reports look like."""

    class TextFile(SingleFileSnapshotExtension):
        _write_mode = WriteMode.TEXT
        file_extension = suffix

    return TextFile


@pytest.fixture
def snapshot_of(snapshot):
    return lambda suffix: snapshot.use_extension(_text_files(suffix))


@pytest.fixture(params=sorted(DOCUMENTS))
def document(request):
    return DOCUMENTS[request.param]
