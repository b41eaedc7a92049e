"""The documentation: its examples run, its links lead somewhere, its tables agree with the code.

Every ```python block of `docs/*.md` and `README.md` is run, in inline mode and in a folder of its own. HTML
comments right before a block, which readers do not see, say what else there is to it:

- `<!-- continues -->`: it goes on in the namespace of the block before.
- `<!-- before: code -->`: code that runs first, for what the page takes as given.
- `<!-- file: test_mail.py -->`: it is written to that file; test files are then run by pytest.
- `<!-- not run: why -->`: it needs something that a unit test does not have.
"""

from __future__ import annotations

import ast
import asyncio
import inspect
import os
import re
import subprocess
import sys
import types
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import celery
import pytest
from pydantic import AliasChoices, SecretStr

from errands import Errands, Keyring, Settings, State
from errands.core.states import FINAL, MOVES, celery_status
from errands.worker.loop import process_loop

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
INDEX = DOCS / "README.md"
PAGES = [
    *sorted(DOCS.rglob("*.md")),
    *(ROOT / f"{name}.md" for name in ("README", "CONTRIBUTING", "CHANGELOG")),
]

_BLOCK = re.compile(r"((?:<!--(?:(?!-->).)*-->\s*)*)^```python\n(.*?)^```$", re.S | re.M)
_COMMENT = re.compile(r"<!--\s*(continues|before|file|not run)(?::\s*(.*?))?\s*-->", re.S)
_CODE = re.compile(r"^```.*?^```$", re.S | re.M)
_LINK = re.compile(r"\]\(([^)\s]+)\)")
_OURS = (
    "ERRANDS_",
    "CELERY_",
    "REDIS_",
    "DATABASE_URL",
    "SMTP_",
    "EMAIL_",
    "TASKS_",
    "WEBHOOK_",
    "FIREBASE_",
    "MESSAGING_",
    "PHONE_",
    "WHATSAPP_",
    "TWILIO_",
)


@dataclass
class Block:
    """One example: where it stands, what runs before it, itself, and the file it goes to, if any."""

    line: int
    before: str
    code: str
    file: str | None


@dataclass
class Story:
    """Examples that share a namespace."""

    page: Path
    blocks: list[Block] = field(default_factory=list)

    def __str__(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.blocks[0].line}"


def stories(page: Path) -> list[Story]:
    text = page.read_text()
    found: list[Story] = []
    for match in _BLOCK.finditer(text):
        marks = dict(_COMMENT.findall(match[1]))
        if "not run" in marks:
            assert marks["not run"], f"{page.name}: say why a block is not run"
            continue
        line = text.count("\n", 0, match.start(2)) + 1
        if "continues" not in marks:
            found.append(Story(page))
        found[-1].blocks.append(Block(line, marks.get("before", ""), match[2], marks.get("file")))
    return found


EXAMPLES = [story for page in (*sorted(DOCS.glob("*.md")), ROOT / "README.md") for story in stories(page)]


@pytest.fixture
def fresh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, Any]]:
    """The namespace of a module that is imported on a machine where nothing is set and nothing runs."""
    for name in [name for name in os.environ if name.startswith(_OURS)]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("TASKS_FORCE_INLINE", "true")
    monkeypatch.setenv("ERRANDS_HOME", str(tmp_path))
    # Nobody listens there: whoever touches the broker fails.
    monkeypatch.setenv("ERRANDS_BROKER_URL", "redis://127.0.0.1:1/0")
    monkeypatch.setenv("ERRANDS_SECRET_KEYS", Keyring.new_key())
    monkeypatch.chdir(tmp_path)
    module = types.ModuleType("example")
    monkeypatch.setitem(sys.modules, "example", module)
    app_before = celery.current_app._get_current_object()
    yield vars(module)
    app_before.set_current()
    # By its type: to ask a `shared_task` what it is looks it up in the app of before.
    for app in {id(v): v for v in vars(module).values() if issubclass(type(v), Errands)}.values():
        process_loop().run(app.resources.aclose())
        process_loop().run(app.database.adispose())
        app.database.dispose()
        app.close()


@pytest.mark.parametrize("story", EXAMPLES, ids=str)
def test_the_example_runs(story: Story, fresh: dict[str, Any], tmp_path: Path) -> None:
    code = []
    for block in story.blocks:
        parts = [(block.before, 1)]
        if block.file is None:
            parts.append((block.code, block.line))
        else:
            (tmp_path / block.file).write_text(block.code)
        for text, line in parts:
            tree = ast.parse(text, str(story.page))
            ast.increment_lineno(tree, line - 1)
            code.append(
                compile(
                    tree, str(story.page), "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT, dont_inherit=True
                )
            )
    if any(item.co_flags & inspect.CO_COROUTINE for item in code):
        asyncio.run(_run_with_await(code, fresh))
    else:
        for item in code:
            exec(item, fresh)
    if list(tmp_path.glob("test_*.py")):
        _run_pytest(tmp_path)


async def _run_with_await(code: list[types.CodeType], namespace: dict[str, Any]) -> None:
    for item in code:
        waits = eval(item, namespace)
        if inspect.isawaitable(waits):
            await waits
    for value in list(namespace.values()):
        if isinstance(value, Errands):
            await value.database.adispose()


def _run_pytest(folder: Path) -> None:
    command = [
        sys.executable, "-m", "pytest", "-q", "-p", "errands.testing", "-p", "no:cacheprovider",
        "--rootdir", str(folder), "-o", "asyncio_mode=auto",
    ]  # fmt: skip
    path = os.pathsep.join([str(ROOT / "src"), str(folder)])
    done = subprocess.run(
        command, cwd=folder, env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr


# -- links


def links(page: Path) -> list[str]:
    return [link for link in _LINK.findall(_CODE.sub("", page.read_text())) if "://" not in link]


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", _CODE.sub("", page.read_text()), re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    lost = []
    for link in links(page):
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        if not target.exists() or (anchor and anchor not in anchors(target)):
            lost.append(link)
    assert lost == []


def test_the_index_names_every_page() -> None:
    linked = {(DOCS / link.partition("#")[0]).resolve() for link in links(INDEX)}
    missing = [str(page.relative_to(DOCS)) for page in DOCS.rglob("*.md") if page not in {INDEX, *linked}]
    assert missing == []


# -- tables


def rows(page: Path) -> dict[str, list[str]]:
    """The cells of all table rows that begin with `code`, by that code."""
    found: dict[str, list[str]] = {}
    for line in page.read_text().splitlines():
        match = re.match(r"\| `(\w+)` \|(.*)\|$", line)
        if match:
            assert match[1] not in found, f"{page.name}: {match[1]} stands there twice"
            found[match[1]] = [cell.strip() for cell in match[2].split("|")]
    return found


def test_the_table_of_states_is_the_codes() -> None:
    table = rows(DOCS / "states.md")
    assert list(table) == [state.value for state in State]
    for name, (celery_word, comes_from, final, _) in table.items():
        state = State(name)
        words = {celery_status(state), celery_status(state, has_progress=True)}
        assert set(re.findall(r"`(\w+)`", celery_word)) == words
        assert (final == "yes") == (state in FINAL)
        told = set(re.findall(r"`(\w+)`", comes_from)) | ({None} if "new" in comes_from else set())
        assert told == {before and before.value for before in MOVES[state]}


def test_the_diagram_of_states_draws_legal_moves_only() -> None:
    arrows = re.findall(r"^ +(\S+) --> (\w+)", (DOCS / "states.md").read_text(), re.M)
    assert len(arrows) > len(State)
    reopened = {(final.value, "queued") for final in FINAL}
    for before, after in arrows:
        legal = (None if before == "[*]" else before) in {b and b.value for b in MOVES[State(after)]}
        assert legal or (before, after) in reopened, f"{before} --> {after}"


def test_the_table_of_settings_is_the_codes() -> None:
    table = rows(DOCS / "settings.md")
    expected = {}
    for name, setting in Settings.model_fields.items():
        alias = setting.validation_alias
        choices = [str(c) for c in alias.choices] if isinstance(alias, AliasChoices) else []
        names = choices or [f"ERRANDS_{name.upper()}"]
        expected[names[0]] = (names[1:], setting.default)
    assert list(table) == list(expected)
    for name, (aliases, default) in expected.items():
        told_aliases, told_default, meaning = table[name]
        assert re.findall(r"`(\w+)`", told_aliases) == aliases, name
        assert meaning, name
        text = default.get_secret_value() if isinstance(default, SecretStr) else default
        if text in (None, "", Path()):
            assert told_default, f"{name}: say what holds where it is not set"
        else:
            shown = str(text).lower() if isinstance(text, bool) else str(text)
            assert told_default == f"`{shown}`", name
