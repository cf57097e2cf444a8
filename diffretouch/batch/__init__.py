"""Whole folders of photos: planned, retouched, reported, gone on with."""

from .plan import Plan, Task, existing_results, plan_batch, remove_unfinished
from .report import Report, report_paths
from .run import Summary, join_processes, kept_as_8_bits, launched, retouch_batch, run_batch
from .series import SeriesLook, exposed, series_looks, series_target
from .stream import processors

__all__ = [
    "Plan",
    "Report",
    "SeriesLook",
    "Summary",
    "Task",
    "existing_results",
    "exposed",
    "join_processes",
    "kept_as_8_bits",
    "launched",
    "plan_batch",
    "processors",
    "remove_unfinished",
    "report_paths",
    "retouch_batch",
    "run_batch",
    "series_looks",
    "series_target",
]
