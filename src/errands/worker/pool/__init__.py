"""The asyncio pool: `async def` tasks side by side on one event loop, plain tasks in threads.

Chosen by `errands worker`, or for `celery worker` by `worker_pool = "errands.worker.pool:TaskPool"`.
"""

from errands.worker.pool.task_pool import TaskPool

__all__ = ["TaskPool"]
