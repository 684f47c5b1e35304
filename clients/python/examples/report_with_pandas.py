"""A report about prices with pandas: returns by month, and the deepest fall, as an HTML page. Needs pandas.

    ktrdr run report_with_pandas.py --data-dir data
    ktrdr start price-report 'symbols=["GOOG", "IBM"]' output=outputs/prices.html --wait
"""

from dataclasses import dataclass
from typing import Annotated, Dict, List

import ktrdr
import pandas as pd


@dataclass
class Report:
    """What to report."""

    symbols: Annotated[List[str], {"minItems": 1}, "Read from <symbol>_1d.csv in the data directory."]
    output: Annotated[str, "Where the page goes, in the data directory."]


@dataclass
class Figures:
    """The figures of one symbol."""

    days: int
    growth_pct: float
    volatility_pct: float
    deepest_fall_pct: float


@ktrdr.worker("price_report")
def price_report(ctx: ktrdr.Context, request: Report) -> Dict[str, Figures]:
    """Reports returns and falls of prices."""
    figures, months = {}, {}
    for symbol in ctx.track(request.symbols, step="{done} of {total} symbols"):
        path = ctx.data_dir.resolve(f"{symbol}_1d.csv")
        if not path.is_file():
            raise ktrdr.PermanentError(f"there are no prices of {symbol}", code="no_prices")
        close = pd.read_csv(path, parse_dates=["timestamp"], index_col="timestamp")["close"]

        daily = close.pct_change().dropna()
        falls = close / close.cummax() - 1
        figures[symbol] = Figures(
            days=len(close),
            growth_pct=100 * (close.iloc[-1] / close.iloc[0] - 1),
            volatility_pct=100 * daily.std() * 252**0.5,
            deepest_fall_pct=100 * falls.min(),
        )
        ctx.metric(f"deepest_fall_{symbol}", figures[symbol].deepest_fall_pct)
        months[symbol] = 100 * ((1 + daily).groupby([daily.index.year, daily.index.month]).prod() - 1)

    table = pd.DataFrame(months).rename_axis(["year", "month"]).round(2)
    summary = pd.DataFrame(figures.values(), index=list(figures)).round(2)
    page = f"<h1>Prices</h1>{summary.to_html()}<h2>Return by month, in percent</h2>{table.to_html(na_rep='')}"

    # Another attempt may write at the same time, if this one was taken for lost: each has its own file until it is whole.
    output = ctx.data_dir.resolve(request.output)
    output.parent.mkdir(parents=True, exist_ok=True)
    part = output.with_name(f".{output.name}.{ctx.operation_id}-{ctx.attempt}")
    part.write_text(page, encoding="utf-8")
    ctx.ensure_owner()
    part.replace(output)
    return figures


if __name__ == "__main__":
    ktrdr.main(price_report)
