"""Evaluate retouching: metrics against experts' versions, other methods beside, controllability, one report."""

from diffretouch.data.photo_names import read_names

from .controllability import controllability, step_table
from .cost import count_parameters, measure_costs
from .diversity import diversity
from .formats import (
    FORMATS,
    controllability_markdown,
    controllability_table,
    report_csv,
    report_markdown,
    report_table,
)
from .intervals import INTERVALS, paired_difference, uncertainty
from .latex import report_latex
from .methods import (
    PEERS,
    PROTOCOLS,
    Method,
    peer_methods,
    pipeline_method,
    retouch_methods,
    untouched,
)
from .page import controllability_sections, report_sections, slider_sheets, write_page
from .pairs import (
    DATA_PROTOCOLS,
    Pair,
    describe_data,
    expert_labels,
    expert_pairs,
    folder_photos,
    load_pair,
    pair_names,
    read_labels,
    simulated_pairs,
    with_masks,
)
from .report import evaluate_methods, evaluate_pairs, without_pictures
from .runs import Cache, is_main_process, write_text

__all__ = [
    "DATA_PROTOCOLS",
    "FORMATS",
    "INTERVALS",
    "PEERS",
    "PROTOCOLS",
    "Cache",
    "Method",
    "Pair",
    "controllability",
    "controllability_markdown",
    "controllability_sections",
    "controllability_table",
    "count_parameters",
    "describe_data",
    "diversity",
    "evaluate_methods",
    "evaluate_pairs",
    "expert_labels",
    "expert_pairs",
    "folder_photos",
    "is_main_process",
    "load_pair",
    "measure_costs",
    "pair_names",
    "paired_difference",
    "peer_methods",
    "pipeline_method",
    "read_labels",
    "read_names",
    "report_csv",
    "report_latex",
    "report_markdown",
    "report_sections",
    "report_table",
    "retouch_methods",
    "simulated_pairs",
    "slider_sheets",
    "step_table",
    "uncertainty",
    "untouched",
    "with_masks",
    "without_pictures",
    "write_page",
    "write_text",
]
