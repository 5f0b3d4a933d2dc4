"""Reading a table in CSV, as a user's program wrote it, and as it should not have."""

from __future__ import annotations

import csv
import io

from etils import epath

from jaxmoxi.errors import InputError

_MOST = 2**31 - 1  # characters in a field: csv's own limit of 131,072 ends with an error that names no file


def read_rows(path: epath.Path) -> list[dict[str, str]]:
    """The rows of a CSV file with a head, each by the names of its columns; fields that a row lacks are "".

    Line breaks inside quoted fields belong to the fields. Raises InputError that names the file, and the line where
    there is one, for a file that cannot be read, is not UTF-8 or no CSV, and for rows with more fields than the head.
    """
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(
            f"{path} is not UTF-8 (byte {error.start}: {error.object[error.start]:#04x}); save it as CSV in UTF-8"
        ) from None
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror or error}); expected a CSV file") from None
    if "\0" in text:
        raise InputError(f"{path} holds zero bytes, and is no CSV; save it as CSV in UTF-8")
    limit = csv.field_size_limit(_MOST)
    lines = csv.DictReader(io.StringIO(text, newline=""), restval="", strict=True)
    rows: list[dict[str, str]] = []
    try:
        for row in lines:
            if None in row:
                raise InputError(
                    f"line {lines.line_num} of {path} has more fields than the {len(row) - 1} columns of the first "
                    "line: put fields with commas into double quotes"
                )
            rows.append(row)
    except csv.Error as error:
        raise InputError(f"line {lines.reader.line_num} of {path} is no CSV ({error})") from None
    finally:
        csv.field_size_limit(limit)
    return rows
