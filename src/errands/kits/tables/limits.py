"""How large a file may be. Whatever comes from outside is bounded before it is read."""

from __future__ import annotations

from dataclasses import dataclass

from errands import ConfigurationError


@dataclass(frozen=True, slots=True)
class Limits:
    """What an import reads at most; a file beyond it is refused (`FileRefused`), a cell or an object beyond
    it only its row.

    Attributes:
        rows: of data, without the header.
        bytes: of the file.
        columns: of a header, or keys of an object.
        cell: characters of one cell. 32,767 is what a spreadsheet holds.
        row: characters of one row as it stands in the file.
        depth: of lists and objects within a JSON row.
        unpacked: bytes of an XLSX file when it is unpacked.
        memory: bytes of address space of the process that reads an XLSX file.
        seconds: of processor time for reading an XLSX file.
    """

    rows: int = 1_000_000
    bytes: int = 256 * 1024 * 1024
    columns: int = 200
    cell: int = 32_767
    row: int = 1024 * 1024
    depth: int = 20
    unpacked: int = 1024 * 1024 * 1024
    memory: int = 2 * 1024 * 1024 * 1024
    seconds: int = 300

    def __post_init__(self) -> None:
        for name in self.__dataclass_fields__:
            if getattr(self, name) < 1:
                raise ConfigurationError(f"tables.Limits({name}={getattr(self, name)}): a limit is 1 or more")
