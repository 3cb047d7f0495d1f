"""Exchange with other programs: exported networks, imported weights, trackers, the Hugging Face Hub."""
