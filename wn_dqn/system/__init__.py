"""The machine: hardware, durable files, locks, progress, text from outside."""
