"""How an app gets its mail."""

import pytest

from errands import ConfigurationError, Errands, Run, Settings
from errands.kits import mail
from errands.kits.mail.kit import mailer_from


def settings(tmp_path, **values):
    return Settings(home=tmp_path, inline=True, **values)


def test_a_task_is_given_mailer_and_templates(tmp_path):
    (tmp_path / "welcome.txt").write_text("Subject: Welcome, {{ name }}\n\nHello {{ name }}", "utf-8")
    mailer = mail.FakeMailer()
    app = Errands("test", settings=settings(tmp_path))
    app.use(mail.kit(lambda: mailer, templates=tmp_path))

    @app.task(name="send_welcome_email", queue="emails")
    async def send_welcome_email(
        email: str, name: str, *, mailer: mail.Mailer, templates: mail.Templates, run: Run
    ) -> str:
        message = templates.render("welcome", name=name).to(
            email, message_id=mail.stable_message_id(run.id, "school.example")
        )
        return (await mailer.send(message)).message_id

    sent = send_welcome_email.delay("ann@example.com", "Ann")
    assert sent.get() == mail.stable_message_id(sent.id, "school.example")
    (message,) = mailer.outbox
    assert (message.to, message.subject, message.text) == ("ann@example.com", "Welcome, Ann", "Hello Ann")


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        ({}, mail.SmtpMailer),
        ({"firebase_enabled": True, "firebase_functions_url": "https://f.example/mail"}, mail.FirebaseMailer),
        ({"firebase_enabled": False, "firebase_functions_url": "https://f.example/mail"}, mail.SmtpMailer),
        ({"smtp_use_ssl": True, "smtp_port": 465}, mail.SmtpMailer),
    ],
)
def test_the_settings_choose_who_carries_the_mail(tmp_path, values, kind):
    assert isinstance(mailer_from(settings(tmp_path, **values)), kind)


def test_one_mailer_serves_a_whole_process(tmp_path):
    app = Errands("test", settings=settings(tmp_path))
    app.use(mail.kit())
    assert app.resources.instance(mail.Mailer) is app.resources.instance(mail.Mailer)


def test_a_sender_that_is_no_address_stops_the_start(tmp_path):
    app = Errands("test", settings=settings(tmp_path, mail_from="the school"))
    with pytest.raises(ConfigurationError, match="MAIL_FROM"):
        app.use(mail.kit())


def test_a_final_failure_is_not_tried_again(tmp_path):
    mailer = mail.FakeMailer()
    app = Errands("test", settings=settings(tmp_path))
    app.use(mail.kit(lambda: mailer))
    tries = []

    from errands import Retry

    @app.task(name="send", queue="emails", retry=Retry(3, first=60))
    async def send(*, mailer: mail.Mailer, run: Run) -> None:
        tries.append(run.attempt)
        await mailer.send(mail.Message(to="a@example.com", subject="s", text="t"))

    mailer.fail_with(mail.TemporaryMailError("451"))
    mailer.fail_with(mail.UnknownOutcomeError("sent, and no answer came"))
    with pytest.raises(mail.UnknownOutcomeError):
        send.delay().get()
    assert tries == [1, 2]
    assert mailer.outbox == []
