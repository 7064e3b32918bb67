"""The plots of the performance page, from the times that the benchmark measured.

python examples/benchmark --output docs/results
python docs/figures/benchmark.py
"""

import json
import sys
from pathlib import Path

from style import FOLDER

_ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(_ROOT / "examples" / "benchmark"))

from report import draw  # noqa: E402

if __name__ == "__main__":
    draw(json.loads((_ROOT / "docs" / "results" / "benchmark.json").read_text()), FOLDER)
