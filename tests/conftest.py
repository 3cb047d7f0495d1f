"""What all tests share."""

from __future__ import annotations

import torch

# The networks here see a handful of observations at a time: a second thread would spend its time waiting.
torch.set_num_threads(1)
