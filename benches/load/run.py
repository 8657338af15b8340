"""The load suite; `run.sh` starts it beside a PostgreSQL server of its own. docs/performance.md says what is measured against what."""

import argparse
import json
import os
import random
import sqlite3
import statistics
import tempfile
import time
from pathlib import Path

import reference
import report
from tools import (ADMIN, HERE, PROGRAM, ROOT, Background, Client, Market, Peer, Watch, machine, median, memory, numbered, oha, pgbench, post, run, say, sql,
                   stored, wire, wrk)

CLIENTS = 32
PAYER_CREDITS = "900000000"
BID = ("mutation($i: SubmitBidInput!) { submitBid(input: $i) { bid { id price sequence status } userErrors { code message } } }")
PAGE = ("query($id: ID!) { auction(id: $id) { id status budget bidCount closesAt bids(first: 20) "
        "{ nodes { id price sequence status agent { id name price } } } } }")
TASK = ("mutation($i: ExecuteTaskInput!) { executeTask(input: $i) { task { id status } userErrors { code message } } }")
HOT, PAGES, BASE_AGENTS = 2_000, 100, 1_000


def body(query, **variables):
    return json.dumps({"query": query, "variables": variables})


OURS_BID = body(BID, i={"auctionId": "@AUCTION@", "agentId": "@AGENT@", "price": "2", "idempotencyKey": "@KEY@"})
OURS_PAGE = body(PAGE, id="@AUCTION@")
MERCURIUS_BID = body("mutation($a: ID!, $g: ID!, $k: String!) { submitBid(auctionId: $a, agentId: $g, price: \"2000000\", key: $k) "
                     "{ id price sequence status } }", a="@AUCTION@", g="@AGENT@", k="@KEY@")
MERCURIUS_PAGE = body("query($id: ID!) { auction(id: $id) { id status budget bidCount closesAt bids(first: 20) "
                      "{ id price sequence status agent { id name price } } } }", id="@AUCTION@")
POSTGRAPHILE_BID = body("mutation($a: UUID!, $g: UUID!, $k: String!) { loadSubmitBid(input: {auction: $a, agent: $g, price: \"2000000\", key: $k}) "
                        "{ result { rowId price seq status } } }", a="@AUCTION@", g="@AGENT@", k="@KEY@")
POSTGRAPHILE_PAGE = body("query($id: UUID!) { auctionByRowId(rowId: $id) { rowId status budget bidCount closesAt bidsByAuctionId(first: 20) "
                         "{ nodes { rowId price seq status agentByAgentId { rowId name price } } } } }", id="@AUCTION@")


class Suite:
    def __init__(self, smoke, folder, seconds):
        self.smoke, self.folder = smoke, Path(folder)
        self.rounds, self.seconds = 3, seconds or (2 if smoke else 10)
        self.open = 4_000 if smoke else 20_000
        # Requests that a contender may number in one round, which is more than any sends: bids of 15 agents in every open auction.
        self.span = self.open * 15
        self.results, self.facts, self.curves = {}, {}, {}
        self.next, self.bids = {"ours": 0, "hot": 0}, 0
        self.stolen = []

    # What is there before anything is measured.

    def file(self, name, lines):
        path = self.folder / name
        path.write_text("\n".join(lines) + "\n")
        return path

    def set_up(self):
        """The database `ours` behind our server, and `peer`, the same rows for everybody else."""
        sql("postgres", "CREATE DATABASE ours")
        self.market = market = Market(self.folder / "ours", "ours")
        market.start()
        time.sleep(5)
        self.facts["memory_idle"] = memory(market.process.pid)
        admin = Client(market).login(ADMIN)
        self.payer, self.owner = Client(market).user("payer"), Client(market).user("owner")
        admin.credit(self.payer, PAYER_CREDITS)
        self.requesters = [Client(market).user(f"requester-{number}") for number in range(16 if self.smoke else 96)]
        for requester in self.requesters:
            admin.credit(requester, "10000000")
        module = (ROOT / "agents/wasm/text-stats-lite.wasm").read_bytes()
        # As many sellers as buyers, since nobody's wallet can take in two payments at once.
        for number in range(len(self.requesters)):
            seller = Client(market).user(f"seller-{number}")
            agent = seller.do("registerAgent", "agent { id }", {"name": f"hosted-{number}", "description": "", "runtime": "HOSTED", "price": "0.3",
                                                                  "capabilities": [f"load.run-{number}"], "idempotencyKey": f"hosted-{number}"})
            seller.send(f"/agents/{agent['agent']['id']}/module", module, "application/wasm", "PUT")
        market.stop()
        self.seed("ours", self.payer, self.owner, BASE_AGENTS, PAGES, self.open + HOT)
        # What autovacuum has done in any database that is older than a minute, before the others get their copy.
        sql("ours", "VACUUM ANALYZE")
        sql("postgres", "CREATE DATABASE peer TEMPLATE ours")
        run(["psql", "--no-psqlrc", "-q", "-v", "ON_ERROR_STOP=1", "-f", str(HERE / "sql/function.sql"), f"{os.environ['BENCH_DATABASE']}/peer"])
        market.start()
        self.base = PAGES
        distinct = range(PAGES + 1, PAGES + self.open + 1)
        hot = range(PAGES + self.open + 1, PAGES + self.open + HOT + 1)
        pages = range(1, PAGES + 1)
        agents = range(1, BASE_AGENTS + 1)
        self.files = {name: (self.file(f"{name}.wire", [wire(prefix, numbered(kind, number)) for number in numbers]),
                             self.file(f"{name}.uuid", [numbered(kind, number) for number in numbers]))
                      for name, kind, prefix, numbers in (("distinct", 3, "auc", distinct), ("hot", 3, "auc", hot), ("page", 3, "auc", pages),
                                                          ("agents", 1, "agent", agents))}
        self.token = self.file("token", [self.owner.token])
        self.tokens = self.file("tokens", [requester.token for requester in self.requesters])
        # Tasks of one requester go to every agent in turn, and those of one agent come from many requesters.
        self.peers = {name: Peer(name, self.folder / f"{name}.log") for name in ("mercurius", "postgraphile")}
        for peer in self.peers.values():
            peer.start()
        sql("postgres", "CHECKPOINT")

    def seed(self, database, payer, owner, agents, pages, open_, *more):
        env = {"PATH": os.environ["PATH"], "DATABASE_URL": f"{os.environ['BENCH_DATABASE']}/{database}"}
        began = time.monotonic()
        run([str(HERE / "seed.sh"), "--payer", stored(payer.id), "--owner", stored(owner.id), "--agents", str(agents), "--pages", str(pages),
             "--open", str(open_), *more], env)
        return time.monotonic() - began

    # The loads.

    def ours(self, mode, clients=CLIENTS, seconds=None, market=None):
        """Bids through our API."""
        kind = "hot" if mode == "hot" else "ours"
        result = wrk((market or self.market).url + "/graphql", clients, seconds or self.seconds, (market or self.market).pids, body=OURS_BID, mode=mode,
                     name=kind, first=self.next[kind], tokens=self.token, auctions=self.files[mode][0], agents=self.files["agents"][0],
                     expect='"status":"ACTIVE"')
        self.next[kind] = result["next"]
        self.bids += result["requests"]
        return result

    def peer(self, name, mode, number):
        peer, place = self.peers[name], {"mercurius": 2, "postgraphile": 3}[name]
        given = {"mercurius": (MERCURIUS_BID, MERCURIUS_PAGE, '"status":"ACTIVE"'), "postgraphile": (POSTGRAPHILE_BID, POSTGRAPHILE_PAGE, '"status":"ACTIVE"')}[name]
        if mode == "page":
            return wrk(peer.url + "/graphql", CLIENTS, self.seconds, peer.pids, body=given[1], mode="page", auctions=self.files["page"][1],
                       expect='"name":"seeded-')
        first = number * self.span if mode == "distinct" else (place * 400 + number * 80) * 1000
        return wrk(peer.url + "/graphql", CLIENTS, self.seconds, peer.pids, body=given[0], mode=mode, name=f"{name}-{mode}-{number}", first=first,
                   auctions=self.files[mode][1], agents=self.files["agents"][1], agent_offset=place * 200 if mode == "distinct" else 0, expect=given[2])

    def pgbench(self, script, mode, number, clients=CLIENTS, seconds=None):
        """The statements of a bid straight at the database."""
        place = {"submit": 0, "lean": 1}[script]
        if mode == "hot":
            head = ("\\set i :first + :n * :step + :client_id\n\\set auction :base + (:i / 1000) % :auctions + 1\n\\set agent :i % 1000 + 1\n")
            first, base, auctions = (place * 400 + number * 80) * 1000, self.base + self.open, HOT
        else:
            head = (f"\\set i :first + :n * :step + :client_id\n\\set auction :base + :i % :auctions + 1\n"
                    f"\\set agent {place * 200} + :i / :auctions + 1\n")
            first, base, auctions = number * self.span, self.base, self.open
        path = self.folder / f"{script}-{mode}.sql"
        path.write_text("\\set n :n + 1\n" + head + (HERE / f"sql/{script}.sql").read_text())
        batch = place * 100 + (50 if mode == "hot" else 0) + number
        return pgbench("peer", [path], clients, seconds or self.seconds, n=-1, first=first, base=base, auctions=auctions, step=clients, batch=batch,
                       owner=stored(self.owner.id), payer=stored(self.payer.id))

    def page(self, clients=CLIENTS, seconds=None, market=None):
        market = market or self.market
        return wrk(market.url + "/graphql", clients, seconds or self.seconds, market.pids, body=OURS_PAGE, mode="page", auctions=self.files["page"][0],
                   expect='"name":"seeded-')

    def page_scripts(self, join):
        """A script for each page, with its ids in it, so that pgbench has nothing to work out."""
        paths = []
        for number in range(1, PAGES + 1):
            auction = numbered(3, number)
            agents = ", ".join(f"'{numbered(1, (number * 7 + place) % BASE_AGENTS + 1)}'" for place in range(1, 21))
            path = self.folder / f"page-{'join' if join else 'three'}-{number}.sql"
            if join:
                path.write_text("SELECT a.id, a.status, a.budget, a.bid_count, a.closes_at, b.id, b.price, b.seq, b.status, g.id, g.name, g.price FROM auctions a "
                                f"JOIN bids b ON b.auction_id = a.id JOIN agents g ON g.id = b.agent_id WHERE a.id = '{auction}' ORDER BY b.id LIMIT 20;\n")
            else:
                path.write_text(f"SELECT id, status, budget, bid_count, closes_at FROM auctions WHERE id = '{auction}';\n"
                                f"SELECT id, agent_id, price, seq, status FROM bids WHERE auction_id = '{auction}' ORDER BY id LIMIT 20;\n"
                                f"SELECT id, name, price FROM agents WHERE id IN ({agents});\n")
            paths.append(path)
        return paths

    def interleave(self, name, contenders, rounds=None):
        """Every contender once in each round, after one that does not count."""
        found = {contender: [] for contender in contenders}
        for number in range((rounds or self.rounds) + 1):
            for contender, work in contenders.items():
                result = work(number)
                self.stolen.append(result.get("stolen", 0))
                if number:
                    found[contender].append(result)
        self.results[name] = found
        say(f"{name}: " + ", ".join(f"{contender} {median(rounds_):,.0f}/s" for contender, rounds_ in found.items()))

    # What is measured.

    def submit(self):
        self.check_statements()
        for mode, name in (("distinct", "submitBid"), ("hot", "submitBid, one auction")):
            self.interleave(name, {
                "ours": lambda _, mode=mode: self.ours(mode),
                "pgbench": lambda number, mode=mode: self.pgbench("submit", mode, number),
                "pgbench, writes alone": lambda number, mode=mode: self.pgbench("lean", mode, number),
                "mercurius": lambda number, mode=mode: self.peer("mercurius", mode, number),
                "PostGraphile": lambda number, mode=mode: self.peer("postgraphile", mode, number)})
        self.check_bids()

    def check_statements(self):
        """The statements that one bid alone sends, for the report; the scripts of pgbench are to be held against them."""
        auction, agent = (self.files[name][0].read_text().splitlines() for name in ("distinct", "agents"))
        log = Path(os.environ["BENCH_LOG"])
        sql("postgres", "ALTER SYSTEM SET log_statement = 'all'")
        sql("postgres", "SELECT pg_reload_conf()")
        time.sleep(1)
        place = log.stat().st_size
        answer = post(self.market.url + "/graphql", {"query": BID, "variables": {"i": {"auctionId": auction[-1], "agentId": agent[-1], "price": "2",
                                                                                         "idempotencyKey": "statements"}}}, self.owner.token)
        time.sleep(0.3)
        sql("postgres", "ALTER SYSTEM RESET log_statement")
        sql("postgres", "SELECT pg_reload_conf()")
        assert answer["data"]["submitBid"]["bid"], answer
        self.bids += 1
        with log.open() as lines:
            lines.seek(place)
            text = lines.read()
        # The session of the bid is the one that wrote the record of its key.
        by_session = {}
        for line in text.splitlines():
            if "LOG:  " in line and ("execute " in line or "statement: " in line):
                session = line.split("[", 1)[1].split("]", 1)[0]
                by_session.setdefault(session, []).append(line.split(": ", 1)[1])
        mine = next((lines for lines in by_session.values() if any("idempotency_records" in line and "INSERT" in line.upper() for line in lines)), [])
        self.facts["statements"] = len(mine)
        self.facts["script"] = sum(line.rstrip().endswith(";") for line in (HERE / "sql/submit.sql").read_text().splitlines())

    def check_bids(self):
        """Every bid that was answered is in the database, and nothing else but what was under way when a round ended."""
        # Both at one instant: what was under way when a round ended may still come in.
        made, bids = (int(word) for word in sql("ours", "SELECT (SELECT COUNT(*) FROM idempotency_records WHERE operation = 'submitBid'), "
                                                "(SELECT COUNT(*) FROM bids b JOIN agents g ON g.id = b.agent_id WHERE g.runtime = 'EXTERNAL')")[0])
        bids -= PAGES * 20
        assert made == bids, f"{bids} bids, {made} answers to keys"
        assert self.bids <= made <= self.bids + 64 * 200, f"{self.bids} bids were answered, {made} are there"
        self.facts["bids"] = made

    def pages(self):
        three, join = self.page_scripts(False), self.page_scripts(True)
        self.check_pages()
        self.interleave("auction page", {
            "ours": lambda _: self.page(),
            "pgbench, three SELECTs": lambda _: pgbench("peer", three, CLIENTS, self.seconds),
            "pgbench, one join": lambda _: pgbench("peer", join, CLIENTS, self.seconds),
            "mercurius": lambda number: self.peer("mercurius", "page", number),
            "PostGraphile": lambda number: self.peer("postgraphile", "page", number)})
        self.check_pages()

    def check_pages(self):
        """What a sample of pages says is what the database holds, from each server."""
        for number in random.sample(range(1, PAGES + 1), 5):
            auction = numbered(3, number)
            rows = sql("ours", f"SELECT b.id, b.price, b.seq, b.status, g.name FROM bids b JOIN agents g ON g.id = b.agent_id WHERE b.auction_id = '{auction}' ORDER BY b.seq LIMIT 20")
            found = post(self.market.url + "/graphql", {"query": PAGE, "variables": {"id": wire("auc", auction)}})["data"]["auction"]["bids"]["nodes"]
            said = [[stored(bid["id"]), str(round(float(bid["price"]) * 1e6)), str(bid["sequence"]), bid["status"], bid["agent"]["name"]] for bid in found]
            assert said == rows and len(said) == 20, f"the page of {auction}: {said[:2]} and not {rows[:2]}"
            for name, text in (("mercurius", MERCURIUS_PAGE), ("postgraphile", POSTGRAPHILE_PAGE)):
                if name in self.peers:
                    answer = json.dumps(post(self.peers[name].url + "/graphql", json.loads(text.replace("@AUCTION@", auction))))
                    assert all(f'"{row[4]}"' in answer and row[0] in answer for row in rows), f"{name}: {answer[:300]}"

    def edge(self):
        self.interleave("edge", {
            "/health": lambda _: wrk(self.market.url + "/health", CLIENTS, max(2, self.seconds // 2), self.market.pids),
            "{ __typename }": lambda _: wrk(self.market.url + "/graphql", CLIENTS, max(2, self.seconds // 2), self.market.pids,
                                            body=body("{ __typename }"), expect='"__typename"')})

    def curve(self):
        """Throughput over the number of clients."""
        three = self.page_scripts(False)
        seconds = max(2, self.seconds // 2)
        for name, contenders in (
                ("submitBid", {"ours": lambda clients, number: self.ours("distinct", clients, seconds),
                               "pgbench": lambda clients, number: self.pgbench("submit", "distinct", 5 + number, clients, seconds)}),
                ("auction page", {"ours": lambda clients, number: self.page(clients, seconds),
                                  "pgbench, three SELECTs": lambda clients, number: pgbench("peer", three, clients, seconds)})):
            points = {contender: [] for contender in contenders}
            for number, clients in enumerate((1, 2, 4, 8, 16, 32, 64)):
                for contender, work in contenders.items():
                    result = work(clients, number)
                    points[contender].append({"clients": clients, **{key: result[key] for key in ("rate", "p50", "p99")}})
            self.curves[name] = points

    def latency(self):
        """A fixed rate of half the peak, and health while the peak is written."""
        peak = max(median(self.results["submitBid"]["ours"]), 1)
        rate, seconds = int(peak / 2), 4 if self.smoke else 20
        auctions, agents = (self.files[name][0].read_text().splitlines() for name in ("distinct", "agents"))
        half, health = [], []
        for number in range(self.rounds):
            first, count = self.next["ours"], rate * seconds * 20
            lines = (OURS_BID.replace("@AUCTION@", auctions[i % len(auctions)]).replace("@AGENT@", agents[i // len(auctions) % len(agents)])
                     .replace("@KEY@", f"ours-{i}") for i in range(first, first + count))
            bodies = self.file("bodies", lines)
            self.next["ours"] = first + count
            before = int(sql("ours", "SELECT COUNT(*) FROM idempotency_records")[0][0])
            result = oha(self.market.url + "/graphql", CLIENTS, seconds, rate, self.market.pids, bodies, self.owner.token)
            written = int(sql("ours", "SELECT COUNT(*) FROM idempotency_records")[0][0]) - before
            # oha picks lines at random, so that some are sent twice and answered from what is kept.
            assert result["requests"] * 0.95 < written, f"{result['requests']} answers, {written} bids"
            self.bids += written
            half.append(result)
            under = Background(lambda: self.ours("distinct", CLIENTS, seconds))
            time.sleep(0.5)
            health.append(oha(self.market.url + "/health", 4, seconds - 2, 50, []))
            under.wait()
        self.results["submitBid at half its peak"] = {"ours": half}
        self.results["/health under peak writes"] = {"ours": health}
        self.check_bids()

    def tasks(self):
        """executeTask to settlement against as many row writes in one transaction a task."""
        before = reference.writes("ours")
        done = self.settle(2 if self.smoke else 5)
        time.sleep(11)
        counted, tasks = reference.writes("ours"), done["requests"]
        script, rows = reference.make("ours", "peer", {table: {what: (counted[table][what] - before.get(table, {}).get(what, 0)) / tasks
                                                               for what in ("insert", "update")} for table in counted})
        self.facts["task_rows"] = rows
        path = self.folder / "task.sql"
        path.write_text(script)
        self.interleave("executeTask to settlement", {
            "ours": lambda _: self.settle(self.seconds),
            "pgbench": lambda number: pgbench("peer", [path], CLIENTS, self.seconds, batch=number, n=-1)})

    def settle(self, seconds):
        """Tasks from the post to the last settlement."""
        over = "SELECT COUNT(*) FILTER (WHERE status = 'COMPLETED'), COUNT(*) FILTER (WHERE finished_at IS NULL), COUNT(*) FROM tasks WHERE title = 'Load'"
        before = [int(word) for word in sql("ours", over)[0]]
        watch, began, first = Watch(self.market.pids), time.time(), self.next.setdefault("task", 0)
        text = body(TASK, i={"title": "Load", "capabilities": ["load.run-@NUMBER@"], "input": "To be, or not to be", "budget": "1", "idempotencyKey": "@KEY@"})
        result = wrk(self.market.url + "/graphql", CLIENTS, seconds, self.market.pids, body=text, mode="fixed", name="task", first=first, tokens=self.tokens,
                     expect='"task":{"id"')
        self.next["task"] = result["next"]
        until = time.monotonic() + 300
        while True:
            completed, unfinished, posted = (int(word) for word in sql("ours", over)[0])
            if not unfinished:
                break
            assert time.monotonic() < until, f"{unfinished} tasks are not over"
            # Seldom, because a session of the database costs as much as a task.
            time.sleep(0.3)
        # The last settlement is when the market says, and not when it was looked for.
        took = int(sql("ours", "SELECT MAX(finished_at) FROM tasks WHERE title = 'Load'")[0][0]) / 1e6 - began
        assert completed - before[0] == posted - before[2] >= result["requests"], f"{completed - before[0]} of {posted - before[2]} tasks were paid"
        result |= {"posted": result["rate"], "requests": completed - before[0], "rate": (completed - before[0]) / took}
        return watch.stop(result, result["loader"])

    def memory(self, operations):
        """Memory over many operations, sampled."""
        samples, done, batch = [], 0, 3 if self.smoke else 10
        while done < operations:
            done += self.ours("distinct", CLIENTS, batch)["requests"]
            samples.append((done, memory(self.market.process.pid)))
        quarter = max(1, len(samples) // 4)
        early = statistics.median(rss for _, rss in samples[quarter:2 * quarter] or samples)
        late = statistics.median(rss for _, rss in samples[-quarter:])
        self.curves["memory"] = {"ours": [{"clients": number, "rate": rss} for number, rss in samples]}
        self.facts["memory"] = {"operations": done, "first": samples[0][1], "last": samples[-1][1], "growth": late / early}
        self.check_bids()

    def sqlite(self):
        """Bids on SQLite, against a program that commits each by itself."""
        market = Market(self.folder / "sqlite")
        market.start()
        admin, payer, owner = Client(market).login(ADMIN), Client(market).user("payer"), Client(market).user("owner")
        admin.credit(payer, PAYER_CREDITS)
        count = (120, 100) if self.smoke else (400, 500)
        agents = [owner.do("registerAgent", "agent { id }", {"name": f"agent-{n}", "description": "", "capabilities": ["load.bid"], "runtime": "EXTERNAL",
                                                              "price": "1", "idempotencyKey": f"agent-{n}"})["agent"]["id"] for n in range(count[0])]
        auctions = [payer.do("executeTask", "task { auction { id } }", {"title": "Load", "capabilities": ["load.bid"], "input": "x", "budget": "5",
                                                                         "closesIn": "P29D", "visibility": "OPEN", "idempotencyKey": f"task-{n}"})["task"]["auction"]["id"]
                    for n in range(count[1])]
        market.stop()
        source = self.folder / "sqlite/data"
        database = next(path for path in source.iterdir() if path.suffix in (".db", ".sqlite", ".sqlite3"))
        copy = self.folder / "naive.db"
        with sqlite3.connect(database) as original, sqlite3.connect(copy) as other:
            original.backup(other)
        market.start()
        files = self.file("sqlite.auctions", auctions), self.file("sqlite.agents", agents), self.file("sqlite.token", [owner.token])
        state = {"next": 0, "naive": 0}

        def ours(clients):
            result = wrk(market.url + "/graphql", clients, max(2, self.seconds // 2), market.pids, body=OURS_BID, mode="distinct", name="sqlite", first=state["next"],
                         tokens=files[2], auctions=files[0], agents=files[1], expect='"status":"ACTIVE"')
            state["next"] = result["next"]
            return result

        def naive(writers):
            def go(_):
                text, loader = run(["python3", str(HERE / "naive.py"), str(copy), str(files[0]), str(files[1]), str(writers), str(max(2, self.seconds // 2)),
                                    str(state["naive"])])
                result = json.loads(text.splitlines()[-1])
                state["naive"] = result["next"]
                return result | {"cpu": {"server": 0, "postgres": 0, "loader": loader * 1e6 / max(result["requests"], 1)}, "stolen": 0}
            return go

        # Who is alone shares a commit with nobody.
        self.interleave("submitBid on SQLite", {"ours": lambda _: ours(CLIENTS), "ours, one client: a commit a bid": lambda _: ours(1),
                                                "one commit a bid, 32 writers": naive(CLIENTS), "one commit a bid, one writer": naive(1)})
        market.stop()
        market.audit()

    def growth(self, bids, tasks, agents):
        """Hot operations over a long history against none."""
        markets = {}
        for name, more in (("small", []), ("big", ["--tasks", str(tasks), "--bids", str(bids), "--events", str(min(bids, 1_000_000))])):
            sql("postgres", f"CREATE DATABASE {name}")
            market = markets[name] = Market(self.folder / name, name)
            market.start()
            payer, owner = Client(market).user("payer"), Client(market).user("owner")
            Client(market).login(ADMIN).credit(payer, PAYER_CREDITS)
            market.stop()
            took = self.seed(name, payer, owner, agents if name == "big" else BASE_AGENTS, PAGES, 4_000, *more)
            size = int(sql(name, "SELECT pg_database_size(current_database())")[0][0])
            self.facts[f"seed_{name}"] = {"seconds": took, "bytes": size}
            past = tasks if name == "big" else 0
            market.payer, market.owner = payer, owner
            market.lists = {kind: self.file(f"{name}-{kind}", [wire(prefix, numbered(number, n)) for n in numbers]) for kind, prefix, number, numbers in (
                ("pages", "auc", 3, range(past + 1, past + PAGES + 1)), ("open", "auc", 3, range(past + PAGES + 1, past + PAGES + 4_001)),
                ("agents", "agent", 1, range(1, BASE_AGENTS + 1)))}
            market.next = 0
            market.tokens = {who: self.file(f"{name}-{who}", [person.token]) for who, person in (("payer", payer), ("owner", owner))}
            # It seals the journal of the whole history and audits all of it before it is ready.
            began = time.monotonic()
            market.start(1_200)
            say(f"seeded {name} in {took:.0f} s, {size / 1e9:.1f} GB; ready {time.monotonic() - began:.0f} s after its start")
        sizes = {table: int(size) for table, size in sql("big", "SELECT relname, pg_total_relation_size(relid) FROM pg_stat_user_tables")}
        rest = sum(size for table, size in sizes.items() if table not in ("bids", "events", "agents", "agent_capabilities"))
        self.facts["row_bytes"] = {"a bid": sizes["bids"] / bids, "a line of the event log": sizes["events"] / min(bids, 1_000_000),
                                   "a task that was called off, with its auction, hold, account, transfers and entries": rest / (tasks + PAGES + 4_000)}
        seconds = max(2, self.seconds // 2)

        def bid(market):
            result = wrk(market.url + "/graphql", CLIENTS, seconds, market.pids, body=OURS_BID, mode="distinct", name="grown", first=market.next,
                         tokens=market.tokens["owner"], auctions=market.lists["open"], agents=market.lists["agents"], expect='"status":"ACTIVE"')
            market.next = result["next"]
            return result

        def ask(query, who, expect, **variables):
            return lambda market: wrk(market.url + "/graphql", CLIENTS, seconds, market.pids, body=body(query, **variables), tokens=market.tokens[who], expect=expect)

        wallet = "{ me { wallet { available inEscrow } } }"
        board = "{ leaderboard(first: 20) { agent { id name } } }"
        listed = "query($after: String) { tasks(filter: {side: REQUESTER}, first: 20, after: $after) { nodes { id status title } pageInfo { endCursor } } }"
        cursor = self.far_cursor(markets["big"], listed, min(10_000, tasks // 40))
        operations = {"submitBid": bid,
                      "auction page": lambda market: wrk(market.url + "/graphql", CLIENTS, seconds, market.pids, body=OURS_PAGE, mode="page",
                                                         auctions=market.lists["pages"], expect='"name":"seeded-'),
                      "wallet": ask(wallet, "payer", '"available"'), "leaderboard": ask(board, "owner", '"leaderboard":['),
                      "task list, page 1": ask(listed, "payer", '"nodes":[{', after=None)}
        for name, operation in operations.items():
            self.interleave(f"{name} after a history", {which: lambda _, market=market, operation=operation: operation(market) for which, market in markets.items()})
        far = ask(listed, "payer", '"nodes":[{', after=cursor)
        first = operations["task list, page 1"]
        self.interleave("task list, a far page", {"small": lambda _: first(markets["big"]), "big": lambda _: far(markets["big"])})
        for name, market in markets.items():
            market.stop()
            began = time.monotonic()
            market.audit()
            self.facts[f"audit_{name}"] = time.monotonic() - began
            sql("postgres", f"DROP DATABASE {name}")
        self.facts["growth"] = {"bids": bids, "tasks": tasks, "agents": agents}

    def far_cursor(self, market, listed, page):
        """The cursor before a page, reached as a client would, in steps of 100."""
        after = None
        for _ in range(max(1, page * 20 // 100)):
            answer = post(market.url + "/graphql", {"query": listed.replace("first: 20", "first: 100"), "variables": {"after": after}}, market.payer.token)
            after = answer["data"]["tasks"]["pageInfo"]["endCursor"]
        self.facts["far_page"] = page
        return after

    def finish(self):
        for peer in self.peers.values():
            self.facts[f"memory_{peer.name}"] = memory(peer.process.pid)
            peer.stop()
        self.facts["memory_end"] = memory(self.market.process.pid)
        self.market.stop()
        self.facts["audit"] = self.market.audit()
        say(f"the books of `ours` are clean, {self.facts['audit']} checks")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("smoke", nargs="?", choices=["smoke"])
    parser.add_argument("--only", default="submit,pages,edge,curve,latency,tasks,memory,sqlite,growth")
    parser.add_argument("--operations", type=int, help="operations over which memory is watched")
    parser.add_argument("--bids", type=int, help="bids of the history")
    parser.add_argument("--seconds", type=int, help="how long a round takes")
    parser.add_argument("--write", action="store_true", help="writes the tables into docs/performance.md too")
    given = parser.parse_args()
    only = given.only.split(",")
    out = ROOT / "target/bench"
    out.mkdir(parents=True, exist_ok=True)
    began = time.time()
    with tempfile.TemporaryDirectory(prefix="zerostate-bench-") as folder:
        suite = Suite(bool(given.smoke), folder, given.seconds)
        suite.facts |= {"program": PROGRAM.removeprefix(str(ROOT) + "/"), "settings": os.environ["BENCH_SETTINGS"], "cores": os.cpu_count(),
                        "server_settings": Market.SETTINGS, "version": run([PROGRAM, "version"])[0].split("\n")[0],
                        "database": sql("postgres", "SHOW server_version")[0][0]}
        try:
            suite.set_up()
            for part in ("submit", "pages", "edge", "curve", "latency", "tasks"):
                if part in only:
                    getattr(suite, part)()
            if "memory" in only:
                suite.memory(given.operations or (2_000 if suite.smoke else 200_000))
            suite.finish()
            if "sqlite" in only:
                suite.sqlite()
            if "growth" in only:
                bids = given.bids or (20_000 if suite.smoke else 10_000_000)
                suite.growth(bids, bids // 10, max(bids // 100, BASE_AGENTS))
        finally:
            servers = [getattr(suite, "market", None), *getattr(suite, "peers", {}).values()]
            for server in servers:
                if server and server.process and server.process.poll() is None:
                    server.process.kill()
    suite.facts["seconds"], suite.facts["stolen"] = time.time() - began, statistics.mean(suite.stolen or [0])
    told = {"smoke": suite.smoke, "facts": suite.facts, "results": suite.results, "curves": suite.curves}
    (out / "report.json").write_text(json.dumps(told, indent=1) + "\n")
    report.write(told, out)
    if given.write:
        report.into_docs(told)
    say(f"{len(suite.results)} comparisons in {suite.facts['seconds']:.0f} s; {out.relative_to(ROOT)}/report.md has them")


main()
