"""What is written in images and PDFs that people send.

    app.use(ocr.kit())

    @app.task(queue="ocr")
    async def process_ocr_document(file_url: str, excuse_letter_id: int, *, ocr: Ocr) -> str:
        reading = await ocr.read_url(file_url)
        ...  # save reading.text and reading.metadata() with the letter

Needs `errands[ocr]`.
"""

from errands.imaging import ImageBounds
from errands.kits.ocr.kit import OcrKit, kit
from errands.kits.ocr.local import LocalOcr
from errands.kits.ocr.provider import Ocr, OcrFailed, OcrRefused, Page, Reading, Word

__all__ = [
    "ImageBounds",
    "LocalOcr",
    "Ocr",
    "OcrFailed",
    "OcrKit",
    "OcrRefused",
    "Page",
    "Reading",
    "Word",
    "kit",
]
