"""What type checkers see of the lazy `__init__.py`: the same names, see tests/test_package.py."""

from .attributes import ATTRIBUTES as ATTRIBUTES
from .attributes import as_attributes as as_attributes
from .attributes import attribute_labels as attribute_labels
from .attributes import measure_attributes as measure_attributes
from .batch import plan_batch as plan_batch
from .batch import retouch_batch as retouch_batch
from .batch import run_batch as run_batch
from .fitting import fit_preset as fit_preset
from .lut import Lut3D as Lut3D
from .lut import bake_lut as bake_lut
from .lut import hald_identity as hald_identity
from .models.adaptive_lut import AdaptiveLut3D as AdaptiveLut3D
from .models.affine_grid import AffineGridHead as AffineGridHead
from .models.affine_grid import apply_affine as apply_affine
from .models.affine_grid import identity_grid as identity_grid
from .models.affine_grid import slice_grid as slice_grid
from .models.csrnet import CSRNet as CSRNet
from .models.csrnet import CSRNetL as CSRNetL
from .models.hdrnet import HDRNet as HDRNet
from .models.sa_adjustnet import SAAdjustNet as SAAdjustNet
from .models.sa_adjustnet import load_backbone as load_backbone
from .models.unet import build_retouch_unet as build_retouch_unet
from .photo import Photo as Photo
from .photo import PhotoError as PhotoError
from .photo import load_photo as load_photo
from .photo import save_photo as save_photo
from .photo.write_options import WriteOptions as WriteOptions
from .pipelines.export_onnx import export_onnx as export_onnx
from .pipelines.pipeline_adaptive_lut import AdaptiveLut3DPipeline as AdaptiveLut3DPipeline
from .pipelines.pipeline_csrnet import CSRNetOutput as CSRNetOutput
from .pipelines.pipeline_csrnet import CSRNetPipeline as CSRNetPipeline
from .pipelines.pipeline_diffretouch import DiffRetouchOutput as DiffRetouchOutput
from .pipelines.pipeline_diffretouch import DiffRetouchPipeline as DiffRetouchPipeline
from .pipelines.pipeline_hdrnet import HDRNetPipeline as HDRNetPipeline
from .pipelines.pipeline_sa_adjustnet import SAAdjustNetOutput as SAAdjustNetOutput
from .pipelines.pipeline_sa_adjustnet import SAAdjustNetPipeline as SAAdjustNetPipeline
from .regions import as_mask as as_mask
from .regions import colour_mask as colour_mask
from .regions import luminosity_mask as luminosity_mask
from .regions import refine_mask as refine_mask
from .settings import Settings as Settings
from .training.convert import convert_csrnet as convert_csrnet
from .training.convert import convert_diffretouch as convert_diffretouch

__version__: str
