"""Search learning rate and batch size of a classifier with Optuna."""

import optuna

import cxr_compare


def train_trial(trial):
    """Return the best validation figure of a training with proposed settings."""
    settings = {
        "training.learning_rate": trial.suggest_float("learning_rate", 1e-4, 1e-3, log=True),
        "training.batch_size": trial.suggest_categorical("batch_size", [8, 16]),
        "training.monitor": "auroc",
    }
    out = f"out/sweep/{trial.number:03d}"
    run = cxr_compare.train("chexnet_small", data="out/data", out=out, set_=settings)
    return run.to_dict()["best_value"]  # of the figure that also chooses the best epoch


study = optuna.create_study(
    storage="sqlite:///out/sweep.db", study_name="sweep", direction="maximize", load_if_exists=True
)
study.optimize(train_trial, n_trials=8)
print(f"out/sweep/{study.best_trial.number:03d}: {study.best_params}, {study.best_value:.3f}")
