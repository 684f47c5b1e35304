"""The engines' work done with well-known Python packages: bench_peers.py DIRECTORY

Reads rows.csv and BENCH_1h.csv of the directory, which `scripts/bench engines` wrote, and prints one JSON object a line:
{"work": "cleaning", "package": "pandas 3.0.0", "seconds": 1.2}. Each time is the median of three runs, of one for the backtest, from file to
result.
A package that is not installed is left out.
"""

import json
import pathlib
import statistics
import sys
import time
import warnings

directory = pathlib.Path(sys.argv[1])


def report(work, package, run, times=3):
    seconds = []
    for _ in range(times):
        begun = time.perf_counter()
        run()
        seconds.append(time.perf_counter() - begun)
    line = {"work": work, "package": f"{package.__name__} {package.__version__}", "seconds": statistics.median(seconds)}
    print(json.dumps(line), flush=True)


# What `clean` does by default: trim every cell, drop rows that were there before, keep the text of all others.
def clean_with_pandas():
    table = pandas.read_csv(directory / "rows.csv", dtype=str, keep_default_na=False)
    table = table.apply(lambda column: column.str.strip())
    table.drop_duplicates().to_csv(directory / "pandas.csv", index=False)


def clean_with_polars():
    table = polars.read_csv(directory / "rows.csv", infer_schema=False)
    table = table.with_columns(polars.all().str.strip_chars())
    table.unique(keep="first", maintain_order=True).write_csv(directory / "polars.csv")


def backtest():
    bars = pandas.read_csv(directory / "BENCH_1h.csv", index_col="timestamp", parse_dates=True)
    bars.columns = [name.capitalize() for name in bars.columns]

    def average(values, period):
        return pandas.Series(values).rolling(period).mean()

    class Crossing(backtesting.Strategy):
        def init(self):
            self.fast = self.I(average, self.data.Close, 10)
            self.slow = self.I(average, self.data.Close, 50)

        def next(self):
            if backtesting.lib.crossover(self.fast, self.slow):
                self.buy()
            elif backtesting.lib.crossover(self.slow, self.fast):
                self.position.close()

    backtesting.Backtest(bars, Crossing, cash=100_000, commission=0.001, finalize_trades=True).run()


try:
    import pandas

    report("cleaning", pandas, clean_with_pandas)
except ImportError:
    pass

try:
    import polars

    report("cleaning", polars, clean_with_polars)
except ImportError:
    pass

try:
    warnings.simplefilter("ignore")
    import backtesting
    import backtesting.lib
    import pandas

    # Its progress bar is for people.
    backtesting.backtesting._tqdm = lambda values, **_: values
    report("backtest", backtesting, backtest, times=1)
except ImportError:
    pass
