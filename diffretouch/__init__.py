"""diffretouch: controllable photo retouching with affine bilateral grids from a diffusion UNet."""

import os as _os

__version__ = "0.1.0"

# In a checkout `pipelines/` and `training/` lie beside this folder, in a wheel inside it: this makes both the same.
_root = _os.path.dirname(__path__[0])
if _os.path.isfile(_os.path.join(_root, "setup.cfg")) and _os.path.isdir(_os.path.join(_root, "pipelines")):
    __path__.append(_root)

# Public name -> its module. Handed on lazily (PEP 562): importing diffusers takes seconds.
_PUBLIC = {
    "ATTRIBUTES": "attributes",
    "as_attributes": "attributes",
    "attribute_labels": "attributes",
    "measure_attributes": "attributes",
    "AffineGridHead": "models.affine_grid",
    "apply_affine": "models.affine_grid",
    "identity_grid": "models.affine_grid",
    "slice_grid": "models.affine_grid",
    "build_retouch_unet": "models.unet",
    "CSRNet": "models.csrnet",
    "CSRNetL": "models.csrnet",
    "SAAdjustNet": "models.sa_adjustnet",
    "load_backbone": "models.sa_adjustnet",
    "as_mask": "regions",
    "colour_mask": "regions",
    "luminosity_mask": "regions",
    "refine_mask": "regions",
    "Lut3D": "lut",
    "bake_lut": "lut",
    "hald_identity": "lut",
    "Photo": "photo",
    "PhotoError": "photo",
    "load_photo": "photo",
    "save_photo": "photo",
    "Settings": "settings",
    "plan_batch": "batch",
    "retouch_batch": "batch",
    "run_batch": "batch",
    "WriteOptions": "photo.write_options",
    "fit_preset": "fitting",
    "DiffRetouchPipeline": "pipelines.pipeline_diffretouch",
    "DiffRetouchOutput": "pipelines.pipeline_diffretouch",
    "HDRNet": "models.hdrnet",
    "AdaptiveLut3D": "models.adaptive_lut",
    "HDRNetPipeline": "pipelines.pipeline_hdrnet",
    "AdaptiveLut3DPipeline": "pipelines.pipeline_adaptive_lut",
    "CSRNetPipeline": "pipelines.pipeline_csrnet",
    "CSRNetOutput": "pipelines.pipeline_csrnet",
    "SAAdjustNetPipeline": "pipelines.pipeline_sa_adjustnet",
    "SAAdjustNetOutput": "pipelines.pipeline_sa_adjustnet",
    "export_onnx": "pipelines.export_onnx",
    "convert_csrnet": "training.convert",
    "convert_diffretouch": "training.convert",
}
__all__ = sorted(_PUBLIC)


def __getattr__(name):
    if name not in _PUBLIC:
        raise AttributeError(f"module 'diffretouch' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"diffretouch.{_PUBLIC[name]}"), name)


def __dir__():
    return __all__
