"""A retouch as a colour lookup table: the table, its files, and baking one from a pipeline."""

from .baking import bake_lut, error_picture, fit_table
from .hald import hald_identity
from .lookup import lut_nodes
from .table import Lut3D, LutError

__all__ = ["Lut3D", "LutError", "bake_lut", "error_picture", "fit_table", "hald_identity", "lut_nodes"]
