"""A retouch as a colour lookup table: the table, its files, and baking one from a pipeline."""

from .baking import bake_lut, fit_table
from .table import Lut3D, LutError, hald_identity, lut_nodes

__all__ = ["Lut3D", "LutError", "bake_lut", "fit_table", "hald_identity", "lut_nodes"]
