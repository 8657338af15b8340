"""Bids on SQLite without sharing commits: the same rows as the market writes, each bid a transaction that is durable before the next.

naive.py DATABASE AUCTIONS AGENTS WRITERS SECONDS FIRST prints what it did as one line of JSON."""

import json
import os
import sqlite3
import sys
import threading
import time
import uuid

ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"


def stored(text):
    bits = 0
    for letter in text.strip().split("_")[1]:
        bits = bits << 5 | ALPHABET.index(letter)
    return bits.to_bytes(16, "big")


def fresh():
    return uuid.UUID(int=(time.time_ns() // 1_000_000) << 80 | 7 << 76 | int.from_bytes(os.urandom(9), "big") & ((1 << 76) - 1)).bytes


def connect(path):
    connection = sqlite3.connect(path, timeout=60, isolation_level=None, check_same_thread=False)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute("PRAGMA foreign_keys = ON")
    return connection


def bid(connection, auction_id, agent_id, key):
    now = time.time_ns() // 1000
    connection.execute("BEGIN IMMEDIATE")
    one = lambda text, *values: connection.execute(text, values).fetchone()  # noqa: E731
    agent = one("SELECT owner_id FROM agents WHERE id = ?", agent_id)
    assert one("SELECT 1 FROM idempotency_records WHERE user_id = ? AND operation = 'submitBid' AND key = ?", agent[0], key) is None
    task, requester, seq, bids = one("SELECT task_id, requester_id, next_seq, bid_count FROM auctions WHERE id = ?", auction_id)
    one("SELECT * FROM tasks WHERE id = ?", task)
    one("SELECT * FROM reputations WHERE agent_id = ?", agent_id)
    one("SELECT * FROM bids WHERE auction_id = ? AND agent_id = ?", auction_id, agent_id)
    connection.execute("INSERT INTO bids (id, auction_id, agent_id, bidder_id, price, seq, status, created_at) VALUES (?, ?, ?, ?, 2000000, ?, 'ACTIVE', ?)",
                       (fresh(), auction_id, agent_id, agent[0], seq, now))
    connection.execute("UPDATE auctions SET next_seq = ?, bid_count = ? WHERE id = ?", (seq + 1, bids + 1, auction_id))
    connection.execute("INSERT INTO idempotency_records VALUES (?, 'submitBid', ?, ?, ?, ?)", (agent[0], key, "0" * 64, json.dumps({"done": "x" * 300}), now))
    connection.execute("INSERT INTO events (kind, auction_id, task_id, agent_id, payer_id, owner_id, actor_id, payload, occurred_at) "
                       "VALUES ('BID_SUBMITTED', ?, ?, ?, ?, ?, ?, ?, ?)",
                       (auction_id, task, agent_id, requester, agent[0], agent[0], json.dumps({"amount": 2000000, "bidCount": bids + 1}), now))
    connection.execute("COMMIT")


def main(path, auctions, agents, writers, seconds, first):
    auctions = [stored(line) for line in open(auctions)]
    agents = [stored(line) for line in open(agents)]
    lock, state, times, troubles = threading.Lock(), {"next": first}, [], []
    began = time.monotonic()

    def work():
        try:
            connection = connect(path)
            while time.monotonic() < began + seconds:
                with lock:
                    number = state["next"]
                    state["next"] += 1
                start = time.monotonic()
                bid(connection, auctions[number % len(auctions)], agents[number // len(auctions)], f"naive-{number}")
                times.append((time.monotonic() - start) * 1000)
            connection.close()
        except Exception as error:  # it ends the program below
            troubles.append(error)

    threads = [threading.Thread(target=work) for _ in range(writers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if troubles:
        raise troubles[0]
    took = time.monotonic() - began
    times.sort()
    place = lambda share: times[min(len(times) - 1, int(len(times) * share))]  # noqa: E731
    print(json.dumps({"requests": len(times), "rate": len(times) / took, "p50": place(0.5), "p90": place(0.9), "p99": place(0.99), "p999": place(0.999),
                      "wrong": 0, "next": state["next"]}))


main(*sys.argv[1:4], *(int(word) for word in sys.argv[4:]))
