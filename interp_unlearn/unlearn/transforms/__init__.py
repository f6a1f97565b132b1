"""Gradient transforms. Importing this package registers them all."""

from interp_unlearn.unlearn.transforms.clip_by_module import ClipByModule as ClipByModule
from interp_unlearn.unlearn.transforms.cupid import CUPID as CUPID
from interp_unlearn.unlearn.transforms.gu import GU as GU
from interp_unlearn.unlearn.transforms.klue import KLUE as KLUE
from interp_unlearn.unlearn.transforms.mask import Mask as Mask
from interp_unlearn.unlearn.transforms.saliency_mask import SaliencyMask as SaliencyMask
