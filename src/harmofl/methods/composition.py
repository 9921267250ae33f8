"""A method as a composition: `fedprox:mu=1+amplitude:band=0.1+sam:rho=0.05`.

The first term is a method, each further one a part that takes the place of the method's own: a normalizer, a step, or
an average. A hyperparameter may stand behind any term that has it, or beside the name in a table; names are unique
within a composition. Nothing here imports torch, unless a term is a user's own.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from difflib import get_close_matches
from functools import cache
from typing import Any

from harmofl.errors import ConfigError
from harmofl.methods import plugins
from harmofl.methods.catalogue import (
    NAMES,
    PARTS,
    PRESETS,
    Description,
    arrangement,
    class_description,
    composition_of,
)
from harmofl.methods.deprecated_names import RENAMED, translated
from harmofl.utils.toml_values import parse_value, split_outside
from harmofl.utils.validators import check_within

_FORM = "hyperparameters are given as name:key=value, as in fedprox:mu=0.1"


def is_method(name: str) -> bool:
    """Return True for the name of a method of this package, of an entry point, or a dotted name."""
    return name in NAMES or plugins.is_own(name, plugins.METHODS)


def parse_composition(text: str) -> tuple[str, dict[str, Any]]:
    """Split a composition into the names of its terms, `fedprox+sam`, and the values behind them.

    Keys with a dot are settings of an experiment; who asks decides whether they may be there.

    Raises:
        ConfigError: for an unknown term, a part of a slot that is taken, a value for a term that has no such
            hyperparameter, or other text.
    """
    values = dict[str, Any]()
    split = [split_outside(term, ":") for term in terms(text)]
    names = [name for name, *_ in split]
    if odd := [name for name in names if "," in name or "=" in name]:
        hint = f"; write {text.replace(',', ':')}" if "," in odd[0] else ""
        raise ConfigError(f"{_FORM}, got {_short(text)}{hint}")
    for position, (name, *settings) in enumerate(split):
        for setting in settings:
            key, equals, value = setting.partition("=")
            key = key.strip()
            if not equals or not key:
                raise ConfigError(f"{_FORM}, got {_short(text)}")
            if position and "." not in key:
                key = _key_of(name, key, names)
            if key == "name" or key in values:
                raise ConfigError(f"{key} must be given once, got {_short(text)}")
            values[key] = parse_value(value.strip())
    return _ordered(*names), values


def terms(text: str) -> list[str]:
    """Split a composition at each plus before a name, outside of double quotes and brackets."""
    found: list[str] = []
    for piece in split_outside(text, "+"):
        if found and not (piece[:1].isalpha() or piece[:1] in ("_", "")):
            found[-1] += f"+{piece}"  # as in 1e+3
        else:
            found.append(piece)
    return found


def _short(text: str) -> str:
    return repr(text if len(text) <= 200 else f"{text[:200]}...")


def carried(before: Mapping[str, Any], name: str) -> dict[str, Any]:
    """Return the hyperparameters of a canonical table that a method keeps: its own, and those of the same parts.

    Args:
        before: the table of a method.
        name: another composition; one of another first term keeps nothing.
    """
    was, now = describe(before["name"]), describe(name)
    if terms(before["name"])[0] != terms(name)[0]:
        return {}
    same = [fields for slot, fields in now.of_parts.items() if now.parts[slot] == was.parts[slot]]
    return {key: value for key, value in before.items() if any(key in fields for fields in (now.own, *same))}


def _key_of(part: str, key: str, names: Sequence[str]) -> str:
    """Return the name of today of a hyperparameter behind a part; raise ConfigError if the part has none."""
    known = part_description(part).own
    for name in (key, RENAMED.get(key, key)):
        if name in known:
            return name
    head, *parts = names
    homes = [one for one in parts if key in part_description(one).own]
    homes += [head] if is_method(head) and key in _head_description(head).own else []
    where = f"; write it behind {homes[0]}" if homes else ""
    raise ConfigError(f"{part} has no hyperparameter {key!r}; it has {', '.join(known) or 'none'}{where}")


def _ordered(head: str, *parts: str) -> str:
    """Return the composition without parts that the method has anyway, in the order of the slots."""
    if head in PARTS:
        raise ConfigError(f"method must begin with a method, as in fedavg+{head}, got the part {head} first")
    if not is_method(head):
        must = f"method must be one of {', '.join(NAMES)}, or the dotted name of your own"
        raise ConfigError(f"{must}, got {_short(head)}; see `harmofl methods`{_meant(head, NAMES)}")
    known = _head_description(head)
    chosen = dict[str, str]()
    for part in parts:
        slot = slot_of(part)
        if slot in chosen:
            raise ConfigError(f"a method takes one {slot} part, got {chosen[slot]} and {part}; leave one out")
        if slot not in known.parts:
            raise ConfigError(f"{head} takes no {slot} part, as it defines its own; leave {part} out")
        chosen[slot] = part
    others = (chosen[slot] for slot, part in known.parts.items() if chosen.get(slot, part) != part)
    return "+".join((head, *others))


def slot_of(part: str) -> str:
    """Return the slot that a part is for.

    Raises:
        ConfigError: for an unknown part.
    """
    if part in PARTS:
        return PARTS[part][0]
    if plugins.is_own(part, plugins.PARTS):
        return plugins.slot_of(plugins.own_part(part))
    if is_method(part):
        raise ConfigError(f"a composition takes one method, as its first term, got the method {part} as a part")
    must = f"a part must be one of {', '.join(PARTS)}, or the dotted name of your own"
    raise ConfigError(f"{must}, got {_short(part)}{_meant(part, PARTS)}")


def _meant(name: str, known: Iterable[str]) -> str:
    """Return a hint at the known name that is most like another."""
    close = get_close_matches(name.lower().replace("_", "-"), known, 1, 0.8)
    return f"; did you mean {close[0]}?" if close else ""


@cache
def describe(name: str) -> Description:
    """Describe a composition without values, such as `fedprox+sam`.

    Raises:
        ConfigError: see `parse_composition`; also if a method and a part have a hyperparameter of the same name.
    """
    head, *parts = terms(name)
    found = _head_description(head)
    for part in parts:
        slot = slot_of(part)
        found = replace(
            found,
            parts={**found.parts, slot: part},
            of_parts={**found.of_parts, slot: part_description(part).own},
        )
    _check_unique(name, found)
    return found


def _check_unique(name: str, found: Description) -> None:
    seen = dict.fromkeys(found.own, name)
    for slot, fields in found.of_parts.items():
        for key in fields:
            if key in seen:
                raise ConfigError(f"{name}: {found.parts[slot]} and {seen[key]} both have {key!r}; rename one")
        seen |= dict.fromkeys(fields, found.parts[slot])


@cache
def _head_description(head: str) -> Description:
    if head in PRESETS:
        text, about = composition_of(head)
        name, values = parse_composition(text)
        return replace(describe(name).having(values), about=about)
    return class_description(head) if head in NAMES else plugins.own_description(plugins.own_method(head))


@cache
def part_description(part: str) -> Description:
    """Describe a part; raise ConfigError if it is unknown."""
    slot_of(part)
    return class_description(part) if part in PARTS else plugins.own_description(plugins.own_part(part))


def canonical(table: Mapping[str, Any]) -> dict[str, Any]:
    """Return a method's table with the names of its terms under `name` and each hyperparameter by its own name.

    Lists become tuples.

    Args:
        table: `name`, a composition with or without values, and hyperparameters, also by their names in older versions.

    Raises:
        ConfigError: if a name is unknown, or a value is given in the name and another beside it.
    """
    if not isinstance(table["name"], str):
        raise ConfigError(f"method must be one of those that `harmofl methods` lists, got {table['name']!r}")
    given = with_values_of_name(table)
    name = given.pop("name")
    parts, values = translated(describe(name), name, given)
    lists = {key: tuple(value) for key, value in values.items() if isinstance(value, list)}
    return {"name": _merged(name, parts), **values, **lists}


def with_values_of_name(table: Mapping[str, Any]) -> dict[str, Any]:
    """Return a method's table with the values in its name beside it.

    Raises:
        ConfigError: if a value in the name has another value beside it, or the name is no composition.
    """
    name, values = parse_composition(table["name"])
    for key, value in values.items():
        if key in table and table[key] != value:
            got = f"{value!r} in {_short(table['name'])} and {table[key]!r} beside it"
            raise ConfigError(f"{key} must be given once, got {got}; leave one out")
    return {**values, **table, "name": name}


def _merged(name: str, parts: Mapping[str, str]) -> str:
    head, *old = terms(name)
    return _ordered(head, *{**{slot_of(part): part for part in old}, **parts}.values())


def check_names(name: str, values: Mapping[str, Any]) -> None:
    """Raise ConfigError unless the method has these hyperparameters and each value is allowed."""
    known = describe(name).hyperparameters
    for key, value in values.items():
        if key not in known:
            raise ConfigError(f"{name} has no hyperparameter {key!r}; it has {', '.join(known)}{_home_of(key)}")
        if known[key].allowed:
            check_within(key, value, known[key].allowed)
    if arrangement(name) == "pooled" and "per" in known and values.get("per", known["per"].default) == "site":
        raise ConfigError(f'{name} trains in one place, so per must be "image", got "site"; set it to "image"')


def _home_of(key: str) -> str:
    """Return a hint which part has the hyperparameter."""
    homes = [part for part in PARTS if key in class_description(part).own]
    return f"; {key} belongs to {' and '.join(homes)}, which +{homes[0]} adds" if homes else ""
