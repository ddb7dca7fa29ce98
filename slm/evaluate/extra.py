"""Modules that only the extra `evaluate` installs, imported where a judge first needs them."""

import importlib
import warnings
from types import ModuleType

from slm.errors import SlmError


def need(module: str, why: str) -> ModuleType:
    """Import `module` for `why`, a noun such as "the speaker encoder". Raises SlmError when it, or what it needs itself, is missing."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # pkg_resources' farewell and the like are no business of the user's
            return importlib.import_module(module)
    except ImportError as error:
        lacking = error.name or module
        raise SlmError(f"{why} needs the module {lacking!r}, which is not installed; run: pip install 'slm[evaluate]'") from error
