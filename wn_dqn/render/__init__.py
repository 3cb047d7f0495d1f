"""Renders games for people: in colour, with Q-values and saliency, as video."""
