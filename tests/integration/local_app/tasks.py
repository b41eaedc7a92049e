"""An application with two queues."""

import os
import smtplib
from email.message import EmailMessage

from errands import Errands

app = Errands("local_app")


@app.task(name="add", queue="sums")
def add(a: int, b: int) -> int:
    return a + b


@app.task(name="send_mail", queue="emails")
def send_mail(to: str, subject: str) -> str:
    mail = EmailMessage()
    mail["From"], mail["To"], mail["Subject"] = "app@example.com", to, subject
    mail.set_content("plain text")
    mail.add_alternative("<p>HTML text</p>", subtype="html")
    with smtplib.SMTP(os.environ["SMTP_HOST"], int(os.environ["SMTP_PORT"])) as server:
        server.send_message(mail)
    return "sent"
