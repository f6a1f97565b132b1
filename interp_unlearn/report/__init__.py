"""Reports from run folders: they read saved files, compute nothing but means over runs, and never need torch.

Example:
    >>> write_report([Path("runs/npo"), Path("runs/sae_guided")], Path("report.html"))
    PosixPath('report.html')

Many runs are averaged over targets and seeds by `summarise`. Figures are in `interp_unlearn.report.plots`, for
notebooks and other views.
"""

from interp_unlearn.report._board import BoardRow as BoardRow
from interp_unlearn.report._board import board_row as board_row
from interp_unlearn.report._board import read_board_row as read_board_row
from interp_unlearn.report._compare import Comparison as Comparison
from interp_unlearn.report._compare import compare as compare
from interp_unlearn.report._compare import group_key as group_key
from interp_unlearn.report._estimate import Estimate as Estimate
from interp_unlearn.report._estimate import estimate as estimate
from interp_unlearn.report._evidence import EvidenceCard as EvidenceCard
from interp_unlearn.report._evidence import evidence_card as evidence_card
from interp_unlearn.report._evidence import evidence_kinds as evidence_kinds
from interp_unlearn.report._find import find_runs as find_runs
from interp_unlearn.report._find import read_runs as read_runs
from interp_unlearn.report._gate import GateResult as GateResult
from interp_unlearn.report._gate import gate as gate
from interp_unlearn.report._headline import Headline as Headline
from interp_unlearn.report._headline import headline as headline
from interp_unlearn.report._html import page_path as page_path
from interp_unlearn.report._json import as_text as as_text
from interp_unlearn.report._json import report_json as report_json
from interp_unlearn.report._json import schema as schema
from interp_unlearn.report._json import write_json_report as write_json_report
from interp_unlearn.report._page_views import VIEWS_IN_ORDER as VIEWS_IN_ORDER
from interp_unlearn.report._pages import PAGES as PAGES
from interp_unlearn.report._pages import View as View
from interp_unlearn.report._pages import missing_views as missing_views
from interp_unlearn.report._pages import register_view as register_view
from interp_unlearn.report._pages import views_of as views_of
from interp_unlearn.report._pictures import pictures as pictures
from interp_unlearn.report._read import RunView as RunView
from interp_unlearn.report._read import read_run as read_run
from interp_unlearn.report._side_effects import SideEffect as SideEffect
from interp_unlearn.report._side_effects import side_effects as side_effects
from interp_unlearn.report._slices import Pictures as Pictures
from interp_unlearn.report._summary import Entry as Entry
from interp_unlearn.report._summary import Measure as Measure
from interp_unlearn.report._summary import Summary as Summary
from interp_unlearn.report._summary import summarise as summarise
from interp_unlearn.report._summary_files import markdown as markdown
from interp_unlearn.report._summary_files import shown as shown
from interp_unlearn.report._summary_files import write_csv as write_csv
from interp_unlearn.report._summary_files import write_runs_csv as write_runs_csv
from interp_unlearn.report._summary_files import write_summary as write_summary
from interp_unlearn.report._verdict import VerdictView as VerdictView
from interp_unlearn.report._verdict import verdict_of as verdict_of
from interp_unlearn.report._write import write_report as write_report
