"""An outside agent: it follows the market, bids, works and is paid. The README of the examples says how to run it."""

import asyncio
import contextlib
import json
import os
import re
import signal
import sys
from datetime import datetime, timezone
from decimal import Decimal
from pathlib import Path

import httpx

from market import Client, GraphQLClientGraphQLMultiError, GraphQLClientHttpError

URL = os.environ.get("ZEROSTATE_SERVER", "http://127.0.0.1:8080").rstrip("/") + "/graphql"
NAME = os.environ.get("AGENT_NAME", "python-agent")
CAPABILITY = os.environ.get("AGENT_CAPABILITY", "text.summary")
SECONDS = float(os.environ.get("AGENT_SECONDS", "0"))
PRICE = Decimal("1.4")
STATE = Path(f"{NAME}.json")


class Refused(Exception):
    """The market understood and said no; asking again does not help."""


async def ask(call, **variables):
    """Makes a query, or a mutation with a key, and makes it again while the server is away or busy."""
    pause = 0.2
    while True:
        try:
            (answer,) = dict(await call(**variables)).values()
            for error in getattr(answer, "user_errors", []):
                raise Refused(error.message)
            return answer
        except GraphQLClientGraphQLMultiError as error:
            if not error.errors[0].extensions.get("retryable"):
                raise Refused(error) from error
        except GraphQLClientHttpError as error:
            if error.status_code < 500 and error.status_code != 429:
                raise
        except httpx.TransportError:
            pass
        await asyncio.sleep(pause)
        pause = min(2 * pause, 3)


def client(token=None):
    bearer = {"authorization": f"Bearer {token}"} if token else {}
    http = httpx.AsyncClient(headers=bearer, timeout=40, trust_env=False)
    return Client(URL, http_client=http, ws_url=URL.replace("http", "ws", 1) + "/ws", ws_connection_init_payload=bearer)


def keep(known):
    """Keeps the key and the place in the log in a file that only its owner can read."""
    new = STATE.with_suffix(".new")
    with open(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
        json.dump(known, file)
    new.replace(STATE)


async def enter():
    """Signs the owner up and in, registers the agent, and makes the key with which it works from then on."""
    who = {"email": os.environ["ZEROSTATE_EMAIL"], "password": os.environ["ZEROSTATE_PASSWORD"]}
    try:
        await ask(client().register_user, name=NAME, **who)
    except Refused as error:
        print(f"no new account: {error}")
    owner = client((await ask(client().login, **who)).tokens.access_token)
    agent = (await ask(owner.register_agent, name=NAME, capability=CAPABILITY, price=PRICE)).agent.id
    made = await ask(owner.create_api_key, name=NAME, agent_id=agent, key=os.urandom(16).hex())
    known = {"agent": agent, "key": made.secret, "cursor": None}
    keep(known)
    return known


async def follow(market, known):
    """Bids in each auction that opens, going on behind the last one after a break."""
    while True:
        try:
            async for answer in market.auction_opened(after=known["cursor"]):
                await bid(market, known["agent"], answer.event.auction)
                known["cursor"] = answer.event.cursor
                keep(known)
        except Exception as error:  # Whatever it was, the next connection goes on behind the last event.
            print(f"the stream broke ({error!r}), trying again")
        await asyncio.sleep(1)


async def bid(market, agent, auction):
    """Bids its price wherever nothing but its capability is asked and the ceiling allows it."""
    if not auction or auction.status != "OPEN" or auction.capabilities != [CAPABILITY] or auction.max_price < PRICE:
        return
    try:
        await ask(market.submit_bid, auction_id=auction.id, agent_id=agent, price=PRICE, key=f"bid-{auction.id}")
        print(f"bid {PRICE} in {auction.id}")
    except Refused as error:
        print(f"no bid in {auction.id}: {error}")


async def work(market, task, claims):
    claim = (await ask(market.claim_task, task_id=task, key=f"claim-{task}-{claims}")).claim
    beating = asyncio.create_task(beat(market, task, claim))
    held = {"task_id": task, "token": claim.token, "key": f"submit-{task}-{claim.token}"}
    try:
        await asyncio.sleep(SECONDS)
        if isinstance(claim.task.input, str):
            output = await asyncio.to_thread(summary, claim.task.input)
            await ask(market.submit_result, output=output, **held)
        else:
            await ask(market.fail_task, message="the input is no text", **held)
    finally:
        beating.cancel()


async def beat(market, task, claim):
    """Keeps the claim while it works. One that ended by time may still submit unless somebody else took the work up."""
    until = claim.leased_until
    with contextlib.suppress(Refused):
        while True:
            await asyncio.sleep(max((until - datetime.now(timezone.utc)).total_seconds() / 3, 0.1))
            until = (await ask(market.heartbeat, task_id=task, token=claim.token)).leased_until


def summary(text):
    """The work itself: the first sentence of a text, and how many words it has."""
    return {"summary": re.split(r"(?<=[.!?])\s", text.strip())[0], "words": len(text.split())}


async def main():
    sys.stdout.reconfigure(line_buffering=True)
    enough = asyncio.Event()
    for told in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(told, enough.set)
    known = json.loads(STATE.read_text()) if STATE.exists() else await enter()
    market, agent = client(known["key"]), known["agent"]
    print(f"{agent} is on the market for {CAPABILITY}")
    following = asyncio.create_task(follow(market, known))
    while not enough.is_set():
        for offer in await ask(market.work_offers, agent_id=agent, wait="PT5S"):
            try:
                await work(market, offer.task_id, offer.claims)
                print(f"done {offer.task_id}, earned {(await ask(market.earnings, agent_id=agent)).earnings} in all")
            except Refused as error:
                print(f"{offer.task_id} is not ours: {error}")
    following.cancel()
    print(f"earned {(await ask(market.earnings, agent_id=agent)).earnings}")


asyncio.run(main())
