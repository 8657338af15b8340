"""Holds an answer against the one that a page shows.

Ids, hashes, tokens, instants and spans of time differ from run to run: they are held against their pattern. What a page shows as
`task_01m8…` stands for one value; `…` alone stands for anything. What was found is carried on, so that a later command of the page
which names the value shown is given the real one.
"""

import json
import re

PATTERNS = [
    (r"(?P<shortkind>[a-z]+_|eyJ)?[\w\-]*\w…(?:[a-z](?!\w))?", None),
    (r"…", r"[\s\S]*?"),
    (r"eyJ[\w\-]+\.[\w\-]+\.[\w\-]+", r"eyJ[\w\-]+\.[\w\-]+\.[\w\-]+"),
    (r"(?P<kind>[a-z]+)_[0-9a-hjkmnp-tv-z]{26}", None),
    (r"\b[0-9a-f]{20,}\b", r"[0-9a-f]+"),
    (r"\b\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d+)?Z", r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d+)?Z"),
    (r"\b\d+(?:\.\d+)? (?:ms|s)\b", r"\d+(?:\.\d+)? m?s"),
]
TOKEN = re.compile("|".join(f"(?P<p{index}>{pattern})" for index, (pattern, _) in enumerate(PATTERNS)) + r"|(?P<space>\s+)")


def pattern(shown):
    """The expression that what is shown stands for, and the values shown by the names of its groups."""
    parts, names, at = [], {}, 0
    for found in TOKEN.finditer(shown):
        parts.append(re.escape(shown[at:found.start()]))
        at = found.end()
        text = found.group()
        if found.group("space"):
            parts.append(r"\s+")
            continue
        index = int(found.lastgroup[1:]) if found.lastgroup.startswith("p") else next(
            number for number in range(len(PATTERNS)) if found.group(f"p{number}"))
        if text == "…":
            parts.append(PATTERNS[index][1])
            continue
        if index == 0:
            expression = re.escape(found.group("shortkind") or "") + (r"[\w+/=]+" if found.group("shortkind") == "whsec_" else r"[\w.\-]+")
        elif found.group("kind"):
            expression = re.escape(found.group("kind")) + "_[0-9a-z]{26}"
        else:
            expression = PATTERNS[index][1]
        if text in names.values() and re.match(r"[a-z]+_", text):
            parts.append(f"(?P={next(name for name, value in names.items() if value == text)})")
        else:
            name = f"v{len(names)}"
            names[name] = text
            parts.append(f"(?P<{name}>{expression})")
    parts.append(re.escape(shown[at:]))
    return "".join(parts), names


def text(shown, actual, known):
    """What differs, or nothing; `known` learns which value stands for which."""
    expression, names = pattern(shown.strip())
    found = re.fullmatch(expression, actual.strip())
    if not found:
        return f"the page shows\n{shown.strip()}\nand the answer is\n{actual.strip()}"
    for name, value in names.items():
        if known.setdefault(value, found.group(name)) != found.group(name) and re.match(r"[a-z]+_", value):
            return f"{value} stands for {known[value]}, and here for {found.group(name)}"
    return None


def value(shown, actual, known, at="$"):
    """The same for values of JSON."""
    if isinstance(shown, dict) and isinstance(actual, dict):
        if set(shown) != set(actual):
            return f"{at}: the page shows the fields {sorted(shown)}, and the answer has {sorted(actual)}"
        pairs = [(shown[name], actual[name], f"{at}.{name}") for name in shown]
    elif isinstance(shown, list) and isinstance(actual, list):
        if len(shown) != len(actual):
            return f"{at}: the page shows {len(shown)} items, and the answer has {len(actual)}"
        pairs = [(one, other, f"{at}[{index}]") for index, (one, other) in enumerate(zip(shown, actual))]
    elif isinstance(shown, str) and shown == "…":
        return None
    elif isinstance(shown, str) and isinstance(actual, str):
        wrong = text(shown, actual, known)
        return wrong and f"{at}: {wrong}"
    else:
        return None if shown == actual else f"{at}: the page shows {shown!r}, and the answer is {actual!r}"
    return next((wrong for one, other, place in pairs if (wrong := value(one, other, known, place))), None)


def document(shown, actual, known):
    """The same for documents of JSON."""
    try:
        found = json.loads(actual)
    except ValueError:
        return f"the answer is no JSON:\n{actual}"
    wrong = value(json.loads(shown), found, known)
    return wrong and f"{wrong}\nin the answer\n{actual.strip()}"


def filled(shown, known):
    """A text in which the values that a page shows are the real ones."""
    for name in sorted(known, key=len, reverse=True):
        shown = shown.replace(name, known[name])
    return shown
