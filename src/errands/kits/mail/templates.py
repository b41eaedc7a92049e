"""Mails from templates: MJML for the HTML, plain text beside it, values filled in by Jinja2.

A mail called `welcome` is two files in a folder:

- `welcome.txt`: a first line `Subject: Welcome, {{ name }}`, an empty line, the plain text;
- `welcome.mjml` (or `welcome.html`): the HTML. May be left out.

Files whose names begin with `_` are parts, for `<mj-include path="_head.mjml" />` and
`{% include "_foot.txt" %}`.
MJML is compiled once, when the folder is read, and Jinja2 fills in its output: the other way round would
compile every mail, and tools that rewrite HTML after Jinja2's tags lose them inside tables.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jinja2
import mjml

from errands.kits.mail.errors import TemplateError
from errands.kits.mail.message import Attachment, Message


class Rendered(NamedTuple):
    """A mail with its values filled in, not yet addressed."""

    subject: str
    text: str
    html: str | None

    def to(
        self,
        to: str | Sequence[str],
        *,
        sender: str | None = None,
        reply_to: str | None = None,
        attachments: tuple[Attachment, ...] = (),
        message_id: str | None = None,
    ) -> Message:
        """The message to `to`; the rest as `Message` has it."""
        return Message(
            to=to,
            subject=self.subject,
            text=self.text,
            html=self.html,
            sender=sender,
            reply_to=reply_to,
            attachments=attachments,
            message_id=message_id,
        )


class Templates:
    """The mails of one or more folders; a later folder's file takes the place of an earlier one's.

    Everything is read and compiled here, so that a broken template stops the start and not a mail.

    Args:
        folders: where the files are.

    Raises:
        TemplateError: a file cannot be compiled, a mail has no `.txt`, or its first line is no subject.
    """

    def __init__(self, *folders: str | Path) -> None:
        missing = [str(folder) for folder in folders if not Path(folder).is_dir()]
        if missing:
            raise TemplateError(f"no such folder of mail templates: {', '.join(missing)}")
        files = {
            path.name: path.read_text("utf-8")
            for folder in folders
            for path in sorted(Path(folder).iterdir())
            if path.suffix in (".txt", ".mjml", ".html")
        }
        subjects: dict[str, str] = {}
        texts: dict[str, str] = {}
        pages: dict[str, str] = {}
        for filename, source in files.items():
            name, _, kind = filename.rpartition(".")
            if filename.startswith("_"):
                (texts if kind == "txt" else pages)[filename] = source
            elif kind == "txt":
                subjects[name], texts[name] = _split(filename, source)
            else:
                pages[name] = _compile(filename, source, files) if kind == "mjml" else source
        self.names = frozenset(subjects)
        orphans = sorted(name for name in pages if not name.startswith("_") and name not in subjects)
        if orphans:
            raise TemplateError(f"every mail needs a plain text; there is none for: {', '.join(orphans)}")
        self._subjects = _environment(subjects, html=False)
        self._texts = _environment(texts, html=False)
        self._pages = _environment(pages, html=True)
        self._with_html = frozenset(pages)
        for environment, sources in (
            (self._subjects, subjects),
            (self._texts, texts),
            (self._pages, pages),
        ):
            for name in sources:
                try:
                    environment.get_template(name)
                except jinja2.TemplateSyntaxError as exc:
                    raise TemplateError(f"mail template {name}: {exc.message} (line {exc.lineno})") from exc

    def render(self, name: str, /, **values: Any) -> Rendered:
        """Fill in the mail `name`. Values are escaped in the HTML, and stand as they are in the text.

        Raises:
            TemplateError: there is no such mail, or it asks for a value that is not given.
        """
        if name not in self.names:
            known = ", ".join(sorted(self.names)) or "none"
            raise TemplateError(f"no mail template {name!r}; there are: {known}")
        try:
            return Rendered(
                self._subjects.get_template(name).render(values),
                self._texts.get_template(name).render(values),
                self._pages.get_template(name).render(values) if name in self._with_html else None,
            )
        except jinja2.TemplateError as exc:
            raise TemplateError(f"mail template {name!r}: {exc}") from exc


def _split(filename: str, source: str) -> tuple[str, str]:
    first, _, rest = source.partition("\n")
    label, colon, subject = first.partition(":")
    if label.strip().lower() != "subject" or not colon or not subject.strip():
        raise TemplateError(f"{filename}: the first line must be `Subject: …`")
    return subject.strip(), rest.lstrip("\r\n")


def _compile(filename: str, source: str, files: dict[str, str]) -> str:
    def include(path: str) -> str:
        name = path.removeprefix("./")
        if name not in files:
            raise TemplateError(f"{filename} includes {path!r}, which is not among the templates")
        return files[name]

    try:
        # No fonts from elsewhere: a mail should not tell a third party that it was opened.
        return str(mjml.mjml2html(source, fonts={}, include_loader=include))
    except ValueError as exc:
        raise TemplateError(f"{filename} is not right MJML: {exc}") from exc


def _environment(sources: dict[str, str], *, html: bool) -> jinja2.Environment:
    # The text part and the subject are no HTML: escaping would show `&amp;` to the reader.
    return jinja2.Environment(
        loader=jinja2.DictLoader(sources),
        autoescape=html,  # noqa: S701
        undefined=jinja2.StrictUndefined,
        cache_size=-1,
        auto_reload=False,
        keep_trailing_newline=True,
        trim_blocks=not html,
        lstrip_blocks=not html,
    )
