"""To and from other programs: exported networks, imported weights."""
