"""The charts of the result tables, from the CSV beside each page that shows one.

python examples/reproduce.py NAME   # each with the command on its page
python docs/figures/results.py
"""

import re
import sys
from pathlib import Path

_ROOT = Path(__file__).parents[2]
RESULTS = _ROOT / "docs" / "results"
sys.path.insert(0, str(_ROOT / "examples"))

from flowvae.tables import draw_errors, read_rows, row_factors  # noqa: E402


def charts() -> list[Path]:
    """The tables whose page shows a chart."""
    return [table for table in sorted(RESULTS.glob("*.csv")) if f"]({table.stem}.png)" in _page(table)]


def draw(table: Path, folder: Path) -> None:
    """Draw the chart of a table."""
    data = re.search(r"^Data: (.*)\. Seed", _page(table), flags=re.MULTILINE)
    if data is None:
        raise SystemExit(f"results: expected a line 'Data: …. Seed' in {table.stem}.md, found none.")
    rows = read_rows(table)
    draw_errors(folder / f"{table.stem}.png", rows, row_factors(next(iter(rows.values()))), data[1])


def _page(table: Path) -> str:
    return table.with_suffix(".md").read_text()


if __name__ == "__main__":
    for each in charts():
        draw(each, RESULTS)
