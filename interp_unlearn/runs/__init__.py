"""Runs: one folder each, resumable, holding config, events, weights, captures, tables and evidence.

Example:
    >>> config = load_configs("japan.toml")[0]
    >>> folder = run(config, "runs/japan")
    >>> folder.table("behaviour.after").at(set="paraphrased", metric="exact")
"""

from interp_unlearn.runs._audit import audit as audit
from interp_unlearn.runs._config import EvidenceSpec as EvidenceSpec
from interp_unlearn.runs._config import LatentsSpec as LatentsSpec
from interp_unlearn.runs._config import ModelSpec as ModelSpec
from interp_unlearn.runs._config import RunConfig as RunConfig
from interp_unlearn.runs._config import TargetSpec as TargetSpec
from interp_unlearn.runs._config import WorldSpec as WorldSpec
from interp_unlearn.runs._config import configs_from_dict as configs_from_dict
from interp_unlearn.runs._config import load_configs as load_configs
from interp_unlearn.runs._evidence import add_evidence as add_evidence
from interp_unlearn.runs._evidence import add_evidence_many as add_evidence_many
from interp_unlearn.runs._evidence import chosen_parts as chosen_parts
from interp_unlearn.runs._evidence import saved_config as saved_config
from interp_unlearn.runs._flow import FLOWS as FLOWS
from interp_unlearn.runs._flow import Flow as Flow
from interp_unlearn.runs._flow import flow_of as flow_of
from interp_unlearn.runs._flow import open_workbench as open_workbench
from interp_unlearn.runs._flow import register_flow as register_flow
from interp_unlearn.runs._flow import reopen_workbench as reopen_workbench
from interp_unlearn.runs._folder import RunFolder as RunFolder
from interp_unlearn.runs._graph import GraphFlow as GraphFlow
from interp_unlearn.runs._image import ImageFlow as ImageFlow
from interp_unlearn.runs._labelled import LabelledFlow as LabelledFlow
from interp_unlearn.runs._language import LanguageFlow as LanguageFlow
from interp_unlearn.runs._phases import RunPhases as RunPhases
from interp_unlearn.runs._run import resume as resume
from interp_unlearn.runs._run import run as run
from interp_unlearn.runs._run import run_many as run_many
from interp_unlearn.runs._sweep import Outcome as Outcome
from interp_unlearn.runs._sweep import plan as plan
from interp_unlearn.runs._sweep import progress_of as progress_of
from interp_unlearn.runs._sweep import sweep as sweep
from interp_unlearn.runs._sweep_config import SweepConfig as SweepConfig
from interp_unlearn.runs._sweep_config import SweepRun as SweepRun
from interp_unlearn.runs._sweep_config import load_sweep as load_sweep
from interp_unlearn.runs._sweep_config import sweep_from_dict as sweep_from_dict
from interp_unlearn.runs._workbench import Progress as Progress
from interp_unlearn.runs._workbench import Workbench as Workbench
