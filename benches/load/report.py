"""The report: Markdown with pictures, and the tables of docs/performance.md."""

import statistics
from html import escape
from math import log
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

COLOURS = ["#1f6feb", "#d1570c", "#2da44e", "#8250df", "#6e7781"]
MARKS = "<!-- figures: written by benches/load/run.sh --write -->", "<!-- end of the figures -->"


def middle(rounds, name="rate"):
    return statistics.median(entry[name] for entry in rounds)


def ratio(results, name, other, ours="ours"):
    """The ratio of the medians, and the least and the most of the rounds against one another."""
    found = results.get(name, {})
    if ours not in found or other not in found:
        return None
    pairs = [mine["rate"] / theirs["rate"] for mine, theirs in zip(found[ours], found[other], strict=True)]
    return middle(found[ours]) / middle(found[other]), min(pairs), max(pairs)


def bars(told):
    """What the issue asks for: the work, the bar, what was measured, and whether that is enough."""
    results, facts, rows = told["results"], told["facts"], []

    def add(work, bar, measured, met):
        rows.append({"work": work, "bar": bar, "measured": measured, "met": met})

    def against(work, name, other, bar):
        found = ratio(results, name, other)
        if found:
            add(work, f"≥ {bar}", f"{found[0]:.2f} ({found[1]:.2f}–{found[2]:.2f})", found[0] >= bar)

    against("submitBid, distinct auctions, against pgbench with the same statements", "submitBid", "pgbench", 1.5)
    against("submitBid, all on one auction, against the same", "submitBid, one auction", "pgbench", 4)
    against("submitBid against mercurius", "submitBid", "mercurius", 5)
    against("submitBid against PostGraphile", "submitBid", "PostGraphile", 4)
    against("auction page against pgbench's three SELECTs", "auction page", "pgbench, three SELECTs", 1.2)
    against("auction page against mercurius", "auction page", "mercurius", 4)
    against("auction page against PostGraphile", "auction page", "PostGraphile", 4)
    against("executeTask to settlement against pgbench with as many row writes in one transaction", "executeTask to settlement", "pgbench", 0.8)
    against("submitBid on SQLite with 32 clients against the same server with a commit a bid", "submitBid on SQLite",
            "ours, one client: a commit a bid", 6)
    for work, name, most in (("p99 of submitBid at half its peak rate", "submitBid at half its peak", 15),
                             ("p99 of /health while the peak is written", "/health under peak writes", 10)):
        if name in results:
            found = [entry["p99"] for entry in results[name]["ours"]]
            value = statistics.median(found)
            add(work, f"≤ {most} ms", f"{value:.1f} ms ({min(found):.1f}–{max(found):.1f})", value <= most)
    add("memory: idle", "≤ 40 MiB", f"{facts['memory_idle']:.0f} MiB", facts["memory_idle"] <= 40)
    if "memory" in facts:
        found = facts["memory"]
        add(f"memory after {found['operations']:,} operations, the last quarter of the samples against the second", "≤ 1.05",
            f"{found['growth']:.3f} ({found['last']:.0f} MiB at the end)", found["growth"] <= 1.05)
    for name, found in results.items():
        if "small" in found:
            worse = ratio(results, name, "big", "small")
            where = f"page {facts.get('far_page', 0):,} of the task list against page 1" if "far page" in name else name
            add(where, "≤ 1.3", f"{worse[0]:.2f} ({worse[1]:.2f}–{worse[2]:.2f})", worse[0] <= 1.3)
    return rows


def table(heads, rows):
    lines = ["| " + " | ".join(heads) + " |", "|" + "---|" * len(heads)]
    return lines + ["| " + " | ".join(row) + " |" for row in rows] + [""]


def bars_table(told):
    verdict = {True: "yes", False: "**no**"}
    return table(["work", "bar", "measured", "met"], [[row["work"], row["bar"], row["measured"], verdict[row["met"]]] for row in bars(told)])


def comparisons(told, level):
    lines = []
    for name, contenders in told["results"].items():
        rows = []
        for contender, rounds in contenders.items():
            rates = [entry["rate"] for entry in rounds]
            cpu = {kind: statistics.median(entry["cpu"][kind] for entry in rounds) for kind in ("server", "postgres", "loader")}
            memory = statistics.median(entry.get("rss", 0) for entry in rounds)
            rows.append([contender, f"{statistics.median(rates):,.0f} ({min(rates):,.0f}–{max(rates):,.0f})", f"{middle(rounds, 'p50'):.1f}",
                         f"{middle(rounds, 'p99'):.1f}", f"{cpu['server']:.0f} / {cpu['postgres']:.0f} / {cpu['loader']:.0f}",
                         f"{memory:.0f}" if memory else "–"])
        lines += [f"{level} {name}", "", *table(["who", "per second (min–max)", "p50 ms", "p99 ms", "CPU µs: server / PostgreSQL / loader", "MiB"], rows)]
    return lines


def conditions(told):
    facts = told["facts"]
    lines = [f"{facts['version']} on PostgreSQL {facts['database']} and {facts['cores']} cores, shared by loader, server and database; other guests took "
             f"{facts['stolen']:.0%} of the processors meanwhile. {facts['seconds'] / 60:.0f} minutes in all. "
             f"The books and {facts.get('bids', 0):,} bids were checked afterwards.", "",
             f"PostgreSQL: `{facts['settings'].strip()}`. The server: `{' '.join(facts['server_settings'])}`.", ""]
    if "statements" in facts:
        lines += [f"A bid that comes alone is {facts['statements']} statements of the measured server with BEGIN and COMMIT in its session; "
                  f"the script of pgbench has {facts['script']}, one of them before its transaction.", ""]
    if "task_rows" in facts:
        written = ", ".join(f"{table} {kinds['insert']}+{kinds['update']}" for table, kinds in facts["task_rows"].items())
        lines += [f"A task from its post to its settlement inserts and updates these rows: {written}.", ""]
    if "growth" in facts:
        grown, seed = facts["growth"], facts["seed_big"]
        lines += [f"The history: {grown['bids']:,} bids, {grown['tasks']:,} tasks and {grown['agents']:,} agents, {seed['bytes'] / 1e9:.1f} GB, made in "
                  f"{seed['seconds']:.0f} s; its whole audit took {facts['audit_big']:.0f} s. Bytes with all indexes: " +
                  ", ".join(f"{what} {size:,.0f}" for what, size in facts["row_bytes"].items()) + ".", ""]
    return lines


def picture(title, unit, lines, along, steps=False):
    """A line for each of `lines`, points of x and y, as SVG; x in powers of two where `steps` says so."""
    width, height, left, low = 640, 320, 70, 50
    xs = [x for points in lines.values() for x, _ in points]
    top = max(y for points in lines.values() for _, y in points) * 1.05 or 1
    scale = (lambda x: log(max(x, 0.001), 2)) if steps else (lambda x: x)
    first, last = scale(min(xs)), scale(max(xs))
    across = lambda x: left + (width - left - 20) * (scale(x) - first) / ((last - first) or 1)  # noqa: E731
    up = lambda y: height - low - (height - low - 40) * y / top  # noqa: E731
    parts = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" font-family="sans-serif" font-size="12">',
             f'<rect width="{width}" height="{height}" fill="#fff"/><text x="{left}" y="20" font-size="14">{escape(title)}</text>']
    for part in range(5):
        y = top * part / 4
        parts.append(f'<line x1="{left}" x2="{width - 20}" y1="{up(y):.1f}" y2="{up(y):.1f}" stroke="#ddd"/>'
                     f'<text x="{left - 6}" y="{up(y) + 4:.1f}" text-anchor="end">{y:,.0f}</text>' if top > 10 else
                     f'<line x1="{left}" x2="{width - 20}" y1="{up(y):.1f}" y2="{up(y):.1f}" stroke="#ddd"/>'
                     f'<text x="{left - 6}" y="{up(y) + 4:.1f}" text-anchor="end">{y:.1f}</text>')
    ticks = sorted(set(xs)) if len(set(xs)) <= 10 else [min(xs) + (max(xs) - min(xs)) * part / 4 for part in range(5)]
    parts += [f'<text x="{across(x):.1f}" y="{height - low + 18}" text-anchor="middle">{x:,.4g}</text>' if isinstance(x, float) else
              f'<text x="{across(x):.1f}" y="{height - low + 18}" text-anchor="middle">{x:,}</text>' for x in ticks]
    parts.append(f'<text x="{width / 2}" y="{height - 8}" text-anchor="middle">{escape(along)}; {escape(unit)} upwards</text>')
    for place, (name, points) in enumerate(lines.items()):
        colour = COLOURS[place % len(COLOURS)]
        parts.append(f'<polyline fill="none" stroke="{colour}" stroke-width="2" points="{" ".join(f"{across(x):.1f},{up(y):.1f}" for x, y in points)}"/>'
                     f'<text x="{width - 24}" y="{40 + 16 * place}" text-anchor="end" fill="{colour}">{escape(name)}</text>')
    return "\n".join([*parts, "</svg>", ""])


def pictures(told):
    """The name, the title and the text of each picture."""
    for name, contenders in told["curves"].items():
        slug = name.replace(" ", "-").lower()
        if name == "memory":
            yield slug, "Memory over operations", picture("Memory of the server", "MiB", {who: [(p["clients"], p["rate"]) for p in points]
                                                                                           for who, points in contenders.items()}, "operations")
            continue
        for what, unit in (("rate", "a second"), ("p99", "ms of p99")):
            drawn = {who: [(point["clients"], point[what]) for point in points] for who, points in contenders.items()}
            yield f"{slug}-{what}", f"{name}: {unit}", picture(f"{name}: {unit}", unit, drawn, "clients", True)
    half = told["results"].get("submitBid at half its peak")
    if half:
        points = [(float(name[1:]), ms) for name, ms in half["ours"][-1]["curve"].items()]
        yield "submitbid-percentiles", "submitBid at half its peak: ms by percentile", picture(
            "submitBid at half its peak, from when each request was due", "ms", {"ours": [(100 / (100 - p), ms) for p, ms in points if p < 100]},
            "1 in so many requests is slower", True)


def write(told, out):
    """target/bench/report.md with its pictures."""
    lines = ["# Load", ""]
    if told["smoke"]:
        lines += ["A smoke run: short rounds over little data. It proves that the suite and the answers are right; its ratios mean nothing.", ""]
    lines += [*conditions(told), "## Bars", "", "Ratios of medians, with the least and the most of the rounds in brackets.", "", *bars_table(told), "## Curves", ""]
    for slug, title, svg in pictures(told):
        (out / f"{slug}.svg").write_text(svg)
        lines += [f"![{title}]({slug}.svg)", ""]
    lines += comparisons(told, "##")
    (out / "report.md").write_text("\n".join(lines).rstrip() + "\n")


def into_docs(told):
    """Puts the figures between the marks of docs/performance.md."""
    path = ROOT / "docs/performance.md"
    before, rest = path.read_text().split(MARKS[0], 1)
    _, after = rest.split(MARKS[1], 1)
    figures = "\n".join([*conditions(told), *bars_table(told), *comparisons(told, "###")])
    path.write_text(f"{before}{MARKS[0]}\n\n{figures.rstrip()}\n\n{MARKS[1]}{after}")


if __name__ == "__main__":
    import json
    into_docs(json.loads((ROOT / "target/bench/report.json").read_text()))
