"""Evidence → verdict: forgotten, hidden, over-suppressed, broken or kept, with probabilities and what decided.

Two stages. Gates on behaviour say whether the model is broken or the target plainly kept; a logistic regression on
standardised cheap evidence tells forgotten, hidden and over-suppressed apart. It is calibrated on models whose truth is
known from attacks and gold, which it never reads itself. This room knows no method and needs no torch.

Example:
    >>> found = verdict("runs/japan/npo")
    >>> found.label, found.probability
    ('hidden', 0.93)
    >>> for reason in found.decided_by:
    ...     print(f"{reason.push:+.2f}  {reason.text}  [{reason.evidence}]")

Refitting, with a data set of your own (`docs/verdict.md`):
    >>> data = Dataset.load("evidence.csv")
    >>> calibration = fit(data)
    >>> evaluate(data).verdict
    >>> judge(evidence, tables, calibration=calibration)
"""

from interp_unlearn.verdict._combine import combine as combine
from interp_unlearn.verdict._dataset import INNER as INNER
from interp_unlearn.verdict._dataset import Dataset as Dataset
from interp_unlearn.verdict._dataset import dataset as dataset
from interp_unlearn.verdict._evaluate import Evaluation as Evaluation
from interp_unlearn.verdict._evaluate import Score as Score
from interp_unlearn.verdict._evaluate import evaluate as evaluate
from interp_unlearn.verdict._evaluate import predictions as predictions
from interp_unlearn.verdict._features import FEATURES as FEATURES
from interp_unlearn.verdict._features import Feature as Feature
from interp_unlearn.verdict._features import read_features as read_features
from interp_unlearn.verdict._features import vector as vector
from interp_unlearn.verdict._findings import Findings as Findings
from interp_unlearn.verdict._findings import gold_free as gold_free
from interp_unlearn.verdict._findings import read_findings as read_findings
from interp_unlearn.verdict._gates import Gate as Gate
from interp_unlearn.verdict._gates import Gates as Gates
from interp_unlearn.verdict._gates import gates as gates
from interp_unlearn.verdict._inferred import Inferred as Inferred
from interp_unlearn.verdict._inferred import inferred as inferred
from interp_unlearn.verdict._judge import judge as judge
from interp_unlearn.verdict._judge import verdict as verdict
from interp_unlearn.verdict._label import LABELS as LABELS
from interp_unlearn.verdict._label import Label as Label
from interp_unlearn.verdict._label import LabelRules as LabelRules
from interp_unlearn.verdict._label import attacked as attacked
from interp_unlearn.verdict._label import label as label
from interp_unlearn.verdict._model import CALIBRATED as CALIBRATED
from interp_unlearn.verdict._model import Calibration as Calibration
from interp_unlearn.verdict._model import FitOptions as FitOptions
from interp_unlearn.verdict._model import fit as fit
from interp_unlearn.verdict._model import has_calibration as has_calibration
from interp_unlearn.verdict._model import load_calibration as load_calibration
from interp_unlearn.verdict._ruled import ruled as ruled
from interp_unlearn.verdict._ruled import ruled_folder as ruled_folder
from interp_unlearn.verdict._scores import auroc as auroc
from interp_unlearn.verdict._scores import calibration_error as calibration_error
from interp_unlearn.verdict._scores import calibration_floor as calibration_floor
from interp_unlearn.verdict._splits import cells as cells
from interp_unlearn.verdict._splits import pigeonhole as pigeonhole
from interp_unlearn.verdict._verdict import Reason as Reason
from interp_unlearn.verdict._verdict import SideEffect as SideEffect
from interp_unlearn.verdict._verdict import Verdict as Verdict
