"""Where models come from: names, folders, GGUF files, the hub, your own module, and edits laid over a base.

Example:
    >>> model = open_model("smollm2-135m")
    >>> [row["name"] for row in list_models()][:1]
    ['smollm2-135m']
"""

from interp_unlearn.zoo._changes import apply_delta as apply_delta
from interp_unlearn.zoo._entries import ZooEntry as ZooEntry
from interp_unlearn.zoo._entries import list_models as list_models
from interp_unlearn.zoo._fetch import fetch_model as fetch_model
from interp_unlearn.zoo._gnn import ARCHITECTURES as ARCHITECTURES
from interp_unlearn.zoo._gnn import GNN as GNN
from interp_unlearn.zoo._gnn import GNNShape as GNNShape
from interp_unlearn.zoo._gnn import seeded_gnn as seeded_gnn
from interp_unlearn.zoo._gnn_train import GNNTraining as GNNTraining
from interp_unlearn.zoo._gnn_train import graph_model as graph_model
from interp_unlearn.zoo._gnn_train import open_gnn as open_gnn
from interp_unlearn.zoo._gnn_train import save_gnn as save_gnn
from interp_unlearn.zoo._gnn_train import train_gnn as train_gnn
from interp_unlearn.zoo._image_models import IMAGE_MODELS as IMAGE_MODELS
from interp_unlearn.zoo._image_models import ImageTraining as ImageTraining
from interp_unlearn.zoo._image_models import default_training as default_training
from interp_unlearn.zoo._image_models import image_model as image_model
from interp_unlearn.zoo._image_models import load_image_folder as load_image_folder
from interp_unlearn.zoo._image_models import open_image_model as open_image_model
from interp_unlearn.zoo._image_models import preprocess_of as preprocess_of
from interp_unlearn.zoo._image_models import save_image_model as save_image_model
from interp_unlearn.zoo._open import open_model as open_model
from interp_unlearn.zoo._tinyworld import tinyworld_model as tinyworld_model
from interp_unlearn.zoo._tinyworld import tinyworld_tokenizer as tinyworld_tokenizer
