"""Charts: what they show, and where on the paper it goes. The template draws them as vectors."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Literal, TypeAlias

from errands.kits.documents.errors import DocumentError
from errands.kits.documents.text import Texts
from errands.kits.documents.values import is_number, shown

Number: TypeAlias = int | float | Decimal
_MOST = {"bar": 60, "line": 1000, "share": 1000}
_SERIES = 6
_PARTS = 8


@dataclass(frozen=True, slots=True)
class Chart:
    """A bar chart, a line chart, or shares of a whole (a ring).

    `labels`: of the bars, the points along the line, or the parts; up to 60 for bars and 1,000 for lines.
    `series`: a number for each label, or several rows of numbers by name (up to 6; shares have one). None
    leaves a gap. `alt`: what the chart shows, for those who can't see it; it is required. `unit` is put
    behind each number, `format` says how numbers are written (`".1f"`, see `format()`). Of shares the seven
    largest of more than eight are shown, and the rest as one, called `other`, or "Other" in the report's
    language.

    Bars lie down where their labels are many or long.
    """

    kind: Literal["bar", "line", "share"]
    labels: Sequence[str]
    series: Sequence[Number | None] | Mapping[str, Sequence[Number | None]]
    alt: str
    title: str = ""
    unit: str = ""
    format: str = ""
    other: str = ""

    def __post_init__(self) -> None:
        name = f"chart {self.title!r}" if self.title else f"the {self.kind} chart"
        if self.kind not in _MOST:
            raise DocumentError(f"{name}: kind {self.kind!r} is none of bar, line, share")
        if not self.alt.strip():
            raise DocumentError(f"{name} needs an alt text that says what it shows")
        if len(self.labels) > _MOST[self.kind]:
            raise DocumentError(
                f"{name} has {len(self.labels)} labels; {_MOST[self.kind]} are the most: show "
                "the largest, or a table"
            )
        rows = self.rows()
        if len(rows) > (1 if self.kind == "share" else _SERIES):
            raise DocumentError(f"{name} has {len(rows)} series; show fewer, or several charts")
        for row, values in rows.items():
            if len(values) != len(self.labels):
                raise DocumentError(
                    f"{name}: {row or 'the series'} has {len(values)} numbers for {len(self.labels)} labels"
                )
            for value in values:
                if value is not None and not is_number(value):
                    raise DocumentError(f"{name}: {value!r} is no number; leave a gap with None")
                if value is not None and not _drawable(value):
                    raise DocumentError(
                        f"{name}: {value} is no number that can be drawn; leave a gap with None"
                    )
                if self.kind == "share" and value is not None and value < 0:
                    raise DocumentError(f"{name}: {value} is no share; shares are zero or more")

    def rows(self) -> dict[str, Sequence[Number | None]]:
        """The series by name; a single one has none."""
        if isinstance(self.series, Mapping):
            return {str(name): values for name, values in self.series.items()}
        return {"": self.series}

    def data(self, texts: Texts) -> dict[str, Any]:
        """What the template draws: places from 0 (start, bottom) to 1, and texts."""
        where = f"chart {self.title}".rstrip()
        common = {"type": "chart", "title": texts(self.title, where), "alt": texts.plain(self.alt, where)}
        if self.kind == "share":
            return {**common, "kind": "share", "parts": self._parts(texts, where)}
        rows = self.rows()
        values = [float(value) for row in rows.values() for value in row if value is not None]
        low, high, ticks = scale(
            min([0.0, *values]) if self._from_zero(values) else min(values), max([0.0, *values])
        )

        def at(value: float) -> float:
            return round((value - low) / (high - low), 5)

        lying = self.kind == "bar" and (
            len(self.labels) > 12 or max(map(len, self.labels), default=0) * len(self.labels) > 90
        )
        return {
            **common,
            "kind": "lying" if lying else self.kind,
            "labels": [texts(label, where) for label in self.labels],
            "series": [
                {
                    "name": texts(name, where),
                    "points": [
                        None
                        if value is None
                        else {"at": at(float(value)), "text": self._text(value, texts, where)}
                        for value in row
                    ],
                }
                for name, row in rows.items()
            ],
            "zero": min(1, max(0, at(0))),
            "ticks": [{"at": at(tick), "text": self._text(tick, texts, where)} for tick in ticks],
        }

    def _from_zero(self, values: Sequence[float]) -> bool:
        """Bars begin at zero, whatever they show; a line only where zero is near."""
        return self.kind == "bar" or not values or min(values) < 0.6 * max(values)

    def _text(self, value: Number, texts: Texts, where: str) -> str:
        return texts.plain(shown(value, self.format) + self.unit, where)

    def _parts(self, texts: Texts, where: str) -> list[dict[str, Any]]:
        (values,) = self.rows().values()
        pairs: list[tuple[str | None, Decimal]] = [
            (label, Decimal(str(value))) for label, value in zip(self.labels, values, strict=True) if value
        ]
        if len(pairs) > _PARTS:
            # Sorted is stable: equal parts keep their order, so that the same input draws the same.
            largest = sorted(pairs, key=lambda pair: -pair[1])[: _PARTS - 1]
            rest = sum((value for _, value in pairs), Decimal()) - sum(
                (value for _, value in largest), Decimal()
            )
            pairs = [*largest, (self.other or None, rest)]
        whole = sum((value for _, value in pairs), Decimal()) or Decimal(1)
        return [
            {
                "label": None if label is None else texts(label, where),
                "share": round(float(value / whole), 6),
                "text": self._text(value if value % 1 else int(value), texts, where),
                "percent": f"{value / whole:.0%}" if value / whole >= Decimal("0.01") else "<1%",
            }
            for label, value in pairs
        ]


def _drawable(value: Number) -> bool:
    try:
        return abs(float(value)) < 1e15
    except OverflowError:
        return False


def scale(low: float, high: float) -> tuple[float, float, list[float]]:
    """Bounds around `low` and `high`, and four to eight round numbers from one to the other."""
    largest = max(abs(low), abs(high))
    if high - low < 1e-9 * max(largest, 1e-3):
        # All the same, or as good as: from zero.
        low, high = min(low, 0.0), max(high, low + (largest if largest > 1e-6 else 1.0))
    step = 10 ** math.floor(math.log10((high - low) / 4))
    step *= next(factor for factor in (1, 2, 2.5, 5, 10) if (high - low) / (step * factor) <= 6)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return first * step, last * step, [round(count * step, 12) for count in range(first, last + 1)]
