"""Published benchmarks as frozen dataclasses, from a local folder or, when asked for, from the Hugging Face hub.

Example:
    >>> forget = load_tofu("forget10_perturbed", folder="data/tofu")
    >>> forget.rows[0].perturbed[:2]
"""

from interp_unlearn.benchmarks._graph_files import read_npz as read_npz
from interp_unlearn.benchmarks._graph_files import read_planetoid as read_planetoid
from interp_unlearn.benchmarks._graphs import GRAPHS as GRAPHS
from interp_unlearn.benchmarks._graphs import citations as citations
from interp_unlearn.benchmarks._graphs import load_graph as load_graph
from interp_unlearn.benchmarks._tofu import TOFU_SIZES as TOFU_SIZES
from interp_unlearn.benchmarks._tofu import TofuRow as TofuRow
from interp_unlearn.benchmarks._tofu import TofuSpan as TofuSpan
from interp_unlearn.benchmarks._tofu import TofuSplit as TofuSplit
from interp_unlearn.benchmarks._tofu import load_tofu as load_tofu
from interp_unlearn.benchmarks._tofu import load_tofu_spans as load_tofu_spans
from interp_unlearn.benchmarks._tofu import retain_split as retain_split
from interp_unlearn.benchmarks._tofu_log import TofuLosses as TofuLosses
from interp_unlearn.benchmarks._tofu_log import read_tofu_log as read_tofu_log
