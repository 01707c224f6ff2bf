"""The formats that a report can have.

Belongs here: their names, and how the names of their files end. Doesn't: what a report looks like in one (reports/).
"""

from typing import Literal

Format = Literal["text", "csv", "json", "parquet", "csv-br", "xlsx"]
"""csv-br is CSV as Excel reads it in Brazil: semicolons, decimal commas, a byte order mark."""
StatementFormat = Literal["text", "csv", "json", "parquet", "csv-br", "xlsx", "pdf"]
"""Of the monthly statement, which is for paper too."""
SUFFIX: dict[StatementFormat, str] = {
    "text": "txt",
    "csv": "csv",
    "json": "json",
    "parquet": "parquet",
    "csv-br": "csv",
    "xlsx": "xlsx",
    "pdf": "pdf",
}
REPORT_FILES: tuple[Format, ...] = ("text", "csv", "parquet")
"""A final report lies under NOTIF_REPORTS as one file of each of these."""
