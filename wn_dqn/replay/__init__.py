"""The replay buffer: frames stored once, uniform and prioritized sampling."""
