"""A plain Celery application with two queues."""

import os
import smtplib
import time
from email.message import EmailMessage

from celery import Celery

broker = os.environ.get("ERRANDS_BROKER_URL", "memory://")
app = Celery("local_app", broker=broker, backend=os.environ.get("ERRANDS_RESULT_URL"))
app.conf.update(task_acks_late=True, task_reject_on_worker_lost=True, worker_prefetch_multiplier=1)


@app.task(name="add", queue="sums")
def add(a: int, b: int) -> int:
    return a + b


@app.task(name="wait", queue="sums")
def wait(seconds: float) -> str:
    time.sleep(seconds)
    return "waited"


@app.task(name="send_mail", queue="emails")
def send_mail(to: str, subject: str) -> str:
    mail = EmailMessage()
    mail["From"], mail["To"], mail["Subject"] = "app@example.com", to, subject
    mail.set_content("plain text")
    mail.add_alternative("<p>HTML text</p>", subtype="html")
    with smtplib.SMTP(os.environ["SMTP_HOST"], int(os.environ["SMTP_PORT"])) as server:
        server.send_message(mail)
    return "sent"
