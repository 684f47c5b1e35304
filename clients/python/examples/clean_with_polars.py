"""Cleans a CSV file with polars and writes it as Parquet. Needs polars.

    ktrdr run clean_with_polars.py --data-dir data
    ktrdr start clean source=messy/titanic.csv output=outputs/titanic.parquet 'nulls=["", "*"]' 'fill={"age": "median"}' --wait
"""

from dataclasses import dataclass, field
from typing import Annotated, Dict, List, Literal

import ktrdr
import polars as pl


@dataclass
class Clean:
    """What to clean, and how."""

    source: Annotated[str, "A CSV file in the data directory."]
    output: Annotated[str, "Where the Parquet file goes, in the data directory."]
    nulls: Annotated[List[str], "Texts that mean: no value."] = field(default_factory=lambda: [""])
    fill: Annotated[Dict[str, Literal["mean", "median", "mode", "zero"]], "What takes the place of no value, by column."] = field(
        default_factory=dict
    )


@dataclass
class Cleaned:
    """What was done."""

    rows: int
    duplicates: int
    filled: Dict[str, int]
    still_missing: Dict[str, int]


@ktrdr.worker("clean", max_attempts=2)
def clean(ctx: ktrdr.Context, request: Clean) -> Cleaned:
    """Cleans a CSV file with polars."""
    ctx.progress(0, "reading")
    source = ctx.data_dir.resolve(request.source)
    try:
        table = pl.read_csv(source, null_values=request.nulls, infer_schema_length=10_000)
    except FileNotFoundError:
        # Another attempt would not find it, either.
        raise ktrdr.PermanentError(f"there is no file {request.source}", code="no_file") from None
    unknown = set(request.fill) - set(table.columns)
    if unknown:
        raise ktrdr.PermanentError(f"there is no column {', '.join(sorted(unknown))}; there are {', '.join(table.columns)}")

    ctx.progress(30, "removing duplicates")
    read = table.height
    table = table.unique(maintain_order=True)
    ctx.check_cancelled()

    filled = {}
    for name, how in ctx.track(request.fill.items(), len(request.fill), step="filling column {done} of {total}"):
        filled[name] = table[name].null_count()
        table = table.with_columns(filled_column(table[name], how).alias(name))
        ctx.metric(f"filled_{name}", filled[name])

    # Another attempt may write at the same time, if this one was taken for lost: each has its own file until it is whole.
    output = ctx.data_dir.resolve(request.output)
    output.parent.mkdir(parents=True, exist_ok=True)
    part = output.with_name(f".{output.name}.{ctx.operation_id}-{ctx.attempt}")
    table.write_parquet(part)
    ctx.ensure_owner()
    part.replace(output)
    missing = {name: count for name, count in zip(table.columns, table.null_count().row(0)) if count}
    return Cleaned(rows=table.height, duplicates=read - table.height, filled=filled, still_missing=missing)


def filled_column(column: pl.Series, how: str) -> pl.Series:
    if how == "zero":
        return column.fill_null(strategy="zero")
    if how == "mode":
        return column.fill_null(column.drop_nulls().mode().sort().first())
    if not column.dtype.is_numeric():
        raise ktrdr.PermanentError(f"the column {column.name} has no {how}: it is {column.dtype}")
    return column.fill_null(column.mean() if how == "mean" else column.median())


if __name__ == "__main__":
    ktrdr.main(clean)
