"""What `app.use` takes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from errands.fetching import Fetcher
from errands.imaging import ImageBounds
from errands.kits.ocr import installed
from errands.kits.ocr.local import LIMITS, Fetch, LocalOcr, guarded
from errands.kits.ocr.provider import Ocr

if TYPE_CHECKING:
    from errands import Errands
    from errands.children import Limits


class OcrKit:
    """See `kit`."""

    def __init__(
        self,
        ocr: Ocr | None,
        bounds: ImageBounds | None,
        max_pages: int,
        fetch: Fetch | None,
        limits: Limits,
        processes: int | None,
    ) -> None:
        self._ocr = ocr
        self._bounds = bounds or ImageBounds()
        self._max_pages = max_pages
        self._fetch = fetch
        self._limits = limits
        self._processes = processes

    def install(self, app: Errands) -> None:
        """Provide `Ocr`.

        Raises:
            ConfigurationError: the engine, or the data of a language, is not installed.
        """
        ocr, settings = self._ocr, app.settings
        if ocr is not None:
            app.provide(Ocr, lambda: ocr, scope="process")
            return
        installed.find(settings.ocr_engine, settings.ocr_languages, settings.ocr_tessdata)
        app.provide(Ocr, lambda: self._made(app), scope="process")

    def _made(self, app: Errands) -> Ocr:
        fetch = self._fetch
        if fetch is None and app.resources.has(Fetcher):  # what `fetching.kit()` was told holds here too
            fetch = guarded(app.resources.instance(Fetcher), self._bounds.max_bytes)
        return LocalOcr(
            app.settings.ocr_engine,
            languages=app.settings.ocr_languages,
            tessdata=app.settings.ocr_tessdata,
            bounds=self._bounds,
            max_pages=self._max_pages,
            fetch=fetch,
            limits=self._limits,
            processes=self._processes,
        )


def kit(
    ocr: Ocr | None = None,
    *,
    bounds: ImageBounds | None = None,
    max_pages: int = 20,
    fetch: Fetch | None = None,
    limits: Limits = LIMITS,
    processes: int | None = None,
) -> OcrKit:
    """OCR for an app: `app.use(ocr.kit())`.

    Engine and languages come from the settings (`ERRANDS_OCR_ENGINE`, `ERRANDS_OCR_LANGUAGES`,
    `ERRANDS_OCR_TESSDATA`).

    Args:
        ocr: reads instead of `LocalOcr`; tests give `FakeOcr`.
        fetch: gets the bytes at an address; by default the app's `Fetcher` where `fetching.kit()` is used,
            else one for public addresses over https.
        bounds, max_pages, limits, processes: of `LocalOcr`.
    """
    return OcrKit(ocr, bounds, max_pages, fetch, limits, processes)
