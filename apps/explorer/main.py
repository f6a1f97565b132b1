"""What streamlit runs, with the folder of runs as its one argument."""

import sys
from pathlib import Path

HERE = str(Path(__file__).resolve().parents[1])
if HERE not in sys.path:  # this folder's modules import each other as `explorer.…`, in a checkout and in a wheel
    sys.path.append(HERE)

from explorer.shell import show  # noqa: E402

show(Path(sys.argv[1]) if len(sys.argv) > 1 else Path("runs"))
