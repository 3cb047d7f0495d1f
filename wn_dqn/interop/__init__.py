"""To and from other programs: exported networks, imported weights, runs that begin with them."""
