"""Settings and the files they come from; the names of games; the registry of everything that goes by a name."""
