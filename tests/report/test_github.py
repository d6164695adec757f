import re
from dataclasses import replace

import pytest

from leakcheck.findings import Excerpt, Step, Verdict
from leakcheck.report import github

from .documents import DOCUMENTS, MODELING, end_of_proof, excerpt, future_finding


def annotations(document) -> list[tuple[str, dict[str, str], str]]:
    """Kind, properties and message of each, read as the runner of GitHub Actions does."""
    found = []
    for line in github.render(document).splitlines():
        if line.startswith("::"):
            kind, named, data = re.fullmatch(r"::(\w+) ([^:]*)::(.*)", line).groups()
            properties = dict(each.split("=", 1) for each in named.split(","))
            found.append((kind, {name: unescaped(value) for name, value in properties.items()}, unescaped(data)))
    return found


def unescaped(text: str) -> str:
    for code, character in (("%3A", ":"), ("%2C", ","), ("%0D", "\r"), ("%0A", "\n"), ("%25", "%")):
        text = text.replace(code, character)
    return text


def annotation_of(**changes) -> tuple[str, dict[str, str], str]:
    finding = replace(future_finding("sdpa/none/eval"), file=MODELING, excerpt=None, **changes)
    (told,) = annotations(replace(DOCUMENTS["leak"], verdict=finding.verdict, findings=(finding,)))
    return told


def test_looks_like_this(document, snapshot_of):
    assert github.render(document) == snapshot_of("txt")


def test_one_line_each_and_nothing_else_is_a_command(document):
    *commands, last = github.render(document).removesuffix("\n").split("\n")
    assert all(re.match(r"::(error|warning|notice) title=leakcheck", line) for line in commands)
    assert last.startswith("leakcheck: ")
    assert all(character.isprintable() for line in (*commands, last) for character in line)


def test_a_leak_is_told_at_its_line():
    here = excerpt(MODELING, 157, "before", "    marked", "after")
    kind, properties, message = annotation_of(line=157)
    assert (kind, properties) == (
        "error", {"title": "leakcheck (LC201)", "file": MODELING, "line": "157", "endLine": "157"}
    )  # fmt: skip
    finding = replace(future_finding("sdpa/none/eval"), file=MODELING, line=157, excerpt=here)
    ((_, properties, _),) = annotations(replace(DOCUMENTS["leak"], findings=(finding,)))
    assert properties["col"] == "5"
    assert properties["endColumn"] == "11"
    assert message.endswith("See it again: leakcheck replay .leakcheck/witnesses/LC201-sdpa-none-eval-0123abcd.json")


def test_columns_only_within_one_line():
    spread = Excerpt(MODELING, (8, 5, 9, 6), 7, ("a", "    b(", "    1)"))
    finding = replace(future_finding("sdpa/none/eval"), file=MODELING, line=8, excerpt=spread)
    ((_, properties, _),) = annotations(replace(DOCUMENTS["leak"], findings=(finding,)))
    assert properties == {"title": "leakcheck (LC201)", "file": MODELING, "line": "8", "endLine": "9"}


def test_what_is_not_in_the_repository_is_told_where_the_way_there_leaves_it():
    leak = future_finding("sdpa/none/eval")
    on = Step("goes on", "", excerpt(MODELING, 300, "before", "after the leak", "after"))
    ((_, properties, message),) = annotations(
        replace(DOCUMENTS["leak"], findings=(replace(leak, steps=(*leak.steps, on)),))
    )
    assert (properties["file"], properties["line"], properties["col"]) == (MODELING, "157", "9")
    assert "modeling_llama.py:208; the way there passes this line." in message


def test_what_is_nowhere_in_the_repository_is_told_in_words():
    leak = future_finding("sdpa/none/eval")
    after = Step("goes on", "", excerpt(MODELING, 300, "before", "after the leak", "after"))
    for steps in ((), (leak.steps[-1], after)):
        document = replace(DOCUMENTS["leak"], findings=(replace(leak, steps=steps),))
        ((_, properties, message),) = annotations(document)
        assert properties == {"title": "leakcheck (LC201)"}
        assert "site-packages/transformers/models/llama/modeling_llama.py:208." in message


@pytest.mark.parametrize("text", ["100%, a: b", "%0A::error::", "a\r\nb", "::warning::x", "%250A"])
def test_what_github_would_obey_is_escaped(text):
    shown = text.replace("\n", " ").replace("\r", "\\r")
    assert annotation_of(message=text)[2].startswith(f"{shown}\nPolicy causal")
    finding = replace(future_finding("sdpa/none/eval"), file=text, excerpt=None)
    ((_, properties, _),) = annotations(replace(DOCUMENTS["leak"], findings=(finding,)))
    assert properties["file"] == shown


@pytest.mark.parametrize(
    ("verdict", "kind"), [(Verdict.LEAK, "error"), (Verdict.SUSPECT, "warning"), (Verdict.OPEN, "notice")]
)
def test_a_kind_for_each_verdict(verdict, kind):
    assert annotation_of(verdict=verdict)[0] == kind


def test_what_is_proven_is_no_annotation():
    proven = replace(future_finding("sdpa/none/eval"), verdict=Verdict.PROVEN)
    assert annotations(replace(DOCUMENTS["clean"], findings=(proven,))) == []


@pytest.mark.parametrize(
    ("verdict", "kind"),
    [
        (Verdict.LEAK, "error"),
        (Verdict.SUSPECT, "warning"),
        (Verdict.OPEN, "notice"),
        (Verdict.NOT_APPLICABLE, "error"),
    ],
)
def test_a_verdict_that_no_finding_tells_is_told_all_the_same(verdict, kind):
    ((told, properties, _),) = annotations(replace(DOCUMENTS["clean"], verdict=verdict))
    assert (told, properties) == (kind, {"title": "leakcheck"})


def test_what_is_too_much_of_a_kind_is_one_line():
    def holes(count):
        found = tuple(end_of_proof("LC801", line, f"op {line}") for line in range(1, count + 1))
        return annotations(replace(DOCUMENTS["leak"], findings=(*found, *DOCUMENTS["leak"].findings)))

    assert [kind for kind, _, _ in holes(10)] == ["error", *["notice"] * 10]
    (_, _, last) = holes(10)[-1]
    assert last.startswith("op 10")
    told = holes(12)
    assert [kind for kind, _, _ in told] == ["error", *["notice"] * 10]
    assert (
        told[-1][2] == "3 more: LC801 at models/mixer.py:10, LC801 at models/mixer.py:11, LC801 at models/mixer.py:12"
    )
