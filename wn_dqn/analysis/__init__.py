"""Results of runs: their tables read back, statistics, plots, reports and model cards; published scores."""
