"""The site, built strictly once per test run."""

import functools
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parent.parent


@functools.cache
def build() -> Path:
    """Folder of the built site; the caller's test fails with the build's own words where it fails."""
    folder = Path(tempfile.mkdtemp(prefix="torchflowfield-site-"))
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(folder)]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr + result.stdout
    return folder
