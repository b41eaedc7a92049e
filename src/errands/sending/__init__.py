"""How runs are sent: one call or many, at once or after a commit; past Celery where that is safe."""

from errands.sending.on_commit import Sending

__all__ = ["Sending"]
