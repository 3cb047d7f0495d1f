"""The options of a plot. They are in their own module, so that a help text does not import the drawing code."""

from __future__ import annotations

X_AXES = ("epochs", "steps", "frames", "hours")
"""units of the x axis"""
STATISTICS = ("mean", "iqm")
"""statistics over seeds: keys of :data:`wn_dqn.analysis.resampling.AGGREGATES`"""
FIGURE_FORMATS = ("png", "svg", "pdf")
"""file formats, which the file's extension selects"""
REFERENCES = {
    "dopamine": ("dqn-adam-mse", "Dopamine's DQN (Adam, 5 runs, training games)"),
    "dopamine-rmsprop": ("dqn-rmsprop-huber", "Dopamine's DQN (RMSProp, 5 runs, training games)"),
}
"""published curves: their agent in the table, and their label"""
