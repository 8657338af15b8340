"""An outside agent: it follows the market, bids, works and is paid. `python agent.py --help` says how to run it."""

import argparse
import asyncio
import contextlib
import json
import os
import re
import signal
import sys
from collections import Counter
from datetime import datetime, timezone
from decimal import ROUND_DOWN, Decimal

import httpx
from websockets.exceptions import WebSocketException

from market import (
    AgentRuntime, ApiScope, ClaimTaskInput, Client, CreateApiKeyInput, FailTaskInput, GraphQLClientError,
    EventKind, GraphQLClientGraphQLMultiError, GraphQLClientHttpError, HeartbeatInput, LoginInput, MarketEventFilter,
    RegisterAgentInput, RegisterUserInput, SubmitBidInput, SubmitResultInput,
)


def say(text):
    print(text, flush=True)


class Refused(Exception):
    """The market understood and said no; asking again does not help."""


def taken(payload):
    """A payload whose mutation was not refused."""
    for error in payload.user_errors:
        raise Refused(error.message)
    return payload


async def again(call, *arguments):
    """Repeats a query, or a mutation with a key, while the server is away or busy."""
    pause = 0.2
    while True:
        try:
            return await call(*arguments)
        except (httpx.TransportError, GraphQLClientHttpError, GraphQLClientGraphQLMultiError) as error:
            if isinstance(error, GraphQLClientHttpError) and error.status_code < 500 and error.status_code != 429:
                raise
            if isinstance(error, GraphQLClientGraphQLMultiError) and not error.errors[0].extensions.get("retryable"):
                raise
        await asyncio.sleep(pause)
        pause = min(2 * pause, 3)


def summary(text, sentences=2):
    """The sentences whose words are the most frequent in the text, in their order."""
    found = [sentence for sentence in re.split(r"(?<=[.!?])\s+", text.strip()) if sentence]
    words = re.findall(r"[^\W\d_]{4,}", text.lower())
    weight = Counter(words)
    score = lambda sentence: sum(weight[word] for word in set(re.findall(r"[^\W\d_]{4,}", sentence.lower())))
    best = sorted(sorted(range(len(found)), key=lambda place: -score(found[place]))[:sentences])
    return {"summary": " ".join(found[place] for place in best), "sentences": len(found), "words": len(text.split())}


class Agent:
    def __init__(self, options):
        self.options = options
        self.url = options.server.rstrip("/") + "/graphql"
        self.known = json.load(open(options.state)) if os.path.exists(options.state) else {}

    def client(self, token=None):
        bearer = {"authorization": f"Bearer {token}"} if token else {}
        http = httpx.AsyncClient(headers=bearer, timeout=40, trust_env=False)
        socket = self.url.replace("http", "ws", 1) + "/ws"
        return Client(self.url, http_client=http, ws_url=socket, ws_connection_init_payload=bearer)

    def remember(self, **more):
        """Keeps the key and the place in the log in a file that only its owner can read."""
        self.known |= more
        beside = self.options.state + ".new"
        with open(os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
            json.dump(self.known, file)
        os.replace(beside, self.options.state)

    async def enter(self):
        """Registers the owner and the agent once, and makes the key with which it works from then on."""
        if "key" not in self.known:
            email, password, name = self.options.email, os.environ["ZEROSTATE_PASSWORD"], self.options.name
            entering = RegisterUserInput(email=email, password=password, display_name=name)
            owner = (await again(self.client().register_user, entering)).register_user
            if owner.tokens is None:
                owner = taken((await again(self.client().login, LoginInput(email=email, password=password))).login)
            owner = self.client(owner.tokens.access_token)
            new = RegisterAgentInput(name=name, capabilities=[self.options.capability], runtime=AgentRuntime.EXTERNAL,
                                     price=Decimal(1), min_price=Decimal("0.000001"), idempotency_key=f"agent-{name}")
            agent = taken((await again(owner.register_agent, new)).register_agent).agent.id
            scopes = [ApiScope.READ, ApiScope.BIDS_WRITE, ApiScope.WORK_WRITE]
            new = CreateApiKeyInput(name=name, agent_id=agent, scopes=scopes, idempotency_key=f"key-{os.urandom(8).hex()}")
            self.remember(agent=agent, key=taken((await again(owner.create_api_key, new)).create_api_key).secret)
        self.market, self.id = self.client(self.known["key"]), self.known["agent"]
        say(f"agent {self.id} is on the market for {self.options.capability}")

    async def follow(self):
        """Bids in each auction that opens, going on behind the last one after a break."""
        pause, opening = 0.2, MarketEventFilter(kinds=[EventKind.AUCTION_OPENED])
        while True:
            try:
                events = self.market.market_events(after=self.known.get("cursor"), filter_=opening)
                async with contextlib.aclosing(events):
                    async for event in events:
                        pause = 0.2
                        await self.bid(event.market_events.auction)
                        self.remember(cursor=event.market_events.cursor)
            except (OSError, WebSocketException, GraphQLClientError) as error:
                say(f"the stream broke ({type(error).__name__}), trying again")
            await asyncio.sleep(pause)
            pause = min(2 * pause, 3)

    async def bid(self, auction):
        if auction is None or auction.status != "OPEN" or set(auction.capabilities) != {self.options.capability}:
            return
        price = (auction.max_price * self.options.share).quantize(Decimal("0.000001"), ROUND_DOWN)
        bid = SubmitBidInput(auction_id=auction.id, agent_id=self.id, price=price, idempotency_key=f"bid-{auction.id}")
        with contextlib.suppress(Refused):
            taken((await again(self.market.submit_bid, bid)).submit_bid)
            say(f"bid {price} in {auction.id}")

    async def serve(self):
        """Takes what was won, one task after the other."""
        while not self.enough.is_set():
            for offer in (await again(self.market.work_offers, self.id, "PT5S")).work_offers or []:
                if self.enough.is_set():
                    return
                try:
                    await self.work(offer)
                except Refused as error:
                    say(f"{offer.task_id} is not ours: {error}")

    async def work(self, offer):
        claim = ClaimTaskInput(task_id=offer.task_id, idempotency_key=f"claim-{offer.task_id}-{offer.claims}")
        claim = taken((await again(self.market.claim_task, claim)).claim_task).claim
        beating = asyncio.create_task(self.beat(offer.task_id, claim))
        names = {"task_id": offer.task_id, "token": claim.token}
        key = f"submit-{offer.task_id}-{claim.token}"
        try:
            await asyncio.sleep(self.options.slow)
            if isinstance(claim.task.input, str):
                result = SubmitResultInput(**names, output=summary(claim.task.input), idempotency_key=key)
                taken((await again(self.market.submit_result, result)).submit_result)
                say(f"done {offer.task_id} for {offer.price}, earned {await self.earned()} in all")
            else:
                fault = FailTaskInput(**names, code="BAD_INPUT", message="the input is no text", idempotency_key=key)
                taken((await again(self.market.fail_task, fault)).fail_task)
        finally:
            beating.cancel()

    async def beat(self, task, claim):
        """Keeps the claim while it works. One that ended by time may still submit unless somebody else took the work up."""
        until = claim.leased_until
        while until:
            left = (datetime.fromisoformat(until) - datetime.now(timezone.utc)).total_seconds()
            await asyncio.sleep(max(left / 3, 0.1))
            beat = HeartbeatInput(task_id=task, token=claim.token)
            until = (await again(self.market.heartbeat, beat)).heartbeat.leased_until

    async def earned(self):
        return (await again(self.market.earnings, self.id)).agent.earnings

    async def run(self):
        self.enough = asyncio.Event()
        for told in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(told, self.enough.set)
        await self.enter()
        following = asyncio.create_task(self.follow())
        serving = asyncio.create_task(self.serve())
        ended, _ = await asyncio.wait({following, serving}, return_when=asyncio.FIRST_COMPLETED)
        following.cancel()
        ended.pop().result()
        say(f"earned {await self.earned()}")


def main():
    words = argparse.ArgumentParser(description="An outside agent for a ZeroState market. ZEROSTATE_PASSWORD is its owner's.")
    words.add_argument("--server", default=os.environ.get("ZEROSTATE_SERVER", "http://127.0.0.1:8080"))
    words.add_argument("--email", default=os.environ.get("ZEROSTATE_EMAIL"), help="the owner's address")
    words.add_argument("--name", default="python-agent")
    words.add_argument("--capability", default="text.summary")
    words.add_argument("--share", type=Decimal, default=Decimal("0.7"), help="the part of a ceiling that it bids")
    words.add_argument("--slow", type=float, default=0, help="seconds that a task takes at least")
    words.add_argument("--state", default="python-agent.json", help="the file for its key")
    options = words.parse_args()
    if not os.path.exists(options.state) and not (options.email and "ZEROSTATE_PASSWORD" in os.environ):
        sys.exit("Set ZEROSTATE_EMAIL and ZEROSTATE_PASSWORD for the first run: they make the owner's account.")
    asyncio.run(Agent(options).run())


main()
