"""The two engines, as a child process uses them: Tesseract's library, and its command line."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from io import BytesIO
from typing import Any, Protocol

from PIL.Image import Image

from errands.children.programs import run_program
from errands.kits.ocr.provider import OcrFailed

_WORD_LEVEL = "5"  # in the command's table


@dataclass(slots=True)
class Recognised:
    """What an engine made of a page: the text in lines and paragraphs, and (word, confidence 0 to 100)."""

    text: str
    words: list[tuple[str, float]]

    @property
    def confidence(self) -> float:
        """The mean of the words'; 0 where there are none."""
        return sum(confidence for _, confidence in self.words) / len(self.words) if self.words else 0.0


class Engine(Protocol):
    """Reads one page after the other. `version`: its own, such as 5.5.4."""

    version: str

    def recognise(self, page: Image) -> Recognised:
        """What is written on `page`, an image in L.

        Raises `OcrFailed`.
        """
        ...


@cache
def engine(kind: str, program: str, tessdata: str, languages: str) -> Engine:
    """The engine of this process for these settings; made once, as loading its data takes 0.1 s."""
    return _Library(tessdata, languages) if kind == "tesserocr" else _Command(program, tessdata, languages)


class _Library:
    def __init__(self, tessdata: str, languages: str) -> None:
        import tesserocr

        self.version = tesserocr.tesseract_version().split()[1]
        self._words = tesserocr.RIL.WORD
        self._iterate: Any = tesserocr.iterate_level
        try:
            self._tesseract = tesserocr.PyTessBaseAPI(
                path=tessdata, lang=languages, psm=tesserocr.PSM.AUTO, oem=tesserocr.OEM.LSTM_ONLY
            )
        except RuntimeError as error:
            raise OcrFailed(f"Tesseract can't use its language data in {tessdata}: {error}") from error

    def recognise(self, page: Image) -> Recognised:
        tesseract = self._tesseract
        try:
            tesseract.SetImage(page)
            tesseract.SetSourceResolution(300)
            if not tesseract.Recognize():
                raise OcrFailed("Tesseract gave a page up")
            words = []
            found = tesseract.GetIterator()
            if found is not None and not found.Empty(self._words):
                for each in self._iterate(found, self._words):
                    word = (each.GetUTF8Text(self._words) or "").strip()
                    if word:
                        words.append((word, float(each.Confidence(self._words))))
            return Recognised(tesseract.GetUTF8Text().strip(), words)
        except RuntimeError as error:
            raise OcrFailed(f"Tesseract failed with a page: {error}") from error
        finally:
            tesseract.Clear()


class _Command:
    def __init__(self, program: str, tessdata: str, languages: str) -> None:
        _, output, errors = run_program([program, "--version"], b"")
        self.version = (output.decode("utf-8", "replace") or errors or "? ?").split()[1]
        folder = ["--tessdata-dir", tessdata] if tessdata else []
        self._command = [
            program, "stdin", "stdout", *folder, "-l", languages, "--psm", "3", "--oem", "1", "--dpi", "300",
            "-c", "tessedit_create_tsv=1",
        ]  # fmt: skip

    def recognise(self, page: Image) -> Recognised:
        file = BytesIO()
        page.save(file, "PPM")
        code, output, words = run_program(self._command, file.getvalue())
        if code != 0:
            raise OcrFailed(f"{self._command[0]} ended with {code}: {words[-1000:].strip()}")
        return _from_table(output.decode("utf-8", "replace"))


def _from_table(table: str) -> Recognised:
    """Words with confidences, and the text in lines and paragraphs, from the command's table (TSV)."""
    text, words = "", []
    place: tuple[str, ...] = ()
    for row in table.splitlines():
        cells = row.split("\t")
        if len(cells) < 12 or cells[0] != _WORD_LEVEL or not cells[11].strip():
            continue
        word, now = cells[11].strip(), tuple(cells[1:5])  # page, block, paragraph, line
        if place:
            text += " " if now == place else "\n" if now[:3] == place[:3] else "\n\n"
        text += word
        words.append((word, float(cells[10])))
        place = now
    return Recognised(text, words)
