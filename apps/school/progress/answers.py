"""The answer of an endpoint that has started work: where it can be watched."""

from __future__ import annotations

from typing import Any

from fastapi.responses import JSONResponse

from school.progress import links


class Answer(JSONResponse):
    """JSON. With the status 202, each run that is named by a `task_id` gets a `progress_url`."""

    def render(self, content: Any) -> bytes:
        """FastAPI hands over what the endpoint returned, made JSON already."""
        return super().render(_with_links(content) if self.status_code == 202 else content)


def _with_links(content: Any) -> Any:
    if isinstance(content, list):
        return [_with_links(each) for each in content]
    if not isinstance(content, dict):
        return content
    told = {name: _with_links(value) for name, value in content.items()}
    task_id = told.get("task_id")
    return told | {"progress_url": links.page(task_id)} if isinstance(task_id, str) and task_id else told
