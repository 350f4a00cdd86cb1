"""What an attempt reported of itself, as people see it: fields of a job's view and of an attempt's."""

import json
from collections.abc import Mapping
from typing import Any

from gpuq.core.results.reported import trouble_words
from gpuq.daemon.callers.discretion import NO_REPORT


def report_view(row: Mapping[str, Any]) -> dict[str, Any]:
    """`row` has REPORT_COLUMNS; null all of them where it has reported nothing."""
    if row["report_lines"] is None:
        return {**NO_REPORT, "metrics": {}}
    return {
        "progress": row["progress"],
        "progress_from": row["progress_from"],
        "metrics": json.loads(row["metrics"]),
        "reported_at": row["reported_at"],
        "report_lines": row["report_lines"],
        "report_trouble": report_trouble(row),
    }


def report_trouble(row: Mapping[str, Any]) -> str | None:
    return trouble_words(
        json.loads(row["report_troubles"] or "{}"),
        refused=row["report_refused"] or 0,
        refused_values=row["report_refused_values"] or 0,
        missed=row["report_missed"] or 0,
        skipped_bytes=row["report_skipped_bytes"] or 0,
    )
