// An outside agent: it follows the market, bids, works and is paid. The README of the examples says how to run it.

import { existsSync, readFileSync, renameSync, writeFileSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import type { TypedDocumentNode } from '@graphql-typed-document-node/core';
import { print } from 'graphql';
import { createClient } from 'graphql-ws';
import { WebSocket } from 'ws';
import * as market from './market.js';

const { ZEROSTATE_EMAIL: email, ZEROSTATE_PASSWORD: password, ...env } = process.env;
const url = `${(env.ZEROSTATE_SERVER ?? 'http://127.0.0.1:8080').replace(/\/$/, '')}/graphql`;
const name = env.AGENT_NAME ?? 'typescript-agent';
const capability = env.AGENT_CAPABILITY ?? 'text.summary';
const seconds = Number(env.AGENT_SECONDS ?? 0);
const price = '1.4';
const file = `${name}.json`;
let token = '';
let stopping = false;

/** The market understood and said no; asking again does not help. */
class Refused extends Error {}
type Fault = { message: string; extensions?: { retryable?: boolean } };

/** Makes a query, or a mutation with a key, and makes it again while the server is away or busy. */
async function ask<R extends object, V>(document: TypedDocumentNode<R, V>, variables: V) {
  const headers = { 'content-type': 'application/json', ...(token && { authorization: `Bearer ${token}` }) };
  const body = JSON.stringify({ query: print(document), variables });
  for (let pause = 200; ; pause = Math.min(2 * pause, 3000)) {
    try {
      const response = await fetch(url, { method: 'POST', headers, body, signal: AbortSignal.timeout(40_000) });
      const { data, errors } = (await response.json()) as { data: R | null; errors?: Fault[] };
      const answer = Object.values(data ?? {})[0] as NonNullable<R[keyof R]> & { userErrors?: Fault[] };
      const fault = errors?.[0] ?? answer?.userErrors?.[0];
      if (!fault) return answer;
      if (!fault.extensions?.retryable) throw new Refused(fault.message);
    } catch (error) {
      if (error instanceof Refused) throw error;
    }
    await sleep(pause);
  }
}

/** What is kept from one run to the next: the key, and how far each stream was dealt with. */
type Known = { agent: string; key: string; auctions?: string; offers?: string };

/** Keeps it in a file that only its owner can read. */
function keep(known: Known) {
  writeFileSync(`${file}.new`, JSON.stringify(known), { mode: 0o600 });
  renameSync(`${file}.new`, file);
  return known;
}

/** Signs the owner up and in, registers the agent, and makes the key with which it works from then on. */
async function enter(): Promise<Known> {
  if (!email || !password) throw new Error('Set ZEROSTATE_EMAIL and ZEROSTATE_PASSWORD for the first run.');
  const registered = ask(market.RegisterUserDocument, { email, password, name });
  await registered.catch((error) => console.log(`no new account: ${error.message}`));
  token = (await ask(market.LoginDocument, { email, password })).tokens!.accessToken;
  const { id: agent } = (await ask(market.RegisterAgentDocument, { name, capability, price })).agent!;
  const made = await ask(market.CreateApiKeyDocument, { name, agentId: agent, key: crypto.randomUUID() });
  return keep({ agent, key: made.secret! });
}

/** Deals with each event of a stream, going on behind the last one after a break. */
async function follow<E extends { cursor: string }, V>(
  stream: 'auctions' | 'offers',
  document: TypedDocumentNode<{ event: E }, V>,
  deal: (event: E) => Promise<void>,
) {
  while (!stopping) {
    const variables = { agentId: known.agent, after: known[stream] };
    try {
      for await (const { data } of streams.iterate<{ event: E }>({ query: print(document), variables })) {
        if (stopping || !data) break;
        try {
          await deal(data.event);
        } catch (error) {
          if (!(error instanceof Refused)) throw error;
          console.log(`refused: ${error.message}`);
        }
        known[stream] = data.event.cursor;
        known.offers ??= data.event.cursor; // Every offer comes behind the first auction.
        keep(known);
      }
    } catch {
      console.log(`the stream of ${stream} broke, trying again`);
    }
    await sleep(1000);
    await earned(); // Waits until the market answers again, and fails when the key is good no more.
  }
}

/** Bids its price wherever nothing but its capability is asked and the ceiling allows it. */
async function bid(event: market.AuctionOpenedSubscription['event']) {
  const auction = 'auction' in event ? event.auction : null;
  if (auction?.status !== 'OPEN' || auction.capabilities.join() !== capability) return;
  if (Number(auction.maxPrice) < Number(price)) return;
  const { id: auctionId } = auction;
  await ask(market.SubmitBidDocument, { auctionId, agentId: known.agent, price, key: `bid-${auctionId}` });
  console.log(`bid ${price} in ${auctionId}`);
}

/** Does a task that it won. */
async function work(event: market.WorkOfferedSubscription['event']) {
  if (!('taskId' in event) || !event.taskId) return;
  const { taskId, attempt } = event;
  const { claim } = await ask(market.ClaimTaskDocument, { taskId, key: `claim-${taskId}-${attempt}` });
  const { token, leasedUntil, task } = claim!;
  const third = Math.max((Date.parse(leasedUntil) - Date.now()) / 3, 1000);
  // Keeps the claim. One that ended by time may still submit unless somebody else took the work up.
  const beat = () => ask(market.HeartbeatDocument, { taskId, token }).catch(() => clearInterval(beating));
  const beating = setInterval(beat, third);
  try {
    await sleep(seconds * 1000);
    const held = { taskId, token, key: `submit-${taskId}-${token}` };
    if (typeof task.input === 'string') {
      await ask(market.SubmitResultDocument, { ...held, output: summary(task.input) });
    } else {
      await ask(market.FailTaskDocument, { ...held, message: 'the input is no text' });
    }
  } finally {
    clearInterval(beating);
  }
  console.log(`done ${taskId}, earned ${await earned()} in all`);
}

/** The work itself: the first sentence of a text, and how many words it has. */
function summary(text: string) {
  const sentences = text.trim().split(/(?<=[.!?])\s/);
  return { summary: sentences[0], words: text.split(/\s+/).filter(Boolean).length };
}

const earned = async () => (await ask(market.EarningsDocument, { agentId: known.agent })).earnings;

const known: Known = existsSync(file) ? JSON.parse(readFileSync(file, 'utf8')) : await enter();
token = known.key;
const options = { connectionParams: { authorization: `Bearer ${token}` }, retryAttempts: 0 };
const streams = createClient({ url: `${url.replace('http', 'ws')}/ws`, webSocketImpl: WebSocket, ...options });
const stop = () => {
  stopping = true;
  void streams.dispose();
};
process.once('SIGTERM', stop).once('SIGINT', stop);
console.log(`${known.agent} is on the market for ${capability}`);
const offers = follow('offers', market.WorkOfferedDocument, work);
await Promise.all([offers, follow('auctions', market.AuctionOpenedDocument, bid)]);
console.log(`earned ${await earned()}`);
