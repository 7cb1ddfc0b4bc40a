"""The dataset's table: what the shards' rows say of faces, and with the verdicts what is kept."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from lookahead.dataset.consistency import Sight, Verdict

TABLE = "table.parquet"


def _embeddings(column: pa.ChunkedArray) -> list[NDArray[np.float32] | None]:
    """Views of one matrix: as Python numbers, embeddings would take ten times the memory."""
    values = np.ascontiguousarray(pc.list_flatten(column).to_numpy(), dtype=np.float32)
    there = column.is_valid().to_pylist()
    matrix = iter(values.reshape(sum(there), -1) if any(there) else ())
    return [next(matrix) if found else None for found in there]


def sights_of(rows: pa.Table) -> list[Sight]:
    """What the face check knows of each row of the shards."""
    columns = (rows[name].to_pylist() for name in ("identity", "style"))
    seen = zip(*columns, _embeddings(rows["embedding"]), rows["second_face"].to_pylist(), strict=True)
    return [Sight(*each) for each in seen]


def judged_table(rows: pa.Table, verdicts: Sequence[Verdict], plain: str) -> pa.Table:
    """The rows, their embeddings aside, with what was decided on each, and why."""
    rows = rows.drop_columns(["embedding"])
    rows = rows.append_column("photo", pa.array([style == plain for style in rows["style"].to_pylist()], pa.bool_()))
    rows = rows.append_column("similarity", pa.array([v.similarity for v in verdicts], pa.float32()))
    rows = rows.append_column("kept", pa.array([v.kept for v in verdicts], pa.bool_()))
    return rows.append_column("reason", pa.array([v.reason for v in verdicts], pa.string()))
