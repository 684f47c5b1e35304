"""The metric points of an operation."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Dict, List, Optional

if TYPE_CHECKING:
    import pandas  # type: ignore[import-untyped,import-not-found,unused-ignore]

__all__ = ["Metrics"]

_COLUMNS = ("name", "step", "value", "attempt", "timestamp")


class Metrics(List[Dict[str, Any]]):
    """Metric points in order, each with `name`, `value` (None for one that is not finite), `attempt`, `timestamp` and, when the
    engine said where it measured, `step`."""

    def values(self, name: str) -> List[Optional[float]]:
        """The values of one metric."""
        return [point["value"] for point in self if point["name"] == name]

    def to_pandas(self, *, wide: bool = False) -> "pandas.DataFrame":
        """A table with a row for each point. Needs pandas.

        With `wide`, a row for each step and a column for each metric, as plots want it. Points without a step are counted. Of a
        step that several attempts measured, the last one counts.
        """
        import pandas

        table: pandas.DataFrame = pandas.DataFrame([[point.get(column) for column in _COLUMNS] for point in self], columns=list(_COLUMNS))
        table["step"] = table["step"].astype("float64")
        table["value"] = table["value"].astype("float64")
        table["timestamp"] = pandas.to_datetime(table["timestamp"], utc=True, format="ISO8601")
        if not wide:
            return table
        counted = table.groupby("name").cumcount().astype("float64")
        table["step"] = table["step"].where(table["step"].notna(), counted)
        wide_table: pandas.DataFrame = table.pivot_table(index="step", columns="name", values="value", aggfunc="last", dropna=False)
        return wide_table
