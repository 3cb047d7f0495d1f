"""DQN for Atari with standard or weight-normalized layers (Mnih et al. 2015; Salimans & Kingma 2016).

The names below are the Python API. Each is imported at its first use, so that `import wn_dqn` is fast. Their types are
in ``__init__.pyi``.
"""

import importlib

__version__ = "0.1.0"

_MODULES = {
    "Callback": "wn_dqn.runs.callback",
    "MLflowTracker": "wn_dqn.interop.trackers",
    "OptunaPruning": "wn_dqn.interop.trackers",
    "Policy": "wn_dqn.api",
    "Run": "wn_dqn.api",
    "RunError": "wn_dqn.errors",
    "Settings": "wn_dqn.config.schema",
    "StopTraining": "wn_dqn.runs.callback",
    "TensorBoard": "wn_dqn.interop.trackers",
    "UsageError": "wn_dqn.errors",
    "View": "wn_dqn.runs.callback",
    "WandbTracker": "wn_dqn.interop.trackers",
    "evaluate": "wn_dqn.api",
    "load": "wn_dqn.api",
    "make_env": "wn_dqn.api",
    "push": "wn_dqn.api",
    "register_agent": "wn_dqn.api",
    "register_network": "wn_dqn.api",
    "register_parameterization": "wn_dqn.api",
    "train": "wn_dqn.api",
}
"""public name -> its module"""

__all__ = ["__version__", "nn", *sorted(_MODULES)]


def __getattr__(name: str) -> object:
    if name == "nn":
        return importlib.import_module("wn_dqn.nn")
    if name not in _MODULES:
        raise AttributeError(f"module 'wn_dqn' has no attribute {name!r}")
    value: object = getattr(importlib.import_module(_MODULES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
