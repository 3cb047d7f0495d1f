"""Games to watch: single games in colour, Q-values beside them, saliency, video."""
