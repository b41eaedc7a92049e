"""Mails from templates."""

import pytest

from errands.kits.mail.errors import TemplateError
from errands.kits.mail.templates import Templates

MJML = """<mjml><mj-body><mj-section><mj-column>
<mj-include path="_head.mjml" />
<mj-table>{% for row in rows %}<tr><td>{{ row }}</td></tr>{% endfor %}</mj-table>
<mj-button href="{{ link }}">Open</mj-button>
</mj-column></mj-section></mj-body></mjml>"""


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "welcome.txt").write_text(
        "Subject: Welcome, {{ name }}\n\nHello {{ name }} & co,\n"
        "{% for row in rows %}\n- {{ row }}\n{% endfor %}\n{% include '_foot.txt' %}",
        "utf-8",
    )
    (tmp_path / "welcome.mjml").write_text(MJML, "utf-8")
    (tmp_path / "_head.mjml").write_text("<mj-text>Hello {{ name }}</mj-text>", "utf-8")
    (tmp_path / "_foot.txt").write_text("The school", "utf-8")
    (tmp_path / "plain.txt").write_text("Subject: Plain\nText", "utf-8")
    return tmp_path


def test_a_mail_is_rendered_in_its_three_parts(folder):
    templates = Templates(folder)
    assert templates.names == {"welcome", "plain"}
    subject, text, html = templates.render(
        "welcome", name="Zoë", rows=["a", "b"], link="https://x.example/?a=1&b=2"
    )
    assert subject == "Welcome, Zoë"
    assert text == "Hello Zoë & co,\n- a\n- b\nThe school"
    assert "<mj-" not in html
    assert "<tr><td>a</td></tr><tr><td>b</td></tr>" in html
    assert "Hello Zoë" in html
    assert 'href="https://x.example/?a=1&amp;b=2"' in html
    assert templates.render("plain") == ("Plain", "Text", None)


def test_values_are_escaped_in_html_and_plain_in_text(folder):
    name = '<script>alert(1)</script> & "O\'Neil"'
    subject, text, html = Templates(folder).render("welcome", name=name, rows=[name], link="x")
    assert name in subject
    assert name in text
    assert "<script>" not in html
    assert "&lt;script&gt;" in html


def test_a_value_with_a_line_break_cannot_add_a_header(folder):
    rendered = Templates(folder).render("welcome", name="x\r\nBcc: v@example.com", rows=[], link="x")
    with pytest.raises(ValueError, match="Subject must be one line"):
        rendered.to("a@example.com")


def test_nothing_is_loaded_from_elsewhere_when_the_mail_is_opened(folder):
    html = Templates(folder).render("welcome", name="x", rows=[], link="x").html
    assert "googleapis" not in html


def test_a_value_that_is_missing_stops_the_mail(folder):
    with pytest.raises(TemplateError, match="link"):
        Templates(folder).render("welcome", name="x", rows=[])


def test_an_unknown_mail_names_those_there_are(folder):
    with pytest.raises(TemplateError, match=r"no mail template 'welcom'; there are: plain, welcome"):
        Templates(folder).render("welcom")


def test_a_later_folder_wins(folder, tmp_path_factory):
    other = tmp_path_factory.mktemp("other")
    (other / "plain.txt").write_text("Subject: Other\n\nOther text", "utf-8")
    assert Templates(folder, other).render("plain") == ("Other", "Other text", None)


@pytest.mark.parametrize(
    ("name", "content", "why"),
    [
        ("a.txt", "No subject here", "Subject"),
        ("a.txt", "Subject:\n\nx", "Subject"),
        ("a.txt", "Subject: {{ x\n\ny", "a"),
        ("a.txt", "Subject: x\n\n{% if %}", "a"),
        ("lonely.mjml", "<mjml><mj-body></mj-body></mjml>", "lonely"),
        ("plain.mjml", "<mjml><mj-body>", "plain.mjml is not right MJML"),
        ("plain.mjml", '<mjml><mj-body><mj-include path="../x.mjml" /></mj-body></mjml>', "plain.mjml"),
    ],
)
def test_a_broken_template_stops_the_start(folder, name, content, why):
    (folder / name).write_text(content, "utf-8")
    with pytest.raises(TemplateError, match=why):
        Templates(folder)


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(TemplateError, match="nowhere"):
        Templates(tmp_path / "nowhere")
