"""What a person can choose in a plot. Apart from what draws it, so that a help text needs none of that."""

from __future__ import annotations

X_AXES = ("epochs", "steps", "frames", "hours")
"""what the x axis counts"""
STATISTICS = ("mean", "iqm")
"""what the line is, over seeds: a key of :data:`wn_dqn.analysis.resampling.AGGREGATES`"""
FIGURE_FORMATS = ("png", "svg", "pdf")
"""what the name of the file may end in"""
REFERENCES = {
    "dopamine": ("dqn-adam-mse", "Dopamine's DQN (Adam, 5 runs, training games)"),
    "dopamine-rmsprop": ("dqn-rmsprop-huber", "Dopamine's DQN (RMSProp, 5 runs, training games)"),
}
"""published curves: their agent in the table, and what they are called"""
