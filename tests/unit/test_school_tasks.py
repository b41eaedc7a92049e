"""The contract of system A: task names, queues, parameters, retries, schedules."""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from errands import ConfigurationError, Database, InvalidArguments, OutcomeUnknown
from errands.core import clock
from errands.core.clock import FakeClock
from errands.kits.mail import PermanentMailError, TemporaryMailError, UnknownOutcomeError
from school.app import app
from school.testing import School, school_on

TASKS = [
    ("emails", "send_welcome_email", ["user_id", "email", "name"], (3, 60, 600)),
    ("emails", "send_password_reset_email", ["email", "name", "reset_token"], (3, 60, 600)),
    ("emails", "send_enrollment_confirmation", ["user_id", "email", "course_name"], (3, 60, 600)),
    (
        "emails",
        "send_certificate_email",
        ["user_id", "email", "certificate_url", "course_name"],
        (3, 60, 600),
    ),
    ("emails", "send_course_completion_email", ["user_id", "course_id"], (3, 60, 600)),
    ("certificates", "generate_certificate", ["enrollment_id"], (3, 300, None)),
    ("progress", "update_enrollment_progress", ["enrollment_id", "lesson_id"], None),
    ("progress", "trigger_course_completion", ["enrollment_id"], None),
    ("progress", "calculate_course_completion_rate", ["course_id"], None),
    ("webhooks", "dispatch_webhook", ["event_type", "payload", "webhook_url"], (3, 30, None)),
    ("webhooks", "dispatch_webhooks_batch", ["event_type", "payload"], None),
    ("celery", "process_payment", ["payment_id"], None),
    ("celery", "process_order", ["order_id"], None),
    ("celery", "create_user_profile", ["db", "user_id"], None),
    ("celery", "update_user_stats", ["db", "user_id"], None),
    ("messaging", "send_bulk_messages", ["phone_numbers", "message", "message_type"], (3, 60, None)),
    ("messaging", "send_template_message", ["phone_number", "template", "values"], (3, 60, None)),
    ("notifications", "send_bulk_notifications", ["user_ids", "title", "message"], None),
    ("notifications", "send_push_notification", ["user_id", "title", "message", "data"], None),
    ("notifications", "send_broadcast_push_notification", ["title", "message", "role"], None),
    ("notifications", "send_notification", ["user_id", "message"], None),
    ("reports", "generate_student_report", ["student_id"], (3, 60, None)),
    ("reports", "export_students_csv", ["filters"], (3, 60, None)),
    ("reports", "generate_report", [], None),
    ("files", "process_large_file", ["upload_id"], None),
    ("celery", "generate_daily_analytics", [], None),
]


@pytest.fixture
async def school(sqlite_database: Database, tmp_path: Path) -> AsyncIterator[School]:
    async with school_on(sqlite_database, tmp_path) as school:
        yield school


@pytest.mark.parametrize(("queue", "name", "parameters", "retry"), TASKS, ids=[task[1] for task in TASKS])
def test_each_task_has_its_name_queue_parameters_and_retries(
    queue: str, name: str, parameters: list[str], retry: tuple[int, int, int | None] | None
) -> None:
    """Mistake 2: queues are routed by module, tasks are named otherwise, and wait where nobody reads."""
    app.finalize()
    task = app.tasks[name]
    assert task.rules.queue == queue
    assert app.amqp.router.route({}, name, task_type=task)["queue"].name == queue
    assert list(inspect.signature(task.function).parameters)[: len(parameters)] == parameters
    assert inspect.iscoroutinefunction(task.function)
    if retry is not None:
        policy = task.rules.policy
        assert (policy.times, policy.first) == retry[:2]
        assert retry[2] is None or policy.most == retry[2]


def test_the_schedule_names_tasks_that_exist() -> None:
    """Mistake 1: scheduled tasks live in modules that no worker imports."""
    app.finalize()
    schedules = app.declared_schedules.values()
    assert {schedule.task: str(schedule.rule) for schedule in schedules} == {
        "cleanup_expired_sessions": "cron 0 * * * * UTC",
        "cleanup_old_sessions": "cron 15 3 * * * UTC",
        "cleanup_old_notifications": "cron 0 2 * * * UTC",
        "cleanup_webhook_deliveries": "cron 0 4 * * * UTC",
        "cleanup_lists": "cron 15 4 * * * UTC",
        "cleanup_files": "cron 30 4 * * * UTC",
        "generate_daily_analytics": "cron 0 1 * * * UTC",
    }
    assert {schedule.task for schedule in schedules} <= set(app.tasks)


async def test_a_schedule_without_its_task_stops_the_start(school: School) -> None:
    """Mistake 1: every firing is an unknown task."""
    app.conf.beat_schedule["typo"] = {"task": "cleanup_expired_sesions", "schedule": 60.0}
    try:
        with pytest.raises(ConfigurationError, match="cleanup_expired_sesions"):
            app.check()
    finally:
        del app.conf.beat_schedule["typo"]
    app.check()


async def test_mail_is_retried_after_sixty_seconds_and_more_as_promised(school: School) -> None:
    """Mistake 14: `2 ** retries` waits 1, 2, 4 s where 60, 120, 240 are promised."""
    school.mailer.fail_with(TemporaryMailError("451 try later"), times=3)
    with clock.use(FakeClock()) as time:
        started = time.timestamp()
        app.tasks["send_welcome_email"].delay(1, "ann@example.org", "Ann")
        waited = time.timestamp() - started
    assert len(school.mailer.outbox) == 1
    assert 420 * 0.9 <= waited <= 420 * 1.1


async def test_a_mail_that_is_refused_for_good_is_not_retried(school: School) -> None:
    """Mistake 4: permanent errors are retried like passing ones."""
    school.mailer.fail_with(PermanentMailError("550 no such user"))
    run = app.tasks["send_welcome_email"].delay(1, "ann@example.org", "Ann")
    live = app.live.get(run.id)
    assert live is not None
    assert (live.state, live.attempt) == ("discarded", 1)


async def test_a_run_that_is_delivered_twice_sends_its_mail_once(school: School) -> None:
    for _ in range(2):
        app.tasks["send_welcome_email"].apply_async((1, "ann@example.org", "Ann"), task_id="one-run")
        app.live.clear()  # type: ignore[attr-defined]
    app.tasks["send_welcome_email"].delay(1, "ann@example.org", "Ann")
    first, other = [mail.message_id for mail in school.mailer.outbox]
    assert first != other


async def test_a_mail_that_may_have_arrived_is_not_sent_again(school: School) -> None:
    school.mailer.fail_with(UnknownOutcomeError("no answer"))
    for _ in range(2):
        result = app.tasks["send_welcome_email"].apply((1, "ann@example.org", "Ann"), task_id="unanswered")
        assert isinstance(result.result, OutcomeUnknown)
        app.live.clear()  # type: ignore[attr-defined]
    assert school.mailer.outbox == []


async def test_wrong_arguments_fail_where_the_call_is_made(school: School) -> None:
    for wrong in (("one", "a@b.org", "A"), (1, "a@b.org"), (1, "a@b.org", "A", "more")):
        with pytest.raises(InvalidArguments, match="send_welcome_email"):
            app.tasks["send_welcome_email"].delay(*wrong)


async def test_inline_mode_asks_no_broker(school: School, monkeypatch: pytest.MonkeyPatch) -> None:
    """Mistake 13: inline mode still calls `.delay` for some tasks."""

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("the broker was asked")

    monkeypatch.setattr("kombu.connection.Connection.ensure_connection", refuse)
    monkeypatch.setattr("redis.connection.Connection.connect", refuse)
    headers = await school.user("ann@example.org")
    shown = await school.graduate(headers, await school.course())
    assert shown["certificate"]
    assert len(school.mails_to("ann@example.org")) == 3
