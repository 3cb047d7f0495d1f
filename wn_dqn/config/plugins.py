"""Plugins: a user's modules, which add rows to the registry when they are imported.

A plugin is code, and settings may come from somebody else. So reading settings never imports a plugin. The user names
it on the command line, or imports it in Python. Settings with any other plugin are refused.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from typing import Any

from wn_dqn.config.trust import import_outside
from wn_dqn.errors import UsageError


def import_plugins(names: Iterable[str]) -> None:
    """Import the modules with these dotted names. Raises UsageError, with the reason, for the first one that fails."""
    for name in names:
        if not all(part.isidentifier() for part in name.split(".")):
            raise UsageError(f"plugin {name!r} is not the name of a module, like my_layers or my_package.layers")
        import_outside(name)


def require_imported(settings: Mapping[str, Any]) -> None:
    """Raise UsageError if the nested `settings` name a plugin that has not been imported in this process."""
    for name in plugins_of(settings):
        if name not in sys.modules:
            raise UsageError(
                f"this would run the plugin {name}, code from outside of wn-dqn; if you trust it, add --plugin {name} "
                "(in Python: import it first, or trust=True)"
            )


def plugins_of(settings: Mapping[str, Any]) -> list[str]:
    """The plugins that the nested `settings` name; empty if the value is not a list of names."""
    names = settings.get("plugins", [])
    return [name for name in names if isinstance(name, str)] if isinstance(names, list) else []
