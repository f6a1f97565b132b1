"""Sparse autoencoders: open, train, evaluate; known and unknown latents; controls with the same interface.

Example:
    >>> sae = load_sae("smollm2-135m")
    >>> z = sae.encode(capture(model, "The capital of Japan", [sae.site], positions=-1)[sae.site][:, 0])
"""

from interp_unlearn.latents._clamp import LatentClamp as LatentClamp
from interp_unlearn.latents._clamp import clamped as clamped
from interp_unlearn.latents._clamp import firing_share as firing_share
from interp_unlearn.latents._controls import identity_basis as identity_basis
from interp_unlearn.latents._controls import pca_basis as pca_basis
from interp_unlearn.latents._controls import random_dictionary as random_dictionary
from interp_unlearn.latents._dashboard import TokenRows as TokenRows
from interp_unlearn.latents._dashboard import direction_logits as direction_logits
from interp_unlearn.latents._dashboard import encode_rows as encode_rows
from interp_unlearn.latents._dashboard import read_token_rows as read_token_rows
from interp_unlearn.latents._evaluate import Reconstruction as Reconstruction
from interp_unlearn.latents._evaluate import SAEReport as SAEReport
from interp_unlearn.latents._evaluate import evaluate_sae as evaluate_sae
from interp_unlearn.latents._evaluate import reconstruction as reconstruction
from interp_unlearn.latents._format import read_sae as read_sae
from interp_unlearn.latents._format import save_sae as save_sae
from interp_unlearn.latents._generic import generic_rate as generic_rate
from interp_unlearn.latents._load import list_saes as list_saes
from interp_unlearn.latents._load import load_sae as load_sae
from interp_unlearn.latents._reference import ReferenceStats as ReferenceStats
from interp_unlearn.latents._reference import reference_stats as reference_stats
from interp_unlearn.latents._sae import SAE as SAE
from interp_unlearn.latents._scores import SeparationScores as SeparationScores
from interp_unlearn.latents._scores import firing_rate as firing_rate
from interp_unlearn.latents._scores import separation_scores as separation_scores
from interp_unlearn.latents._text import token_rows as token_rows
from interp_unlearn.latents._train import ActivationSource as ActivationSource
from interp_unlearn.latents._train import TensorSource as TensorSource
from interp_unlearn.latents._train import train_sae as train_sae
from interp_unlearn.latents._train_config import SAETrainConfig as SAETrainConfig
