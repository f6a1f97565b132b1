"""Graphs, what is deleted from them, and the tasks made of both.

Example:
    >>> task = graph_task(graph, ["edges 5% in"], seed=0)
    >>> task.deleted_edges.shape
"""

from interp_unlearn.worlds.graphs._deletion import Deletion as Deletion
from interp_unlearn.worlds.graphs._deletion import parse_deletion as parse_deletion
from interp_unlearn.worlds.graphs._graph import Graph as Graph
from interp_unlearn.worlds.graphs._graph import Normalise as Normalise
from interp_unlearn.worlds.graphs._graph import both_ways as both_ways
from interp_unlearn.worlds.graphs._graph import draw_non_edges as draw_non_edges
from interp_unlearn.worlds.graphs._graph import edge_keys as edge_keys
from interp_unlearn.worlds.graphs._graph import hop_distance as hop_distance
from interp_unlearn.worlds.graphs._graph import is_among as is_among
from interp_unlearn.worlds.graphs._graph import make_graph as make_graph
from interp_unlearn.worlds.graphs._removal import DropEdges as DropEdges
from interp_unlearn.worlds.graphs._split import EdgeSplit as EdgeSplit
from interp_unlearn.worlds.graphs._split import NodeSplit as NodeSplit
from interp_unlearn.worlds.graphs._split import is_inside as is_inside
from interp_unlearn.worlds.graphs._task import EdgeTask as EdgeTask
from interp_unlearn.worlds.graphs._task import GraphTask as GraphTask
from interp_unlearn.worlds.graphs._task import NodeTask as NodeTask
from interp_unlearn.worlds.graphs._task import edge_items as edge_items
from interp_unlearn.worlds.graphs._task import edge_names as edge_names
from interp_unlearn.worlds.graphs._task import graph_task as graph_task
