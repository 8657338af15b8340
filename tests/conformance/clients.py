"""gql for Python as its users have it: a query, a mutation and a subscription, over HTTP and over WebSocket."""

import asyncio
import json
import sys

from gql import Client, gql
from gql.transport.aiohttp import AIOHTTPTransport
from gql.transport.exceptions import TransportQueryError
from gql.transport.websockets import WebsocketsTransport

EVENTS = 3


async def by_http(given):
    transport = AIOHTTPTransport(url=given["url"], headers={"authorization": given["authorization"]})
    async with Client(transport=transport, fetch_schema_from_transport=True) as session:
        answer = await session.execute(gql(given["me"]))
        assert answer["me"]["id"] == given["user"], answer
        rename = gql(given["rename"])
        rename.variable_values = {"input": {"displayName": "Python"}}
        answer = await session.execute(rename)
        assert answer["updateProfile"]["user"]["displayName"] == "Python", answer
    async with Client(transport=AIOHTTPTransport(url=given["url"])) as session:
        try:
            await session.execute(gql("{ noSuchField }"))
        except TransportQueryError as error:
            assert error.errors[0]["extensions"]["code"] == "GRAPHQL_VALIDATION_FAILED", error.errors
        else:
            raise AssertionError("a wrong query was executed")


async def by_socket(given):
    transport = WebsocketsTransport(
        url=given["ws"],
        init_payload={"authorization": given["authorization"]},
        subprotocols=[WebsocketsTransport.GRAPHQLWS_SUBPROTOCOL],
        ping_interval=1,
        pong_timeout=5,
    )
    async with Client(transport=transport) as session:
        answer = await session.execute(gql(given["me"]))
        assert answer["me"]["id"] == given["user"], answer
        settlements = gql(given["settlements"])
        settlements.variable_values = {"after": given["after"]}
        cursors = []
        async for event in session.subscribe(settlements):
            cursors.append(event["settlementEvents"]["cursor"])
            if len(cursors) == EVENTS:
                break
        assert len(set(cursors)) == EVENTS, cursors


async def main():
    given = json.load(sys.stdin)
    await asyncio.wait_for(by_http(given), 30)
    await asyncio.wait_for(by_socket(given), 30)
    print("query, mutation, subscription")


asyncio.run(main())
