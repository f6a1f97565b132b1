"""Worlds: entities, facts and templates with ground truth, and the tasks made from them.

Example:
    >>> world = load_world("countries")
    >>> task = make_task(world, ["Japan"], relations=["capital"], seed=0)
    >>> task.forget_train.prompts[0].full
    'The capital of Japan is Tokyo'
"""

from interp_unlearn.worlds._known import FactKnowledge as FactKnowledge
from interp_unlearn.worlds._known import Knowledge as Knowledge
from interp_unlearn.worlds._known import Ranked as Ranked
from interp_unlearn.worlds._known import known as known
from interp_unlearn.worlds._known import rank_answers as rank_answers
from interp_unlearn.worlds._known import require_known as require_known
from interp_unlearn.worlds._labelled import AnyTask as AnyTask
from interp_unlearn.worlds._labelled import ItemSet as ItemSet
from interp_unlearn.worlds._labelled import LabelledTask as LabelledTask
from interp_unlearn.worlds._labelled import labelled_task as labelled_task
from interp_unlearn.worlds._labelled import text_task as text_task
from interp_unlearn.worlds._labelled import without_deleted as without_deleted
from interp_unlearn.worlds._lines import read_lines as read_lines
from interp_unlearn.worlds._load import list_worlds as list_worlds
from interp_unlearn.worlds._load import load_world as load_world
from interp_unlearn.worlds._load import own_questions as own_questions
from interp_unlearn.worlds._names import NameMatch as NameMatch
from interp_unlearn.worlds._names import invent_names as invent_names
from interp_unlearn.worlds._names import name_match as name_match
from interp_unlearn.worlds._neighbours import labels_of as labels_of
from interp_unlearn.worlds._neighbours import neighbour_sets as neighbour_sets
from interp_unlearn.worlds._neighbours import with_neighbours as with_neighbours
from interp_unlearn.worlds._own import OwnQuestion as OwnQuestion
from interp_unlearn.worlds._own import checksum as checksum
from interp_unlearn.worlds._own import read_questions as read_questions
from interp_unlearn.worlds._own_task import questions_task as questions_task
from interp_unlearn.worlds._own_task import questions_world as questions_world
from interp_unlearn.worlds._questions import direct_relations as direct_relations
from interp_unlearn.worlds._questions import rests_on as rests_on
from interp_unlearn.worlds._stand_ins import FactKey as FactKey
from interp_unlearn.worlds._stand_ins import answers_by_relation as answers_by_relation
from interp_unlearn.worlds._stand_ins import ask_about as ask_about
from interp_unlearn.worlds._stand_ins import assigned_answers as assigned_answers
from interp_unlearn.worlds._stand_ins import fact_of as fact_of
from interp_unlearn.worlds._task import make_task as make_task
from interp_unlearn.worlds._task import task_from_json as task_from_json
from interp_unlearn.worlds._task import task_to_json as task_to_json
from interp_unlearn.worlds._tinyworld import TinyWorldConfig as TinyWorldConfig
from interp_unlearn.worlds._tinyworld import tinyworld as tinyworld
from interp_unlearn.worlds._types import EVERY_MODALITY as EVERY_MODALITY
from interp_unlearn.worlds._types import ROW_GROUPS as ROW_GROUPS
from interp_unlearn.worlds._types import Entity as Entity
from interp_unlearn.worlds._types import Fact as Fact
from interp_unlearn.worlds._types import Mention as Mention
from interp_unlearn.worlds._types import Modality as Modality
from interp_unlearn.worlds._types import Neighbour as Neighbour
from interp_unlearn.worlds._types import NeighbourKind as NeighbourKind
from interp_unlearn.worlds._types import Prompt as Prompt
from interp_unlearn.worlds._types import QASet as QASet
from interp_unlearn.worlds._types import Target as Target
from interp_unlearn.worlds._types import Task as Task
from interp_unlearn.worlds._types import Template as Template
from interp_unlearn.worlds._types import World as World
from interp_unlearn.worlds._types import fill_mention as fill_mention
from interp_unlearn.worlds.graphs import EdgeTask as EdgeTask
from interp_unlearn.worlds.graphs import Graph as Graph
from interp_unlearn.worlds.graphs import GraphTask as GraphTask
from interp_unlearn.worlds.graphs import NodeTask as NodeTask
from interp_unlearn.worlds.graphs import graph_task as graph_task
from interp_unlearn.worlds.graphs import make_graph as make_graph
