"""Search a learning rate and a target period with Optuna; trials that fall behind are pruned. About two minutes.

    pip install 'wn-dqn[optuna]'
    python examples/optuna_study.py --trials 20

Trials are kept in a file, and each is an ordinary run directory: the same command adds trials to the study, and several
of them, on machines that share the folder, work on it together. A pruned run is saved and stays; `wn-dqn train --config
FOLDER/trial3/config.yaml --run-dir FOLDER/trial3` goes on with it. A trial that was killed is not tried again.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import optuna
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend

import wn_dqn


def objective(trial: optuna.Trial, folder: Path, total_steps: int) -> float:
    """The mean return of the last evaluation. Each setting that Optuna chooses is a setting of the config."""
    settings = {
        "optimizer.learning_rate": trial.suggest_float("learning_rate", 1e-4, 1e-1, log=True),
        "learning.target_period_steps": trial.suggest_categorical("target_period_steps", [20, 60, 200, 600]),
        "learning.total_steps": total_steps,
        "seed": 100 + trial.number,  # a seed of its own: what is found must not be one seed's luck
    }
    run = wn_dqn.train(
        "catch-vector",
        run_dir=folder / f"trial{trial.number}",
        callbacks=[wn_dqn.OptunaPruning(trial)],
        progress=False,
        **settings,
    )
    return float(run.evaluations["mean_return"][-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=20)
    parser.add_argument("--folder", type=Path, default=Path("runs/optuna"))
    parser.add_argument("--steps", type=int, default=8000, help="of a trial that is not pruned")
    args = parser.parse_args()
    args.folder.mkdir(parents=True, exist_ok=True)
    study = optuna.create_study(
        study_name="catch-vector",
        storage=JournalStorage(JournalFileBackend(str(args.folder / "study.log"))),
        direction="maximize",
        pruner=optuna.pruners.MedianPruner(n_startup_trials=5, n_warmup_steps=2000),
        load_if_exists=True,
    )
    study.optimize(lambda trial: objective(trial, args.folder, args.steps), n_trials=args.trials)
    states = [trial.state.name.lower() for trial in study.trials]
    print(", ".join(f"{states.count(state)} {state}" for state in sorted(set(states))))
    print(f"best: {study.best_value:.2f} with {study.best_params}, {args.folder}/trial{study.best_trial.number}")


if __name__ == "__main__":
    main()
