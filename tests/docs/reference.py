"""The generated pages of the book: the schema, the command line and the codes of errors."""

import os
import re
import subprocess
import tomllib
from pathlib import Path

import graphql

from page import ROOT

BOOK = ROOT / "docs/reference"
NOTE = "<!-- Made by `bash tests/docs/run.sh --write`; do not edit. -->\n"
ENVIRONMENT = {name: text for name, text in os.environ.items() if not name.startswith(("ZEROSTATE_", "DATABASE_URL", "HOST", "PORT", "RUST_LOG", "PUBLIC_URL", "OTEL_"))}


def flat(text):
    return " ".join((text or "").split()).replace("|", "\\|")


def schema_page():
    schema = graphql.build_schema((ROOT / "schema.graphql").read_text())

    def link(kind):
        name = graphql.get_named_type(kind).name
        return f"[`{kind}`](#{name.lower()})" if name not in ("String", "Int", "Float", "Boolean", "ID") else f"`{kind}`"

    def needs(node):
        for directive in (node.directives or ()) if node else ():
            if directive.name.value == "requires":
                given = {one.name.value: one.value for one in directive.arguments}
                lists = [" and ".join(f"`{scope.value}`" for scope in scopes.values) for scopes in given["scopes"].values]
                role = given.get("role")
                who = f"session of an `{role.value}`" if role else "session"
                return f" *Needs a {who}{''.join(f', or a key with {one}' for one in lists)}.*"
        return ""

    def fields(of):
        lines = ["| field | type | |", "|---|---|---|"]
        for name, field in of.fields.items():
            given = "".join(f"<br>`{arg}`: {link(one.type)}{'' if one.default_value is graphql.Undefined else f', `{graphql.print_ast(graphql.ast_from_value(one.default_value, one.type))}` when left out'}. {flat(one.description)}"
                            for arg, one in getattr(field, "args", {}).items())
            default = getattr(field, "default_value", graphql.Undefined)
            if default is not graphql.Undefined and default is not None:
                given = f" `{graphql.print_ast(graphql.ast_from_value(default, field.type))}` when left out." + given
            lines.append(f"| `{name}` | {link(field.type)} | {flat(field.description)}{needs(field.ast_node)}{given} |")
        return lines

    def section(title, types, body):
        lines = [f"## {title}", ""]
        for one in types:
            lines += [f"### {one.name}", ""] + ([flat(one.description), ""] if one.description else []) + body(one) + [""]
        return lines

    kinds = sorted((one for one in schema.type_map.values() if not one.name.startswith("__")), key=lambda one: one.name)
    roots = [schema.query_type, schema.mutation_type, schema.subscription_type]
    built_in = ("String", "Int", "Float", "Boolean", "ID")

    def implemented(one):
        shown = ", ".join(f"[`{face.name}`](#{face.name.lower()})" for face in one.interfaces)
        return [f"Is a {shown}.", ""] if shown else []

    lines = [NOTE, "# The schema", "",
             "Every type and field of `schema.graphql`, which a running service serves at `/graphql/schema.graphql`. What a field needs is what",
             "[its directive](#directives) says; [permissions](../permissions.md) has the same as a table of roles.", ""]
    lines += section("Operations", roots, fields)
    lines += section("Objects", [one for one in kinds if graphql.is_object_type(one) and one not in roots], lambda one: implemented(one) + fields(one))
    lines += section("Interfaces", filter(graphql.is_interface_type, kinds), lambda one: fields(one) + [
        "", "Is one of " + ", ".join(f"[`{each.name}`](#{each.name.lower()})" for each in schema.get_possible_types(one)) + "."])
    lines += section("Unions", filter(graphql.is_union_type, kinds), lambda one: [" or ".join(link(each) for each in one.types) + "."])
    lines += section("Inputs", filter(graphql.is_input_object_type, kinds), fields)
    lines += section("Enums", filter(graphql.is_enum_type, kinds), lambda one: ["| value | |", "|---|---|"] + [
        f"| `{name}` | {flat(value.description)} |" for name, value in one.values.items()])
    lines += section("Scalars", [one for one in kinds if graphql.is_scalar_type(one) and one.name not in built_in],
                     lambda one: [f"Specified by <{one.specified_by_url}>."] if one.specified_by_url else [])
    lines += ["## Directives", ""]
    for one in sorted(schema.directives, key=lambda each: each.name):
        if one.name in ("requires",):
            lines += [f"`@{one.name}`: {flat(one.description)}", ""]
    return "\n".join(line for line in lines if line is not None).rstrip().replace("\n\n\n", "\n\n") + "\n"


def help_of(words):
    shown = subprocess.run([ROOT / "target/debug/zerostate", *words, "--help"], env=ENVIRONMENT, check=True, capture_output=True, text=True)
    return shown.stdout


def entries(text):
    """The paragraphs of a help text: what stands before the lists, and each list with its items."""
    head, lists, current = [], {}, None
    for line in text.splitlines():
        title = re.fullmatch(r"([A-Z][A-Za-z ]*):", line)
        if title:
            current = lists.setdefault(title.group(1), [])
        elif current is None:
            head.append(line)
        elif re.match(r" {2,6}\S", line):
            current.append([line])
        elif current:
            current[-1].append(line)
    return head, lists


def item(lines):
    """One option or argument as a row of a table."""
    name, *rest = re.split(r" {2,}", lines[0].strip(), maxsplit=1)
    told = " ".join(" ".join(rest + [line.strip() for line in lines[1:]]).split())
    variable = re.search(r"\[env: (\w+)=?[^\]]*\]", told)
    default = re.search(r"\[default: ([^\]]*)\]", told)
    told = re.sub(r"\s*\[(env|default|possible values): ?[^\]]*\]", "", told) if not re.search(r"\[possible values", told) else re.sub(
        r"\s*\[(env|default): ?[^\]]*\]", "", told)
    told = re.sub(r"\s*Possible values: - ", ". One of: ", told)
    return f"| `{name.strip()}` | {f'`{variable.group(1)}`' if variable else ''} | {f'`{default.group(1)}`' if default else ''} | {flat(told)} |"


def cli_page():
    lines = [NOTE, "# The command line, command by command", "",
             "What `zerostate help` says of every command. [The command line against a running server](../cli.md) tells how to use those that",
             "are clients.", ""]
    head, lists = entries(help_of([]))
    names = lambda of: {re.match(r"\s*(?:-\w, )?(--[\w-]+)", one[0]).group(1) for group, items in of.items() if group not in ("Commands", "Arguments") for one in items}
    common = names(lists) | {"--help"}

    def table(items):
        rows = [item(one) for one in items]
        return ["| | environment | default | |", "|---|---|---|---|"] + rows if rows else []

    lines += ["Exit codes: 0 ok, 1 failure, 2 usage, 3 configuration or pending migration, 4 dependency unreachable, 5 unhealthy.", "",
              "## Settings of every command", "", "They come before or behind the command. A flag beats its variable, which beats the default.", ""]
    for title, items in lists.items():
        if title not in ("Commands",):
            lines += ([f"**{title}**", ""] if title != "Options" else []) + table([one for one in items if "--help" not in one[0]]) + [""]

    def command(words, level):
        head, lists = entries(help_of(words))
        at = next(number for number, line in enumerate(head) if line.startswith("Usage:"))
        usage = "`<br>`".join(line.removeprefix("Usage:").strip() for line in head[at:] if line.strip())
        about = [line for line in head[:at] if line]
        out = [f"{'#' * level} zerostate {' '.join(words)}", "", " ".join(about).strip().rstrip(".") + ".", "", f"`{usage}`", ""]
        for title, items in lists.items():
            if title == "Commands":
                continue
            own = [one for one in items if title == "Arguments" or re.match(r"\s*(?:-\w, )?(--[\w-]+)", one[0]).group(1) not in common]
            if own:
                out += ([f"**{title}**", ""] if title not in ("Options", "Arguments") else []) + table(own) + [""]
        for one in lists.get("Commands", []):
            name = one[0].split()[0]
            if name != "help":
                out += command(words + [name], min(level + 1, 4))
        return out

    for one in lists["Commands"]:
        name = one[0].split()[0]
        if name != "help":
            lines += command([name], 2)
    return "\n".join(lines).rstrip() + "\n"


def commands():
    """The flags of each command, and those of all, as the generated page has them."""
    common, *rest = re.split(r"(?m)^#{2,4} zerostate ", (BOOK / "cli.md").read_text())
    flags = lambda text: set(re.findall(r"`(?:-\w, )?(--[\w-]+)", text))
    return {text.partition("\n")[0].strip(): flags(text) for text in rest}, flags(common) | {"--help"}


def errors_page():
    told = tomllib.loads((Path(__file__).parent / "errors.toml").read_text())
    source = (ROOT / "src/transport/answer.rs").read_text()
    constants = dict(re.findall(r'pub\(in crate::transport\) const (\w+): &str = "(\w+)";', source))
    retryable = set(re.findall(r"code::(\w+)", re.search(r"fn retryable\(code: &str\) -> bool \{(.*?)\}", source, re.S).group(1)))
    schema = graphql.build_schema((ROOT / "schema.graphql").read_text())
    known = set(constants.values())
    if known != set(told["request"]):
        raise ValueError(f"tests/docs/errors.toml and src/transport/answer.rs differ in {sorted(known ^ set(told['request']))}")
    lines = [NOTE, "# Codes of errors", "",
             "Decide by codes, never by messages. What a request itself did wrong is in `errors[].extensions.code`, beside `requestId` and `retryable`;",
             "what the market refused is in `userErrors[].code` of the payload, and is final: the same request with another key is refused again until",
             "something has changed. New codes may come; take an unknown one for a refusal.", "",
             "## Errors of a request", "",
             "[GraphQL over HTTP](../graphql.md#answers) has the status of each, and [the codes with which a socket is closed](../graphql.md#websocket).", "",
             "| code | where | retryable | what to do |", "|---|---|---|---|"]
    for name in sorted(constants, key=constants.get):
        code = constants[name]
        lines.append(f"| `{code}` | {told['request'][code]['where']} | {'yes' if name in retryable else 'no'} | {told['request'][code]['todo']} |")
    lines += ["", "## Refusals of a mutation", "", "None is retryable as it stands.", ""]
    enums = [one for one in schema.type_map.values() if one.name.endswith("ErrorCode")]
    codes = {code for one in enums for code in one.values}
    if codes != set(told["refusal"]):
        raise ValueError(f"tests/docs/errors.toml and schema.graphql differ in {sorted(codes ^ set(told['refusal']))}")
    by = {}
    for name, field in schema.mutation_type.fields.items():
        error = graphql.get_named_type(graphql.get_named_type(field.type).fields["userErrors"].type)
        by.setdefault(error.fields["code"].type.of_type.name, []).append(name)
    everywhere = set.intersection(*(set(one.values) for one in enums))
    lines += ["### Of every mutation", "", "| code | meaning | what to do |", "|---|---|---|"]
    some = enums[0].values
    lines += [f"| `{code}` | {flat(some[code].description)} | {told['refusal'][code]} |" for code in sorted(everywhere)]
    for one in sorted(enums, key=lambda each: each.name):
        lines += ["", f"### {one.name}", "", "Of " + ", ".join(f"`{name}`" for name in sorted(by[one.name])) + ".", "",
                  "| code | meaning | what to do |", "|---|---|---|"]
        lines += [f"| `{code}` | {flat(value.description)} | {told['refusal'][code]} |" for code, value in sorted(one.values.items()) if code not in everywhere]
    lines += ["", "## Faults of work", "",
              "Why a task was refunded is its `failureCode`: [those of hosted agents](../agents.md#what-can-be-wrong),",
              "[those of agents that run elsewhere](../agents.md#claim-lease-token), [those of steps](../delegations.md#when-something-fails) and",
              "[those of reviews](../disputes.md#what-can-happen-to-a-result-under-review). An upload that is refused answers 422 with one of",
              "[these codes](../agents.md#what-can-be-wrong)."]
    return "\n".join(lines) + "\n"


PAGES = {"schema.md": schema_page, "cli.md": cli_page, "errors.md": errors_page}


def write():
    BOOK.mkdir(exist_ok=True)
    for name, make in PAGES.items():
        (BOOK / name).write_text(make())
        print(f"docs/reference/{name}")
    list_pages()


def list_pages():
    """Adds pages that the contents of the book lack, each behind the last one of its part."""
    contents = ROOT / "docs/SUMMARY.md"
    text = contents.read_text()
    for path in sorted((ROOT / "docs").rglob("*.md")):
        name = str(path.relative_to(ROOT / "docs"))
        if name == "SUMMARY.md" or f"]({name})" in text:
            continue
        title = next(line for line in path.read_text().splitlines() if line.startswith("# ")).removeprefix("# ")
        part = {"tutorial": "Tutorial", "how-to": "How to", "explanation": "Explanation", "runbooks": "Runbooks"}.get(name.split("/")[0], "Reference")
        if f"\n# {part}\n" not in text:
            text = text.rstrip() + f"\n\n# {part}\n\n"
        head, tail = text.split(f"\n# {part}\n", 1)
        body, rest = (tail.split("\n# ", 1) + [""])[:2]
        text = f"{head}\n# {part}\n{body.rstrip()}\n- [{title}]({name})\n" + (f"\n# {rest}" if rest else "")
        print(f"docs/SUMMARY.md: {name}")
    contents.write_text(text)


def check():
    """For each page, whether it is what its sources give."""
    for name, make in PAGES.items():
        path = BOOK / name
        try:
            made = make()
        except ValueError as error:
            yield f"docs/reference/{name}", [str(error)]
            continue
        stored = path.read_text() if path.exists() else ""
        differs = next((number for number, (one, other) in enumerate(zip(stored.splitlines() + [""], made.splitlines() + [""]), 1) if one != other), None)
        wrong = [] if stored == made else [f"line {differs} is not what the sources give; run: bash tests/docs/run.sh --write"]
        yield f"docs/reference/{name} is what its sources give", wrong
