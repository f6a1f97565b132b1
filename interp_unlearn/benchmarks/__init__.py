"""Published benchmarks as frozen dataclasses, from a local folder or, when asked for, from the Hugging Face hub.

Example:
    >>> forget = load_tofu("forget10_perturbed", folder="data/tofu")
    >>> forget.rows[0].perturbed[:2]
"""

from interp_unlearn.benchmarks._bar import load_bar as load_bar
from interp_unlearn.benchmarks._folders import load_nico as load_nico
from interp_unlearn.benchmarks._folders import load_waterbirds as load_waterbirds
from interp_unlearn.benchmarks._graph_files import read_npz as read_npz
from interp_unlearn.benchmarks._graph_files import read_planetoid as read_planetoid
from interp_unlearn.benchmarks._graphs import GRAPHS as GRAPHS
from interp_unlearn.benchmarks._graphs import citations as citations
from interp_unlearn.benchmarks._graphs import load_graph as load_graph
from interp_unlearn.benchmarks._image_task import QUARTERS as QUARTERS
from interp_unlearn.benchmarks._image_task import ImageTask as ImageTask
from interp_unlearn.benchmarks._image_task import Preprocess as Preprocess
from interp_unlearn.benchmarks._image_task import image_task as image_task
from interp_unlearn.benchmarks._images import ALIGNED as ALIGNED
from interp_unlearn.benchmarks._images import CONFLICTING as CONFLICTING
from interp_unlearn.benchmarks._images import BiasedImages as BiasedImages
from interp_unlearn.benchmarks._images import resplit as resplit
from interp_unlearn.benchmarks._load_images import IMAGE_SETS as IMAGE_SETS
from interp_unlearn.benchmarks._load_images import load_images as load_images
from interp_unlearn.benchmarks._shapes import ShapesConfig as ShapesConfig
from interp_unlearn.benchmarks._shapes import coloured_shapes as coloured_shapes
from interp_unlearn.benchmarks._tofu import TOFU_SIZES as TOFU_SIZES
from interp_unlearn.benchmarks._tofu import TofuRow as TofuRow
from interp_unlearn.benchmarks._tofu import TofuSpan as TofuSpan
from interp_unlearn.benchmarks._tofu import TofuSplit as TofuSplit
from interp_unlearn.benchmarks._tofu import load_tofu as load_tofu
from interp_unlearn.benchmarks._tofu import load_tofu_spans as load_tofu_spans
from interp_unlearn.benchmarks._tofu import retain_split as retain_split
from interp_unlearn.benchmarks._tofu_log import TofuLosses as TofuLosses
from interp_unlearn.benchmarks._tofu_log import read_tofu_log as read_tofu_log
