"""A page about runs that is kept current while they go on."""
