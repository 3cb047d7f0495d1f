"""Layers, networks, initialization, optimizers and instruments. The names below are for building your own parts."""

import importlib

_MODULES = {
    "Conv2d": "wn_dqn.nn.standard",
    "Layer": "wn_dqn.nn.layers",
    "LayerKit": "wn_dqn.nn.layers",
    "Linear": "wn_dqn.nn.standard",
    "QNetwork": "wn_dqn.nn.networks",
}
"""public name -> the module that it is in"""

__all__ = sorted(_MODULES)


def __getattr__(name: str) -> object:
    if name not in _MODULES:
        raise AttributeError(f"module 'wn_dqn.nn' has no attribute {name!r}")
    value: object = getattr(importlib.import_module(_MODULES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
