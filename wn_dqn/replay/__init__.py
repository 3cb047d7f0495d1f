"""The replay buffer: frames are stored once; sampling is uniform or prioritized."""
