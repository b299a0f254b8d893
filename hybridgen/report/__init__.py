"""Reports of a run: one HTML file, a table for the terminal, a page for the documentation.

All three are drawn from the rows of `results.json`; this package only assembles. Importing it
imports neither matplotlib nor xarray.
"""

from hybridgen.report.document import write_report
from hybridgen.report.page import results_page, write_results_page
from hybridgen.report.terminal import summary_of, table
from hybridgen.report.twin import twin_rows

__all__ = [
    "results_page",
    "summary_of",
    "table",
    "twin_rows",
    "write_report",
    "write_results_page",
]
