// An outside agent: it follows the market, bids, works and is paid.

import { randomUUID } from 'node:crypto';
import { existsSync, readFileSync, renameSync, writeFileSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { parseArgs } from 'node:util';
import type { ResultOf, TadaDocumentNode } from 'gql.tada';
import { print } from 'graphql';
import { createClient } from 'graphql-ws';
import { WebSocket } from 'ws';
import * as market from './market.js';

const { values: options } = parseArgs({
  options: {
    server: { type: 'string', default: process.env.ZEROSTATE_SERVER ?? 'http://127.0.0.1:8080' },
    email: { type: 'string', default: process.env.ZEROSTATE_EMAIL ?? '' }, // ZEROSTATE_PASSWORD is the owner's password.
    name: { type: 'string', default: 'typescript-agent' },
    capability: { type: 'string', default: 'text.summary' },
    share: { type: 'string', default: '0.7' }, // the part of a ceiling that it bids
    slow: { type: 'string', default: '0' }, // seconds that a task takes at least
    state: { type: 'string', default: 'typescript-agent.json' }, // the file for its key
  },
});
const url = `${options.server.replace(/\/$/, '')}/graphql`;
const say = (text: string) => console.log(text);

/** The market understood and said no; asking again does not help. */
class Refused extends Error {}
type Payload = { userErrors: readonly { code: string; message: string }[] };

/** A payload whose mutation was not refused. */
function taken<P extends Payload>(payload: P | null): P {
  const error = payload?.userErrors[0];
  if (!payload || error) throw new Refused(error ? `${error.code}: ${error.message}` : 'no answer');
  return payload;
}

/** Asks, and asks again while the server is away or busy: a query, or a mutation with a key. */
async function ask<R, V>(document: TadaDocumentNode<R, V>, variables: V, token?: string): Promise<R> {
  const headers = { 'content-type': 'application/json', ...(token && { authorization: `Bearer ${token}` }) };
  const body = JSON.stringify({ query: print(document), variables });
  for (let pause = 200; ; pause = Math.min(2 * pause, 3000)) {
    try {
      const response = await fetch(url, { method: 'POST', headers, body, signal: AbortSignal.timeout(40_000) });
      const answer = (await response.json()) as { data: R; errors?: { message: string; extensions?: { retryable?: boolean } }[] };
      const error = answer.errors?.[0];
      if (!error) return answer.data;
      if (!error.extensions?.retryable) throw new Refused(error.message);
    } catch (error) {
      if (error instanceof Refused) throw error;
    }
    await sleep(pause);
  }
}

const known: { agent: string; key: string; cursor?: string } = existsSync(options.state)
  ? JSON.parse(readFileSync(options.state, 'utf8')) : { agent: '', key: '' };

/** Keeps the key and the place in the log in a file that only its owner can read. */
function remember() {
  writeFileSync(`${options.state}.new`, JSON.stringify(known), { mode: 0o600 });
  renameSync(`${options.state}.new`, options.state);
}

/** Registers the owner and the agent once, and makes the key with which it works from then on. */
async function enter() {
  const { email, name, capability } = options;
  const password = process.env.ZEROSTATE_PASSWORD;
  if (!email || !password) throw new Error('Set ZEROSTATE_EMAIL and ZEROSTATE_PASSWORD for the first run: they make the account.');
  const entered = (await ask(market.registerUser, { input: { email, password, displayName: name } })).registerUser;
  const tokens = entered?.tokens ?? taken((await ask(market.login, { input: { email, password } })).login).tokens;
  const agent = { name, capabilities: [capability], runtime: 'EXTERNAL' as const, price: '1', minPrice: '0.000001' };
  const input = { ...agent, description: '', idempotencyKey: `agent-${name}` };
  const registered = taken((await ask(market.registerAgent, { input }, tokens?.accessToken)).registerAgent);
  known.agent = registered.agent!.id;
  const scopes: ('READ' | 'BIDS_WRITE' | 'WORK_WRITE')[] = ['READ', 'BIDS_WRITE', 'WORK_WRITE'];
  const key = { name, agentId: known.agent, scopes, idempotencyKey: `key-${randomUUID()}` };
  known.key = taken((await ask(market.createApiKey, { input: key }, tokens?.accessToken)).createApiKey).secret!;
  remember();
}

const micros = (credits: string) => {
  const [whole, fraction = ''] = credits.split('.');
  return BigInt(whole + fraction.padEnd(6, '0'));
};
const credits = (amount: bigint) => `${amount / 1_000_000n}.${String(amount % 1_000_000n).padStart(6, '0')}`.replace(/\.?0+$/, '');

type Auction = { id: string; status: string; capabilities: readonly string[]; maxPrice: string };

async function bid({ id, status, capabilities, maxPrice }: Auction) {
  if (status !== 'OPEN' || capabilities.some((capability) => capability !== options.capability)) return;
  const price = credits((micros(maxPrice) * micros(options.share)) / 1_000_000n);
  const input = { auctionId: id, agentId: known.agent, price, idempotencyKey: `bid-${id}` };
  const { submitBid } = await ask(market.submitBid, { input }, known.key);
  if (submitBid?.bid) say(`bid ${price} in ${id}`);
}

const streams = createClient({
  url: `${url.replace('http', 'ws')}/ws`,
  webSocketImpl: WebSocket,
  connectionParams: () => ({ authorization: `Bearer ${known.key}` }),
  retryAttempts: 0,
});

const opened = () => ({ query: print(market.auctionsOpened), variables: { after: known.cursor } });

/** Bids in each auction that opens, going on behind the last one after a break. */
async function follow() {
  for (let pause = 200; ; pause = Math.min(2 * pause, 3000)) {
    try {
      for await (const { data } of streams.iterate<ResultOf<typeof market.auctionsOpened>>(opened())) {
        if (!data) continue;
        pause = 200;
        const { marketEvents: event } = data;
        if (event.__typename === 'AuctionEvent' && event.auction) await bid(event.auction);
        known.cursor = event.cursor;
        remember();
      }
    } catch (error) {
      if (enough.aborted) return;
      say('the stream broke, trying again');
    }
    await sleep(pause);
  }
}

/** The sentences whose words are the most frequent in the text, in their order. */
function summary(text: string, sentences = 2) {
  const found = text.trim().split(/(?<=[.!?])\s+/).filter(Boolean);
  const words = (part: string) => part.toLowerCase().match(/\p{L}{4,}/gu) ?? [];
  const weight = new Map<string, number>();
  for (const word of words(text)) weight.set(word, (weight.get(word) ?? 0) + 1);
  const score = (part: string) => [...new Set(words(part))].reduce((sum, word) => sum + (weight.get(word) ?? 0), 0);
  const ranked = found.map((part, place) => ({ part, place, score: score(part) })).sort((a, b) => b.score - a.score);
  const best = ranked.slice(0, sentences).sort((a, b) => a.place - b.place);
  return { summary: best.map(({ part }) => part).join(' '), sentences: found.length, words: text.split(/\s+/).filter(Boolean).length };
}

const earned = async () => (await ask(market.earnings, { agentId: known.agent }, known.key)).agent?.earnings;

async function work(taskId: string, claims: number, price: string) {
  const claiming = { input: { taskId, idempotencyKey: `claim-${taskId}-${claims}` } };
  const { token, leasedUntil, task } = taken((await ask(market.claimTask, claiming, known.key)).claimTask).claim!;
  const done = new AbortController();
  const beating = beat(taskId, token, leasedUntil, done.signal);
  const idempotencyKey = `submit-${taskId}-${token}`;
  try {
    await sleep(Number(options.slow) * 1000);
    if (typeof task?.input === 'string') {
      const input = { taskId, token, output: summary(task.input), idempotencyKey };
      taken((await ask(market.submitResult, { input }, known.key)).submitResult);
      say(`done ${taskId} for ${price}, earned ${await earned()} in all`);
    } else {
      const input = { taskId, token, code: 'BAD_INPUT', message: 'the input is no text', idempotencyKey };
      taken((await ask(market.failTask, { input }, known.key)).failTask);
    }
  } finally {
    done.abort();
    await beating;
  }
}

/** Keeps the claim while it works. One that ended by time may still submit unless somebody else took the work up. */
async function beat(taskId: string, token: string, until: string | null | undefined, signal: AbortSignal) {
  try {
    while (until) {
      await sleep(Math.max((Date.parse(until) - Date.now()) / 3, 100), undefined, { signal });
      const { heartbeat } = await ask(market.heartbeat, { input: { taskId, token } }, known.key);
      until = heartbeat?.leasedUntil;
    }
  } catch (error) {
    if (!signal.aborted) say(`the claim of ${taskId} was not renewed: ${error}`);
  }
}

/** Takes what was won, one task after the other. */
async function serve() {
  while (!enough.aborted) {
    for (const offer of (await ask(market.workOffers, { agentId: known.agent, wait: 'PT5S' }, known.key)).workOffers ?? []) {
      if (enough.aborted) return;
      try {
        await work(offer.taskId, offer.claims, offer.price);
      } catch (error) {
        if (!(error instanceof Refused)) throw error;
        say(`${offer.taskId} is not ours: ${error.message}`);
      }
    }
  }
}

const stop = new AbortController();
const enough = stop.signal;
for (const told of ['SIGTERM', 'SIGINT']) process.once(told, () => stop.abort());
if (!known.key) await enter();
say(`agent ${known.agent} is on the market for ${options.capability}`);
const following = follow();
await Promise.race([serve(), following]);
say(`earned ${await earned()}`);
process.exit(0);
