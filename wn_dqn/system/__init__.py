"""The machine: hardware, durable files, progress."""
