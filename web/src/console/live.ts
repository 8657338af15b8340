// The one stream of public events that every view listens to, and the clock that countdowns read.

import { computed, effect, signal } from '@preact/signals';
import { connected, ask, serviceNow, stream, tellTime } from './api';
import { EVENT, type MarketEvent } from './events';
import { graphql } from './graphql';

const MARKET = graphql(`
  subscription Market($after: EventCursor) { marketEvents(after: $after) { ...EventParts } }
`, [EVENT]);

const RECENT = graphql(`
  query RecentAuctions { serviceInfo { now instanceId } auctions(first: 6, orderBy: { field: CREATED_AT, direction: DESC }) { nodes { id } } }
`);

const WHO = graphql(`query WhoAnswers { serviceInfo { now instanceId } }`);

const OF_AUCTION = graphql(`
  query AuctionHistory($id: ID!) { events(filter: { auctionId: $id }, first: 30) { nodes { ...EventParts } } }
`, [EVENT]);

const KEPT = 80;
const BUCKET = 5_000;
const BUCKETS = 60;

export const feed = signal<readonly MarketEvent[]>([]);
export const paused = signal(false);
/** What came while the feed was paused. */
export const waiting = signal<readonly MarketEvent[]>([]);
export const received = signal(0);
export const cursor = signal('');
/** Counts the times that everything has to be loaded anew. */
export const generation = signal(0);
const standing = signal<'live' | 'reconnecting' | 'over'>('reconnecting');
export const trouble = signal('');
export const status = computed(() => (standing.value === 'live' && connected.value ? (paused.value ? 'paused' : 'live') : standing.value === 'over' ? 'off' : 'reconnecting'));

/** The service's time, which countdowns follow. */
export const now = signal(Date.now());
const calm = matchMedia('(prefers-reduced-motion: reduce)');
function tick(): void {
  if (!document.hidden) now.value = serviceNow();
  setTimeout(tick, calm.matches ? 1_000 : 250);
}

type Listener = (events: readonly MarketEvent[]) => void;
const listeners = new Set<Listener>();
export function listen(listener: Listener): () => void {
  listeners.add(listener);
  return () => listeners.delete(listener);
}

/** Bids and all events by five seconds of their own time. What happened before the page came is not counted: not all of it is known. */
let since = Number.POSITIVE_INFINITY;
const buckets = new Map<number, { bids: number; all: number }>();
export const rates = signal<readonly { at: number; bids: number; all: number }[]>([]);

function measure(events: readonly MarketEvent[]): void {
  for (const event of events) {
    const instant = Date.parse(event.occurredAt);
    if (instant < since) continue;
    const at = Math.floor(instant / BUCKET) * BUCKET;
    const bucket = buckets.get(at) ?? { bids: 0, all: 0 };
    bucket.all += 1;
    if (event.__typename === 'BidEvent') bucket.bids += 1;
    buckets.set(at, bucket);
  }
}

function draw(): void {
  // What happens while the stream is down is not known yet; it comes with its own time.
  if (!connected.value) return;
  const last = Math.floor(serviceNow() / BUCKET) * BUCKET;
  const first = Math.max(last - (BUCKETS - 1) * BUCKET, Math.ceil(since / BUCKET) * BUCKET);
  for (const at of buckets.keys()) if (at < first) buckets.delete(at);
  if (!Number.isFinite(first)) return;
  const drawn = [];
  // The bucket that still fills would look like a fall.
  for (let at = first; at < last; at += BUCKET) drawn.push({ at, bids: 0, all: 0, ...buckets.get(at) });
  rates.value = drawn;
}

let buffer: MarketEvent[] = [];
let flushing = false;

/** Takes an event; what comes within one frame is shown together. */
function take(event: MarketEvent): void {
  buffer.push(event);
  cursor.value = event.cursor;
  if (flushing) return;
  flushing = true;
  // A hidden page draws no frames, but what it shows later shall be right.
  if (document.hidden) setTimeout(flush, 500);
  else requestAnimationFrame(flush);
}

function flush(): void {
  flushing = false;
  const events = buffer;
  buffer = [];
  received.value += events.length;
  measure(events);
  show(events);
  for (const listener of listeners) listener(events);
}

function show(events: readonly MarketEvent[]): void {
  const shown = new Set(feed.value.map((event) => event.cursor));
  const newest = events.filter((event) => !shown.has(event.cursor)).reverse();
  const target = paused.value ? waiting : feed;
  target.value = [...newest, ...target.value].slice(0, KEPT);
}

export function pause(on: boolean): void {
  paused.value = on;
  if (on) return;
  feed.value = [...waiting.value, ...feed.value].slice(0, KEPT);
  waiting.value = [];
}

let instance = '';

/** Another market at the same address has another log and other tokens: the page begins anew. */
function recognise(info: { now: string; instanceId: string } | null): void {
  if (!info) return;
  tellTime(info.now);
  if (instance && instance !== info.instanceId) location.reload();
  instance = info.instanceId;
}

/** Fills the feed from the newest auctions and says behind which event to go on. */
async function recent(): Promise<string | null> {
  const { auctions, serviceInfo } = await ask(RECENT, {});
  recognise(serviceInfo);
  const histories = await Promise.all((auctions?.nodes ?? []).map(({ id }) => ask(OF_AUCTION, { id })));
  const events = histories.flatMap((history) => history.events?.nodes ?? []);
  events.sort((a, b) => a.occurredAt.localeCompare(b.occurredAt));
  feed.value = [...events].reverse().slice(0, KEPT);
  // Of several auctions at one instant it may be the earlier event; then a few come once more and are shown once.
  return events.at(-1)?.cursor ?? null;
}

async function begin(): Promise<void> {
  let after: string | null = null;
  try {
    after = await recent();
  } catch (cause) {
    trouble.value = (cause as Error).message;
    setTimeout(() => void begin(), 2_000);
    return;
  }
  since = serviceNow();
  generation.value += 1;
  const stop = stream<MarketEvent>(MARKET, {}, {
    after,
    event: take,
    anew: () => {
      stop();
      void begin();
    },
    endless: true,
    state: (state, fault) => {
      standing.value = state;
      trouble.value = state === 'live' ? '' : (fault?.message ?? '');
    },
  });
}

export function start(): void {
  tick();
  setInterval(draw, 1_000);
  effect(() => {
    // A fault of this question shows in the views; the socket stands.
    if (connected.value) ask(WHO, {}).then(({ serviceInfo }) => recognise(serviceInfo), () => undefined);
  });
  void begin();
}
