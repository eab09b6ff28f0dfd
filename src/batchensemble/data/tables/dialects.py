"""The dialect of a CSV file, given or detected: separator, decimal sign, encoding, gaps."""

from __future__ import annotations

import bz2
import codecs
import csv
import gzip
import io
import lzma
import re
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

# Words that mean a missing value, as pandas and R write them. An empty field always does.
GAPS = (
    *("#N/A", "#N/A N/A", "#NA", "-1.#IND", "-1.#QNAN", "-NaN", "-nan", "1.#IND", "1.#QNAN"),
    *("<NA>", "N/A", "NA", "NULL", "NaN", "None", "n/a", "nan", "null"),
)
SEPARATORS = (",", ";", "\t", "|")  # that are looked for
SAMPLE_BYTES = 1 << 16  # bytes that are looked at
SAMPLE_ROWS = 100
MARKS = (  # the longer one first: that of UTF-32 begins with that of UTF-16
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
SEP_LINE = re.compile(r'"?sep=(?P<separator>[^"\r\n])"?', re.IGNORECASE)  # Excel's
WITH_COMMA = re.compile(r"[+-]?\d*,\d+(?:[eE][+-]?\d+)?")
WITH_POINT = re.compile(r"[+-]?\d*\.\d+(?:[eE][+-]?\d+)?")
THOUSANDS = re.compile(r"[+-]?[1-9]\d{0,2}(?:,\d{3})+")
COMPRESSED: dict[str, Any] = {".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open}


@dataclass(frozen=True)
class Dialect:
    """How a CSV file is written; what is ``None`` is detected from the file.

    Attributes:
        separator: the character between fields; ``"tab"`` and ``"\\\\t"`` are a tab.
        decimal: ``"."`` or ``","``.
        encoding: a name that Python knows, such as ``"cp1252"`` or ``"utf-16"``.
        gaps: words that mean a missing value among numbers; by default :data:`GAPS`.

    Raises:
        ValueError: one of them is not possible.

    Example:
        >>> Dialect("tab").separator
        '\\t'
        >>> Dialect(decimal=";")
        Traceback (most recent call last):
        ValueError: decimal must be . or , got ';'
    """

    separator: str | None = None
    decimal: str | None = None
    encoding: str | None = None
    gaps: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        separator = self.separator
        if separator in ("tab", "\\t"):
            object.__setattr__(self, "separator", "\t")
        elif separator is not None and (len(separator) != 1 or separator in '"\r\n'):
            raise ValueError(f"separator must be one character, or tab, got {separator!r}")
        if self.decimal not in (None, ".", ","):
            raise ValueError(f"decimal must be . or , got {self.decimal!r}")
        if self.decimal is not None and self.decimal == self.separator:
            raise ValueError(f"separator and decimal must differ, got {self.decimal!r} for both")
        if self.encoding is not None:
            try:
                "".encode(self.encoding)
            except LookupError:
                raise ValueError(
                    f"encoding must be a name such as utf-8, cp1252 or utf-16, got "
                    f"{self.encoding!r}"
                ) from None

    @classmethod
    def from_settings(cls, settings: Mapping[str, Any] | None) -> Dialect:
        """Return the dialect among settings; ``gaps`` is a list, or text with commas between."""
        given = {each.name: (settings or {}).get(each.name) for each in fields(cls)}
        if isinstance(given["gaps"], str):
            given["gaps"] = given["gaps"].split(",")
        if given["gaps"] is not None:
            given["gaps"] = tuple(str(word).strip() for word in given["gaps"])
        return cls(**given)

    def over(self, other: Dialect) -> Dialect:
        """Return this dialect, with what it leaves open taken from another."""
        names = [each.name for each in fields(self)]
        mine = {name: getattr(self, name) for name in names}
        return Dialect(
            **{name: getattr(other, name) if mine[name] is None else mine[name] for name in names}
        )


FOUND = Dialect()  # all of it is detected from the file


@dataclass(frozen=True)
class CsvLayout:
    """The structure of a CSV file, detected from its beginning.

    Attributes:
        dialect: complete.
        header: the names of the columns, without blanks around them.
        lines: number of lines before the first row.
        surplus: number of empty fields in the first row beyond the header.
    """

    dialect: Dialect
    header: tuple[str, ...]
    lines: int
    surplus: int


def layout_of(path: Path, given: Dialect, known: Dialect) -> CsvLayout:
    """Detect the structure of a file.

    Args:
        path: of the file.
        given: the dialect that the user gives; it is not questioned.
        known: the dialect of other files of the same kind, for what the file leaves ambiguous.

    Raises:
        ValueError: the file is empty or ambiguous; the message names the option that decides.
        OSError: it cannot be read.
    """
    with _open_bytes(path) as file:
        head = file.read(SAMPLE_BYTES)
    encoding = given.encoding or _encoding(path.name, head, known)
    with opened(path, encoding) as file:
        text = file.read(SAMPLE_BYTES)
    whole = len(text) < SAMPLE_BYTES
    start, before = 0, 0
    lines = list(io.StringIO(text, newline=""))
    while before < len(lines) and not lines[before].strip():
        start, before = start + len(lines[before]), before + 1
    stated = SEP_LINE.fullmatch(lines[before].rstrip("\r\n")) if before < len(lines) else None
    if stated is not None:
        start, before = start + len(lines[before]), before + 1
    text = text[start:]
    if not text.strip():
        raise ValueError(f"{path.name} is empty; a header and rows are needed")
    separator = given.separator or (stated and stated["separator"])
    separator = separator or _separator(path.name, text, whole, known.separator)
    records, ends = _records(text, separator, whole)
    header = tuple(name.strip() or f"Unnamed: {number}" for number, name in enumerate(records[0]))
    rows = records[1:]
    surplus = rows[0][len(header) :] if rows else []
    if any(each.strip() for each in surplus):
        raise ValueError(
            f"{path.name} is not a regular table: a row has more fields than the header, "
            f"{len(rows[0])} and not {len(header)}, in row 1 (line {before + ends[0] + 1}); is "
            f"{visible(separator)} the separator? give it with --separator"
        )
    decimal = given.decimal or _decimal(rows, separator) or known.decimal or "."
    if decimal == separator:
        decimal = "."
    gaps = given.gaps or known.gaps or GAPS
    found = Dialect(separator, decimal, encoding, gaps)
    return CsvLayout(found, header, before + ends[0], len(surplus))


def opened(path: Path, encoding: str) -> io.TextIOWrapper:
    """Open a file, which may be compressed, as text with its line ends unchanged."""
    # What UTF-8 begins with is no part of the first name.
    encoding = "utf-8-sig" if codecs.lookup(encoding).name == "utf-8" else encoding
    return io.TextIOWrapper(_open_bytes(path), encoding=encoding, newline="")


def visible(separator: str) -> str:
    """Return the name of a separator for error messages."""
    return {"\t": "a tab", " ": "a blank"}.get(separator, separator)


def _open_bytes(path: Path) -> Any:
    suffix = path.suffix.lower()
    if suffix == ".zip":
        archive = zipfile.ZipFile(path)
        names = archive.namelist()
        if len(names) != 1:
            raise ValueError(f"{path.name} must hold one file, got {len(names)}; unpack it")
        return archive.open(names[0])
    return COMPRESSED.get(suffix, open)(path, "rb")


def _encoding(file: str, head: bytes, known: Dialect) -> str:
    for mark, name in MARKS:
        if head.startswith(mark):
            return name
    even, odd = head[::2].count(0), head[1::2].count(0)
    if max(even, odd) > len(head) // 8 and not min(even, odd):
        return "utf-16-le" if odd else "utf-16-be"
    try:
        text = codecs.getincrementaldecoder("utf-8")().decode(head)
    except UnicodeDecodeError:
        if known.encoding is not None:
            return known.encoding
        raise ValueError(no_text(file, "utf-8")) from None
    # Where all is plain ASCII, what comes later may not be.
    return known.encoding or "utf-8" if text.isascii() and _holds_ascii(known.encoding) else "utf-8"


def _holds_ascii(encoding: str | None) -> bool:
    """Return whether plain ASCII is the same bytes in an encoding."""
    return encoding is None or "a,1".encode(encoding) == b"a,1"


def no_text(file: str, encoding: str) -> str:
    """Return the error message for a file that is not text in an encoding."""
    return (
        f"{file} is not text in {encoding.upper()}; if it is a CSV file, give its encoding, such "
        "as --encoding cp1252, or from Python a data frame"
    )


def _separator(file: str, text: str, whole: bool, known: str | None) -> str:
    """Return the separator that makes a regular table of the first rows."""
    tables = {each: _records(text, each, whole)[0] for each in {*SEPARATORS, known or ","}}
    several = [each for each, records in tables.items() if records and len(records[0]) > 1]
    regular = [each for each in several if _is_regular(tables[each])]
    likely = regular or several
    if known in likely:
        return str(known)
    if len(likely) > 1:
        raise ValueError(
            f"{file}: its separator is ambiguous, "
            f"{' or '.join(map(visible, sorted(likely)))}; give it with --separator, or from "
            "Python a data frame"
        )
    return likely[0] if likely else ","


def _is_regular(records: Sequence[Sequence[str]]) -> bool:
    """Return whether all rows have as many fields as the header, but for empty ones at the end."""
    fields = len(records[0])
    return all(len(each) == fields or not any(each[fields:]) for each in records[1:] if each) and (
        len(records) < 2 or any(len(each) >= fields for each in records[1:])
    )


def _records(text: str, separator: str, whole: bool) -> tuple[list[list[str]], list[int]]:
    """Return the first records of a text, and the line that each ends in."""
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, skipinitialspace=True)
    records: list[list[str]] = []
    ends: list[int] = []
    try:
        for record in reader:
            if len(record) > 1 or (record and record[0].strip()):
                records.append(record)
                ends.append(reader.line_num)
            if len(records) > SAMPLE_ROWS:
                return records, ends
    except csv.Error:
        pass  # a field that is too long; the records before it are enough
    # The last one may be cut off.
    return (records, ends) if whole or len(records) < 2 else (records[:-1], ends[:-1])


def _decimal(rows: Sequence[Sequence[str]], separator: str) -> str | None:
    """Return the decimal sign if the numbers are unambiguous."""
    if separator == ",":
        return "."
    cells = [cell.strip() for row in rows for cell in row]
    commas = [cell for cell in cells if WITH_COMMA.fullmatch(cell)]
    if any(WITH_POINT.fullmatch(cell) for cell in cells):
        return "."
    # 1,234 alone may be a thousand and some.
    return "," if any(not THOUSANDS.fullmatch(cell) for cell in commas) else None
