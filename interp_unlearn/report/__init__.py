"""One HTML report from run folders; it reads saved files and computes nothing, and never needs torch.

Example:
    >>> write_report([Path("runs/npo"), Path("runs/sae_guided")], Path("report.html"))
    PosixPath('report.html')

Figures are in `interp_unlearn.report.plots`, for notebooks and other views.
"""

from interp_unlearn.report._compare import Comparison as Comparison
from interp_unlearn.report._compare import compare as compare
from interp_unlearn.report._headline import Headline as Headline
from interp_unlearn.report._headline import headline as headline
from interp_unlearn.report._pictures import pictures as pictures
from interp_unlearn.report._read import RunView as RunView
from interp_unlearn.report._read import read_run as read_run
from interp_unlearn.report._write import write_report as write_report
