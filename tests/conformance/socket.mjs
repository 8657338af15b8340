// graphql-transport-ws frame by frame: every code with which a socket is closed.

import assert from 'node:assert/strict';
import net from 'node:net';
import { WebSocket } from 'ws';
import { SETTLEMENTS, within } from './world.mjs';

/** A socket whose frames are the check's own affair. */
class Raw {
  static async open(url, protocol = 'graphql-transport-ws', options = {}) {
    const raw = new Raw();
    raw.socket = new WebSocket(url, protocol, options);
    raw.queue = [];
    raw.waiting = [];
    const put = (frame) => (raw.waiting.length ? raw.waiting.shift()(frame) : raw.queue.push(frame));
    raw.socket.on('message', (data, binary) => put({ message: JSON.parse(data.toString()), binary }));
    raw.closed = new Promise((resolve) => {
      raw.socket.on('close', (code, reason) => {
        put({ code });
        resolve({ code, reason: reason.toString() });
      });
    });
    raw.socket.on('error', () => {});
    await within(new Promise((resolve, reject) => {
      raw.socket.once('open', resolve);
      raw.socket.once('error', reject);
    }), 'the handshake');
    return raw;
  }

  say(message) {
    this.socket.send(typeof message === 'string' || message instanceof Uint8Array ? message : JSON.stringify(message));
    return this;
  }

  async hear() {
    const frame = this.queue.shift() ?? (await within(new Promise((resolve) => this.waiting.push(resolve)), 'a frame'));
    assert.ok(frame.message, `closed with ${frame.code} instead of a message`);
    return frame.message;
  }

  async init(token) {
    this.say({ type: 'connection_init', payload: token ? { authorization: `Bearer ${token}` } : undefined });
    assert.deepEqual(await this.hear(), { type: 'connection_ack' });
    return this;
  }

  subscribe(id, query, variables) {
    return this.say({ type: 'subscribe', id, payload: { query, variables } });
  }

  async code() {
    return (await within(this.closed, 'the close')).code;
  }
}

/** `world` has short patience: see run.mjs. */
export async function closeCodes(world) {
  const user = await world.user('raw');
  const seen = new Set();
  const expect = async (code, what, raw) => {
    assert.equal(await raw.code(), code, what);
    const { reason } = await raw.closed;
    assert.ok(reason.length > 0 && Buffer.byteLength(reason) <= 123, `${what}: "${reason}"`);
    seen.add(code);
  };
  const open = () => Raw.open(world.ws);

  for (const message of ['no JSON', '[]', '"x"', {}, { type: 'start', id: '1' }, { type: 'subscribe', id: '1' },
    { type: 'connection_init', payload: 'x' }, { type: 'subscribe', id: '', payload: { query: '{ __typename }' } }]) {
    const raw = await open();
    if (message?.id === '') await raw.init();
    await expect(4400, JSON.stringify(message), raw.say(message));
  }
  await expect(4400, 'a binary message', (await open()).say(new Uint8Array([1, 2, 3])));
  await expect(4401, 'subscribe before the acknowledgement', (await open()).subscribe('1', '{ __typename }'));
  for (const authorization of ['Bearer wrong', 1]) {
    const raw = (await open()).say({ type: 'connection_init', payload: { authorization } });
    await expect(4403, `a token that is none: ${authorization}`, raw);
  }
  const other = await world.user('other');
  const renewed = await (await open()).init(user.token);
  await expect(4403, 'a renewal by somebody else', renewed.say({ type: 'ping', payload: { authorization: other.token } }));
  await expect(4406, 'another sub-protocol', await withoutProtocol(world.ws));
  await expect(4408, 'no connection_init', await open());
  const twice = await (await open()).init(user.token);
  twice.subscribe('1', SETTLEMENTS).subscribe('1', SETTLEMENTS);
  await expect(4409, 'two operations with one id', twice);
  await expect(4429, 'a second connection_init', (await (await open()).init()).say({ type: 'connection_init' }));
  const large = await (await open()).init();
  await expect(1009, 'a large message', large.subscribe('1', `{ __typename } # ${'x'.repeat(20_000)}`));
  await expect(4499, 'no sign of life', await (await Raw.open(world.ws, undefined, { autoPong: false })).init());

  // Two sockets are allowed to one caller here; the one that closes makes room.
  const [first, second] = [await (await open()).init(other.token), await (await open()).init(other.token)];
  const third = (await open()).say({ type: 'connection_init', payload: { authorization: other.token } });
  await expect(1013, 'a third socket of one caller', third);
  first.socket.close(1000);
  await first.closed;
  for (let tries = 0; ; tries += 1) {
    const raw = (await open()).say({ type: 'connection_init', payload: { authorization: other.token } });
    if ((await Promise.race([raw.hear().catch(() => null), raw.closed]))?.type === 'connection_ack') {
      raw.socket.close(1000);
      break;
    }
    assert.ok(tries < 50, 'a socket that was closed makes no room');
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
  second.socket.close(1000);

  const limited = await (await open()).init(user.token);
  for (const id of ['1', '2', '3']) limited.subscribe(id, SETTLEMENTS);
  const refused = await limited.hear();
  assert.equal(refused.type, 'error');
  assert.equal(refused.id, '3');
  assert.equal(refused.payload[0].extensions.code, 'QUERY_LIMIT_EXCEEDED');
  limited.say({ type: 'complete', id: '1' }).subscribe('3', '{ __typename }');
  assert.equal((await limited.hear()).payload.data.__typename, 'Query');
  assert.deepEqual(await limited.hear(), { type: 'complete', id: '3' });

  // Signing out ends what the socket may do, at the next look at its credentials.
  await world.ask('mutation { logout { __typename } }', {}, user.token);
  await expect(4401, 'a token that was revoked', limited);

  const last = await (await open()).init();
  const stream = await fetch(world.url, {
    method: 'POST',
    headers: { 'content-type': 'application/json', accept: 'text/event-stream' },
    body: JSON.stringify({ query: 'subscription { marketEvents { id } }' }),
  });
  const text = stream.text();
  world.terminate();
  await expect(1012, 'the shutdown', last);
  assert.ok(!(await within(text, 'the end of the stream')).includes('complete'), 'a shutdown is not the end of a stream');
  return [...seen].sort((a, b) => a - b).join(' ');
}

/** A handshake without a sub-protocol, which `ws` itself refuses to go on with. */
async function withoutProtocol(url) {
  const { hostname, port } = new URL(url);
  const socket = net.connect(Number(port), hostname);
  socket.write(`GET /graphql/ws HTTP/1.1\r\nhost: ${hostname}:${port}\r\nupgrade: websocket\r\nconnection: upgrade\r\n`
    + 'sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\nsec-websocket-version: 13\r\n\r\n');
  const chunks = [];
  socket.on('data', (chunk) => chunks.push(chunk));
  const closed = new Promise((resolve, reject) => {
    socket.on('error', reject);
    socket.on('close', () => {
      const all = Buffer.concat(chunks);
      const frame = all.subarray(all.indexOf('\r\n\r\n') + 4);
      assert.equal(frame[0], 0x88, 'a close frame');
      resolve({ code: frame.readUInt16BE(2), reason: frame.subarray(4, 2 + (frame[1] & 0x7f)).toString() });
    });
  });
  return { closed, code: async () => (await within(closed, 'the close')).code };
}
