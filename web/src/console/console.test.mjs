// The parts of the console that are more than a picture: streams that resume, money, and links.
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';
import { transformWithOxc } from 'vite';

/** A module of the console, without its types. These modules import nothing. */
async function load(name) {
  const { code } = await transformWithOxc(readFileSync(new URL(name, import.meta.url), 'utf8'), name);
  return import(`data:text/javascript,${encodeURIComponent(code)}`);
}

const { follow } = await load('follow.ts');
const money = await load('money.ts');
const router = await load('router.ts');

/** A service whose log has so many events, and a follower of it. */
function market(options = {}) {
  const world = { opened: [], seen: [], states: [], waits: [], anew: 0, renewals: 0, sink: null };
  world.stop = follow({
    after: options.after ?? null,
    endless: options.endless ?? false,
    open(after, sink) {
      world.opened.push(after);
      world.sink = sink;
      return () => (world.closed = true);
    },
    event: (event) => world.seen.push(event.cursor),
    state: (state, fault) => world.states.push(fault ? `${state}: ${fault.message}` : state),
    anew: () => {
      world.anew += 1;
      if (options.stopsAnew) world.stop();
    },
    renew: async () => {
      world.renewals += 1;
      return options.renews ?? true;
    },
    wait: async (ms) => world.waits.push(ms),
  });
  return world;
}

const settle = () => new Promise((resolve) => setImmediate(resolve));
const say = (world, ...cursors) => cursors.forEach((cursor) => world.sink.next({ cursor }));

test('after a break a stream goes on behind the last event, and what comes again is shown once', async () => {
  const world = market({ after: 'a' });
  say(world, 'b', 'c');
  world.sink.broken({ message: 'down', again: 'wait' });
  await settle();
  assert.deepEqual(world.opened, ['a', 'c']);
  say(world, 'c', 'd');
  assert.deepEqual(world.seen, ['b', 'c', 'd']);
  assert.deepEqual(world.states, ['live', 'reconnecting: down', 'live']);
});

test('a stream that broke says nothing more, even if its socket does', async () => {
  const world = market();
  const old = world.sink;
  old.broken({ message: 'down', again: 'now' });
  await settle();
  old.next({ cursor: 'late' });
  old.broken({ message: 'again', again: 'wait' });
  await settle();
  assert.deepEqual(world.seen, []);
  assert.equal(world.opened.length, 2);
});

test('waits grow with every failure, up to ten seconds, and an event makes them short again', async () => {
  const world = market();
  for (let failure = 0; failure < 8; failure += 1) {
    world.sink.broken({ message: 'down', again: 'wait' });
    await settle();
  }
  for (const [failure, ms] of world.waits.entries()) {
    const longest = Math.min(500 * 2 ** failure, 10_000);
    assert.ok(ms >= longest / 2 && ms <= longest, `wait ${failure} was ${ms}`);
  }
  say(world, 'a');
  world.sink.broken({ message: 'down', again: 'wait' });
  await settle();
  assert.ok(world.waits.at(-1) <= 500);
});

test('a cursor that the log no longer has means loading anew, without the cursor', async () => {
  const world = market({ after: 'old' });
  world.sink.broken({ message: 'expired', again: 'anew' });
  await settle();
  assert.equal(world.anew, 1);
  assert.deepEqual(world.opened, ['old', null]);
});

test('who loads anew with a stream of their own ends this one', async () => {
  const world = market({ after: 'old', stopsAnew: true });
  world.sink.broken({ message: 'expired', again: 'anew' });
  await settle();
  assert.equal(world.anew, 1);
  assert.deepEqual(world.opened, ['old']);
});

test('a token that ended is renewed once; refused again at once it ends the stream', async () => {
  const world = market();
  world.sink.broken({ message: 'token', again: 'renew' });
  await settle();
  assert.equal(world.opened.length, 2);
  world.sink.broken({ message: 'token', again: 'renew' });
  await settle();
  assert.equal(world.renewals, 1);
  assert.equal(world.states.at(-1), 'over: token');
});

test('without a token to get, or with a fault that stays, the stream ends', async () => {
  const none = market({ renews: false });
  none.sink.broken({ message: 'token', again: 'renew' });
  const wrong = market();
  wrong.sink.broken({ message: 'not found', again: 'never' });
  await settle();
  for (const world of [none, wrong]) {
    assert.equal(world.opened.length, 1);
    assert.match(world.states.at(-1), /^over: /);
  }
});

test('what is over is over, but for the market itself', async () => {
  const task = market();
  task.sink.over();
  const all = market({ endless: true });
  say(all, 'x');
  all.sink.over();
  await settle();
  assert.equal(task.opened.length, 1);
  assert.equal(task.states.at(-1), 'over');
  assert.deepEqual(all.opened, [null, 'x']);
});

test('a follower that was stopped opens nothing', async () => {
  const world = market();
  world.sink.broken({ message: 'down', again: 'wait' });
  world.stop();
  await settle();
  assert.equal(world.opened.length, 1);
  assert.ok(world.closed);
});

test('amounts lose no digit, however large', () => {
  assert.equal(money.amount('0'), '0.00');
  assert.equal(money.amount('12.5'), '12.50');
  assert.equal(money.amount('-0.000001'), '−0.000001');
  assert.equal(money.amount('9007199254740993.123457'), '9\u202f007\u202f199\u202f254\u202f740\u202f993.123457');
  assert.equal(money.minus('9007199254740993.1', '0.000001'), '9007199254740993.099999');
  assert.equal(money.minus('1', '2.5'), '-1.5');
  assert.equal(money.sum(['0.1', '0.2', '-0.3']), '0');
  assert.throws(() => money.units('1e3'));
  assert.throws(() => money.units('0.1234567'));
});

test('a score is that of the service', () => {
  // Bids and scores of an auction that was decided.
  const auction = { budget: '3', priceWeight: '40', reputationWeight: '60' };
  assert.equal(money.score({ ...auction, price: '0.5', reputation: '46.65' }), '61.323');
  assert.equal(money.score({ ...auction, price: '1.8', reputation: '47.08' }), '44.248');
  assert.equal(money.score({ budget: '2.2', priceWeight: '5', reputationWeight: '95', price: '1.5', reputation: '42.5' }), '41.965');
});

test('durations are told in words of the right size', () => {
  assert.equal(money.milliseconds('PT0.000955S'), 0.955);
  assert.equal(money.milliseconds('P1DT2H3M4S'), 93_784_000);
  assert.ok(Number.isNaN(money.milliseconds('soon')));
  assert.deepEqual([0.955, 12.4, 4_200, 65_000, 7_260_000].map(money.span), ['0.95 ms', '12 ms', '4.2 s', '1 min 5 s', '2 h 1 min']);
});

test('a link leads back to its route', () => {
  assert.deepEqual(router.parse(''), { page: 'floor', id: '', search: {} });
  assert.equal(router.link('floor'), '#/');
  assert.deepEqual(router.parse(router.link('auction', 'auc_1')), { page: 'auction', id: 'auc_1', search: {} });
  assert.deepEqual(router.parse(router.link('tasks', '', { status: 'OPEN', side: '' })), { page: 'tasks', id: '', search: { status: 'OPEN' } });
  assert.equal(router.parse('#/task/%E0%A4%A').id, '%E0%A4%A');
  assert.equal(router.pageOf('dlg_1'), 'delegation');
  assert.equal(router.pageOf('acct_1'), undefined);
});
