"""Dataclass configs to JSON and back, and `--set` on the way.

A config is a tree of dataclasses, dicts, lists, tuples and plain values. In JSON a dataclass is a dict that names its class:

    Mamba2.Config(dim=64)  <->  {"class": "slm.backbone.mamba2.Mamba2.Config", "dim": 64, ...}

Reading builds dataclasses of this project only. Nothing else a file names is imported, so a downloaded config cannot run code.
"""

from __future__ import annotations

import ast
import hashlib
import importlib
import json
import types
from dataclasses import fields, is_dataclass, replace
from functools import cache
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from slm.errors import SlmError

LATER = {"later": True}  # metadata of a field that came to a config in use: at its default it is left out of the digest, which stays
PACKAGES = ("slm", "slm_tokenizers", "slm_vocoders")
# what may be written as a call after `--set path=`, and where it lives
CALLABLE = {
    "Transformer.Config": "slm.backbone.transformer",
    "Mamba2.Config": "slm.backbone.mamba2",
    "GatedConv.Config": "slm.backbone.gated_conv",
    "RWKV.Config": "slm.backbone.rwkv",
    "Hybrid.Config": "slm.backbone.hybrid",
}


def to_dict(config: Any, later: bool = True) -> Any:
    """config as what JSON can hold: dataclasses become dicts with a "class", tuples become lists. `from_dict` undoes it.

    later: whether fields that are LATER are told where they have their default.
    """
    if is_dataclass(config) and not isinstance(config, type):
        return {"class": _name(type(config))} | {name: to_dict(value, later) for name, value in _values(config, later).items()}
    if isinstance(config, dict):
        for key in config:
            if not isinstance(key, str) or key == "class":
                raise SlmError(f"a config's dict has the key {key!r}; keys must be strings other than 'class'")
        return {key: to_dict(value, later) for key, value in config.items()}
    if isinstance(config, (list, tuple)):
        return [to_dict(value, later) for value in config]
    if config is None or isinstance(config, (bool, int, float, str)):
        return config
    raise SlmError(f"a config holds {config!r}; only dataclasses, dicts, lists, numbers, strings and None can be stored")


def from_dict(stored: Any) -> Any:
    """What `to_dict` was given, tuples included. SlmError: a class that is not a dataclass of this project, a wrong field or value."""
    if isinstance(stored, list):
        return [from_dict(value) for value in stored]
    if not isinstance(stored, dict):
        return stored
    if "class" not in stored:
        return {key: from_dict(value) for key, value in stored.items()}
    cls = _find(stored["class"])
    return _build(cls, {key: from_dict(value) for key, value in stored.items() if key != "class"})


def change(config: Any, text: str) -> Any:
    """A copy of config with one place changed; text is "a.b.0.c=value".

    The path goes through fields, dict keys and list positions. The value is a Python literal, a constructor such as
    `Mamba2.Config(dim=64, depth=2)`, a list of them, or else a string.
    SlmError: an unknown path or a value of another type than the field's.
    """
    path, equals, value = text.partition("=")
    if not equals or not path.strip():
        raise SlmError(f"--set {text!r} is not of the form path=value, such as stages.ar.backbone.depth=4")
    return _change(config, path.strip().split("."), _parse(value.strip()), path.strip())


def digest(config: Any) -> str:
    """Twelve hex digits that name config: equal for equal configs, whatever the order of dict keys and what fields came later."""
    text = json.dumps(to_dict(config, later=False), sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def _name(cls: type) -> str:
    return f"{cls.__module__}.{cls.__qualname__}"


def _values(config: Any, later: bool = True) -> dict[str, Any]:
    told = (f for f in fields(config) if f.init and (later or not f.metadata.get("later") or getattr(config, f.name) != f.default))
    return {f.name: getattr(config, f.name) for f in told}


def _find(name: Any) -> type:
    """The dataclass called `package.module.Class` or `package.module.Class.Config`."""
    parts = name.split(".") if isinstance(name, str) else []
    legal = all(part.isidentifier() and not part.startswith("_") for part in parts)
    if legal and len(parts) > 1 and parts[0] in PACKAGES:
        for cut in range(len(parts) - 1, 0, -1):
            module_name = ".".join(parts[:cut])
            try:
                module = importlib.import_module(module_name)
            except ModuleNotFoundError as error:
                if error.name and (module_name == error.name or module_name.startswith(error.name + ".")):
                    continue  # a class name took the module's place: look one step up
                raise
            found: Any = module
            for part in parts[cut:]:
                found = vars(found).get(part) if isinstance(found, (type, types.ModuleType)) else None
            # the module and the name it says of itself: a class that was only imported there is not meant
            if isinstance(found, type) and is_dataclass(found) and _name(found) == name:
                return found
            break
    raise SlmError(f"the config names the class {name!r}, which is not a config of {', '.join(PACKAGES)}")


def _build(cls: type, values: dict[str, Any]) -> Any:
    """cls(**values), each value brought to its field's type."""
    legal = [f.name for f in fields(cls) if f.init]
    unknown = [name for name in values if name not in legal]
    if unknown:
        raise SlmError(f"{cls.__qualname__} has no field {unknown[0]!r}; its fields are {', '.join(legal)}")
    hints = _hints(cls)
    values = {name: _fit(value, hints.get(name, Any), f"{cls.__qualname__}.{name}") for name, value in values.items()}
    try:
        return cls(**values)
    except (TypeError, ValueError) as error:  # a missing field, or what the class itself says of its values
        raise SlmError(f"{cls.__qualname__}: {error}") from error


@cache
def _hints(cls: type) -> dict[str, Any]:
    try:
        return get_type_hints(cls)
    except NameError:  # an annotation that only type checkers can see: its field is taken as it comes
        return {}


def _fit(value: Any, hint: Any, where: str) -> Any:
    """value as hint has it: a list where a tuple is meant becomes one, an int where a float is meant too."""
    origin, args = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        return _fit_any(value, args, where)
    if origin is Literal and value not in args:
        raise SlmError(f"{where} is {value!r}, but must be one of {', '.join(map(repr, args))}")
    if (origin or hint) in (tuple, list) and isinstance(value, (list, tuple)):
        return (origin or hint)(_fit_items(value, args, origin or hint, where))
    if (origin or hint) is dict and isinstance(value, dict):
        return {key: _fit(item, args[1] if args else Any, f"{where}.{key}") for key, item in value.items()}
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    kind = type(None) if hint is None else origin or hint
    checked = kind in (int, float, str, bool, tuple, list, dict, type(None)) or is_dataclass(kind)
    if checked and (not isinstance(value, kind) or (isinstance(value, bool) and kind is int)):
        raise SlmError(f"{where} is {value!r}, but must be {_say(hint)}")
    return value


def _fit_any(value: Any, hints: tuple, where: str) -> Any:
    exact = [hint for hint in hints if type(value) is (get_origin(hint) or hint)]  # so that 1 stays an int in `float | int`
    for hint in exact + list(hints):
        try:
            return _fit(value, hint, where)
        except SlmError:
            continue
    raise SlmError(f"{where} is {value!r}, but must be {' or '.join(_say(hint) for hint in hints)}")


def _fit_items(values: list | tuple, args: tuple, kind: type, where: str) -> list:
    if not args:
        return list(values)
    if kind is list or args[-1] is Ellipsis:
        args = args[:1] * len(values)
    if len(args) != len(values):
        raise SlmError(f"{where} is {tuple(values)!r}, but must have {len(args)} entries")
    return [_fit(value, hint, f"{where}.{i}") for i, (value, hint) in enumerate(zip(values, args, strict=True))]


def _say(hint: Any) -> str:
    if hint is bool:
        return "True or False"
    if hint is None or hint is type(None):
        return "None"
    return hint.__qualname__ if isinstance(hint, type) and not get_args(hint) else str(hint)


def _change(config: Any, path: list[str], value: Any, whole: str) -> Any:
    name, rest = path[0], path[1:]
    if is_dataclass(config):
        legal = _values(config)
    elif isinstance(config, dict):
        legal = config
    elif isinstance(config, (list, tuple)):
        legal = {str(i): item for i, item in enumerate(config)}
    else:
        raise SlmError(f"--set {whole}: {config!r} has nothing inside, so {name!r} leads nowhere")
    if name not in legal:
        raise SlmError(f"--set {whole}: there is no {name!r} here; legal are {', '.join(legal) or 'none'}")
    new = _change(legal[name], rest, value, whole) if rest else _replacement(legal[name], value, whole)
    if is_dataclass(config):
        return _replace(config, name, new, whole)
    if isinstance(config, dict):
        return config | {name: new}
    return type(config)(new if str(i) == name else item for i, item in enumerate(config))


def _replacement(old: Any, new: Any, whole: str) -> Any:
    if is_dataclass(old) and not (is_dataclass(new) or new is None):
        raise SlmError(f"--set {whole}: {new!r} cannot replace a {type(old).__qualname__}; write Transformer.Config(...) or the like")
    return new


def _replace(config: Any, name: str, new: Any, whole: str) -> Any:
    new = _fit(new, _hints(type(config)).get(name, Any), whole)
    try:
        return replace(config, **{name: new})
    except (TypeError, ValueError) as error:
        raise SlmError(f"--set {whole}: {error}") from error


def _parse(text: str) -> Any:
    try:
        tree = ast.parse(text, mode="eval").body
    except (SyntaxError, ValueError):
        return text
    if isinstance(tree, ast.Call) or (isinstance(tree, (ast.List, ast.Tuple)) and any(isinstance(n, ast.Call) for n in ast.walk(tree))):
        return _argument(tree, text)
    try:
        return ast.literal_eval(tree)
    except ValueError:
        return text


def _construct(call: ast.Call, text: str) -> Any:
    """The config written as a call, its arguments literals, such calls themselves, or lists of both. Nothing is evaluated."""
    name = ast.unparse(call.func)
    if name not in CALLABLE:
        raise SlmError(f"--set cannot build {name!r}; it knows {', '.join(CALLABLE)}")
    cls = _find(f"{CALLABLE[name]}.{name}")
    legal = [f.name for f in fields(cls) if f.init]
    if len(call.args) > len(legal):
        raise SlmError(f"{name} takes at most {len(legal)} values, got {len(call.args)}")
    if any(keyword.arg is None for keyword in call.keywords) or any(isinstance(arg, ast.Starred) for arg in call.args):
        raise SlmError(f"--set {text}: write each argument out, without * or **")
    named = [*zip(legal, call.args, strict=False), *((keyword.arg, keyword.value) for keyword in call.keywords)]
    if len({key for key, _ in named}) < len(named):
        raise SlmError(f"--set {text}: an argument is given twice")
    return _build(cls, {key: _argument(node, text) for key, node in named})


def _argument(node: ast.expr, text: str) -> Any:
    if isinstance(node, ast.Call):
        return _construct(node, text)
    if isinstance(node, (ast.List, ast.Tuple)):
        items = [_argument(item, text) for item in node.elts]
        return items if isinstance(node, ast.List) else tuple(items)
    try:
        return ast.literal_eval(node)
    except ValueError:
        raise SlmError(f"--set {text}: {ast.unparse(node)} is not a literal such as 4, 0.1, 'text', True or (1, 2)") from None
