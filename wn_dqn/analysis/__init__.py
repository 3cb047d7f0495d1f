"""What runs have come to: tables read back, statistics, plots, reports, model cards."""
