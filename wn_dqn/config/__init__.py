"""Settings and config files, the names of games, and the registry of parameterizations, networks and agents."""
