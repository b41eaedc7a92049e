"""A waiting run that later requests changed, in its worker: it takes their arguments, or waits on.

See `lua/unique.lua`: what they asked for lies in the run's live state, and comes with the answer to a start.
"""

from __future__ import annotations

from typing import Any, NoReturn

from celery.exceptions import Ignore, Reject

from errands.core import newest
from errands.core.errors import UntrustedMessage


def take(task: Any, request: Any, told: str) -> None:
    """Put the newest arguments into `request`, in place of those of its message.

    Args:
        told: the event that gave them to the run.

    Raises:
        UntrustedMessage: only signed messages are run, and these arguments are not signed by us, or are those
            of other work.
    """
    signer = None if task.app.settings.accept_unsigned else task.app.signer
    args, kwargs = newest.read(told, task.name, signer)
    if signer is not None and task.rules.unique is not None:
        compared = task.arguments.compared
        before, after = compared(request.args, request.kwargs), compared(args, kwargs)
        if task.rules.unique.key(task.name, before) != task.rules.unique.key(task.name, after):
            raise UntrustedMessage("the arguments of a later request for it are those of other work")
    request.args, request.kwargs = args, kwargs


def put_off(task: Any, request: Any, seconds: float, patience: dict[str, Any]) -> NoReturn:
    """Send the run on, to start in `seconds`; no attempt has begun.

    Raises:
        Ignore: it was sent on.
        Reject: it could not be; the message at hand goes back.
    """
    signature = task.signature_from_request(request, countdown=seconds, retries=request.retries)
    try:
        signature.apply_async(retry=True, retry_policy=patience)
    except Exception as exc:
        raise Reject(exc, requeue=True) from exc
    raise Ignore("later requests have put it off")
