"""Trains a classifier of hand-written digits with scikit-learn, with checkpoints and early stopping. Needs scikit-learn.

    ktrdr run train_with_sklearn.py --data-dir data
    ktrdr start digits epochs=200 model=models/digits.joblib --wait
"""

from dataclasses import dataclass
from typing import Annotated, Optional

import joblib
import ktrdr
import numpy as np
from sklearn.datasets import load_digits
from sklearn.linear_model import SGDClassifier
from sklearn.metrics import log_loss
from sklearn.model_selection import train_test_split


@dataclass
class Train:
    """How to train."""

    epochs: Annotated[int, {"minimum": 1, "maximum": 10_000}] = 100
    learning_rate: Annotated[float, {"exclusiveMinimum": 0}] = 0.01
    patience: Annotated[int, {"minimum": 1}, "Stop when the loss has not become better for so many epochs."] = 5
    seed: int = 0
    model: Annotated[Optional[str], "Where the best model goes, in the data directory."] = None


@dataclass
class Trained:
    """The best epoch."""

    epoch: int
    accuracy: float
    loss: float
    epochs_run: int
    stopped_early: bool
    resumed_from: int


@ktrdr.worker("digits", stall_timeout=60, max_attempts=3)
def digits(ctx: ktrdr.Context, request: Train) -> Trained:
    """Trains a classifier of hand-written digits."""
    x, y = load_digits(return_X_y=True)
    x_train, x_test, y_train, y_test = train_test_split(x / 16.0, y, random_state=request.seed, stratify=y)
    model = SGDClassifier(loss="log_loss", learning_rate="constant", eta0=request.learning_rate, random_state=request.seed)

    # A later attempt goes on where the last checkpoint was, with the same weights and the same order of rows.
    state = ctx.last_checkpoint({"epoch": 0, "best_epoch": 0, "best_loss": None})
    first = state["epoch"]
    model.partial_fit(x_train[:1], y_train[:1], classes=np.unique(y))
    put(model, state.get("weights"), x.shape[1])
    best = state.get("best_weights")

    epoch = first
    while epoch < request.epochs and epoch - state["best_epoch"] < request.patience:
        ctx.check_cancelled()
        epoch += 1
        order = np.random.default_rng([request.seed, epoch]).permutation(len(x_train))
        model.partial_fit(x_train[order], y_train[order])
        loss = log_loss(y_test, model.predict_proba(x_test))
        ctx.metric("loss", loss, step=epoch)
        ctx.metric("accuracy", model.score(x_test, y_test), step=epoch)
        ctx.progress(100 * epoch / request.epochs, f"Epoch {epoch}", loss=loss)

        if state["best_loss"] is None or loss < state["best_loss"]:
            state.update(best_epoch=epoch, best_loss=loss)
            best = weights(model)
        # Called only when a checkpoint is due, so making it costs nothing most of the time.
        ctx.checkpoint(lambda: {**state, "epoch": epoch, "weights": weights(model), "best_weights": best})

    put(model, best, x.shape[1])
    if request.model is not None:
        save(ctx, model, request.model)
    return Trained(
        epoch=state["best_epoch"],
        accuracy=float(model.score(x_test, y_test)),
        loss=state["best_loss"],
        epochs_run=epoch,
        stopped_early=epoch < request.epochs,
        resumed_from=first,
    )


def weights(model: SGDClassifier) -> dict:
    return {"coefficients": model.coef_.tolist(), "intercepts": model.intercept_.tolist(), "steps": model.t_}


def put(model: SGDClassifier, saved: Optional[dict], columns: int) -> None:
    saved = saved or {"coefficients": np.zeros((10, columns)), "intercepts": np.zeros(10), "steps": 1.0}
    model.coef_ = np.array(saved["coefficients"])
    model.intercept_ = np.array(saved["intercepts"])
    model.t_ = saved["steps"]


def save(ctx: ktrdr.Context, model: SGDClassifier, name: str) -> None:
    """Another attempt may save at the same time, if this one was taken for lost: each has its own file until it is whole."""
    path = ctx.data_dir.resolve(name)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{ctx.operation_id}-{ctx.attempt}")
    joblib.dump(model, part)
    ctx.ensure_owner()
    part.replace(path)


if __name__ == "__main__":
    ktrdr.main(digits)
