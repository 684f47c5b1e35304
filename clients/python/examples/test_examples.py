"""The examples as their authors would test them: `scripts/check-python-examples` installs what they need and runs this file."""

import pathlib
import shutil

import ktrdr
import pytest

DATA = pathlib.Path(__file__).parents[3] / "data"


def test_a_file_is_cleaned(ktrdr_run):
    polars = pytest.importorskip("polars")
    from clean_with_polars import clean

    rows = ["name,age,ticket", "a,10,x", "a,10,x", "b,*,y", "c,20,*"]
    (ktrdr_run.data_dir / "in.csv").write_text("\n".join(rows))
    request = {"source": "in.csv", "output": "out/a.parquet", "nulls": ["*"], "fill": {"age": "mean"}}

    done = ktrdr_run.run(clean, request)

    assert done == {"rows": 3, "duplicates": 1, "filled": {"age": 1}, "still_missing": {"ticket": 1}}
    assert polars.read_parquet(ktrdr_run.data_dir / "out/a.parquet")["age"].to_list() == [10.0, 15.0, 20.0]
    with pytest.raises(ktrdr.PermanentError, match="no column price"):
        ktrdr_run.run(clean, {**request, "fill": {"price": "mean"}})
    with pytest.raises(ktrdr.PermanentError, match="no file"):
        ktrdr_run.run(clean, {**request, "source": "none.csv"})


def test_a_training_stops_early_and_goes_on_as_if_nothing_had_happened(ktrdr_run):
    joblib = pytest.importorskip("joblib")
    pytest.importorskip("sklearn")
    from train_with_sklearn import digits

    request = {"epochs": 60, "learning_rate": 0.05, "patience": 3, "model": "models/digits.joblib"}
    whole = ktrdr_run.run(digits, request)
    assert whole["stopped_early"] and whole["epochs_run"] == whole["epoch"] + 3, whole
    assert whole["accuracy"] > 0.9
    assert joblib.load(ktrdr_run.data_dir / "models/digits.joblib").coef_.shape == (10, 64)

    # The first attempt is lost after some epochs.
    lost = ktrdr.testing.TestRun(ktrdr_run.data_dir)
    lost.run(digits, {**request, "epochs": 4})
    resumed = lost.next_attempt().run(digits, request)
    assert resumed == {**whole, "resumed_from": 4}


def test_a_report_has_all_symbols(ktrdr_run):
    pytest.importorskip("pandas")
    from report_with_pandas import price_report

    for symbol in ("GOOG", "IBM"):
        shutil.copy(DATA / f"{symbol}_1d.csv", ktrdr_run.data_dir)

    figures = ktrdr_run.run(price_report, {"symbols": ["GOOG", "IBM"], "output": "out/prices.html"})

    assert set(figures) == {"GOOG", "IBM"}
    assert -100 < figures["GOOG"]["deepest_fall_pct"] < 0 < figures["GOOG"]["growth_pct"]
    page = (ktrdr_run.data_dir / "out/prices.html").read_text()
    assert "GOOG" in page and "2008" in page
    with pytest.raises(ktrdr.PermanentError, match="no prices of X"):
        ktrdr_run.run(price_report, {"symbols": ["X"], "output": "a.html"})
