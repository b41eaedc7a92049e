"""Google's access tokens for a service account (OAuth 2.0, RFC 7523): fetched, kept, renewed in time."""

from __future__ import annotations

import asyncio
import functools
import logging
import threading
from collections.abc import Mapping
from typing import Any

from errands import ConfigurationError
from errands.kits.push.errors import PushFailed

logger = logging.getLogger("errands.push")

SCOPE = "https://www.googleapis.com/auth/firebase.messaging"


class AccessTokens:
    """The access tokens of one service account. A token is good for an hour, and is kept for all who send.

    Args:
        account: the service account's key, as the JSON file of the Firebase console holds it.
        timeout: seconds for one request to the token server.

    Raises:
        ConfigurationError: this is no key of a service account.
    """

    def __init__(self, account: Mapping[str, Any], *, timeout: float = 10.0) -> None:
        from google.auth.exceptions import GoogleAuthError
        from google.oauth2 import service_account

        try:
            self._credentials: Any = service_account.Credentials.from_service_account_info(  # type: ignore[no-untyped-call]
                dict(account), scopes=[SCOPE]
            )
        except (GoogleAuthError, ValueError) as exc:
            raise ConfigurationError(
                f"ERRANDS_FCM_CREDENTIALS: this is no key of a service account: {exc}"
            ) from exc
        self._timeout = timeout
        self._lock = threading.Lock()

    async def get(self) -> str:
        """A token that is good now.

        Raises:
            PushFailed: there is none, and none can be had now; the text says why.
        """
        from google.auth.credentials import TokenState

        if self._credentials.token_state is TokenState.FRESH:
            return str(self._credentials.token)
        # google-auth blocks; in a thread it holds up nobody but those who wait for the token.
        return await asyncio.to_thread(self._renewed)

    def reject(self, token: str) -> None:
        """The service did not accept this token: the next `get` brings another."""
        with self._lock:
            if self._credentials.token == token:
                self._credentials.token = None

    def _renewed(self) -> str:
        import google.auth.exceptions
        import google.auth.transport.requests
        from google.auth.credentials import TokenState

        with self._lock:
            state = self._credentials.token_state
            if state is TokenState.FRESH:  # another renewed it while we waited
                return str(self._credentials.token)
            request = functools.partial(
                google.auth.transport.requests.Request(),
                timeout=self._timeout,
            )
            try:
                self._credentials.refresh(request)
            except google.auth.exceptions.GoogleAuthError as exc:
                if state is TokenState.STALE:  # good for some minutes still
                    logger.warning("FCM: the access token is not renewed yet: %s", exc)
                    return str(self._credentials.token)
                raise PushFailed(
                    f"fcm: no access token for {self._credentials.service_account_email}: {exc}. If this "
                    "lasts, look whether the service account's key still stands (ERRANDS_FCM_CREDENTIALS)"
                ) from exc
            return str(self._credentials.token)
