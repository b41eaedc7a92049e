"""What an import came to."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from errands.kits.tables.chunk import Counts
from errands.kits.tables.raw import Reason

Status = Literal["done", "dry_run", "stopped"]


@dataclass(frozen=True, slots=True)
class Refusal:
    """A refused row: its number in the file, and every reason."""

    row: int
    reasons: tuple[Reason, ...]


@dataclass(frozen=True, slots=True)
class ImportResult:
    """What an import came to.

    Attributes:
        name: of the import.
        status: "done"; "dry_run", nothing was written; "stopped", the threshold was exceeded.
        reason: why it was stopped.
        counts: how many rows became what; of a dry run and of one that was stopped, would have become.
        refusals: the first refused rows (duplicates among them), in their order.
        file: what was found out about the file: see `FileInfo`.
        refused_file: the key of the file of refused rows; None without any, or without a place for files.
        refused_link: an address that downloads it, for a day.
    """

    name: str
    status: Status
    counts: Counts
    reason: str | None = None
    refusals: tuple[Refusal, ...] = ()
    file: dict[str, Any] = field(default_factory=dict)
    refused_file: str | None = None
    refused_link: str | None = None

    def as_json(self) -> dict[str, Any]:
        """What a task returns."""
        return {
            "import": self.name,
            "status": self.status,
            "reason": self.reason,
            "taken": self.counts.taken,
            **self.counts.as_json(),
            "refusals": [
                {"row": one.row, "reasons": [reason.as_json() for reason in one.reasons]}
                for one in self.refusals
            ],
            "file": self.file,
            "refused_file": self.refused_file,
            "refused_link": self.refused_link,
        }

    @classmethod
    def from_json(cls, kept: dict[str, Any]) -> ImportResult:
        """The result that `as_json` wrote."""
        return cls(
            name=kept["import"],
            status=kept["status"],
            reason=kept["reason"],
            counts=Counts(**{name: kept[name] for name in Counts.__dataclass_fields__}),
            refusals=tuple(
                Refusal(one["row"], tuple(Reason(**reason) for reason in one["reasons"]))
                for one in kept["refusals"]
            ),
            file=kept["file"],
            refused_file=kept["refused_file"],
            refused_link=kept["refused_link"],
        )
