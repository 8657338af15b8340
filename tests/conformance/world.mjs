// A server of its own for the checks: a fresh folder, a free port, an administrator, and what makes events happen.

import { spawn } from 'node:child_process';
import { randomUUID } from 'node:crypto';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import readline from 'node:readline';
import { fileURLToPath } from 'node:url';

export const root = path.resolve(path.dirname(fileURLToPath(import.meta.url)), '../..');
const program = process.env.ZEROSTATE_TEST_PROGRAM ?? path.join(root, 'target/debug/zerostate');
const PASSWORD = 'correct horse battery staple';
const PATIENCE = 60_000;

/** Fails after a while: nothing here may wait for ever. */
export function within(promise, what, ms = PATIENCE) {
  let timer;
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error(`${what} did not happen within ${ms} ms`)), ms);
  });
  return Promise.race([promise, late]).finally(() => clearTimeout(timer));
}

/** A running server. */
export class World {
  /** Starts one with these settings besides the defaults. */
  static async start(settings = []) {
    const folder = await mkdtemp(path.join(tmpdir(), 'zerostate-conformance-'));
    const environment = Object.fromEntries(
      Object.entries(process.env).filter(([name]) => !/^(ZEROSTATE_|DATABASE_URL$|HOST$|PORT$|RUST_LOG$)/.test(name)),
    );
    const child = spawn(program, ['serve', '--port', '0', '--log-format', 'json', '--data', folder, ...settings], {
      env: { ...environment, ZEROSTATE_ADMIN_EMAIL: 'admin@example.com', ZEROSTATE_ADMIN_PASSWORD: PASSWORD },
      stdio: ['ignore', 'ignore', 'pipe'],
    });
    const world = new World();
    world.folder = folder;
    world.child = child;
    world.log = [];
    world.ended = new Promise((resolve) => child.on('exit', (code, signal) => resolve(code ?? signal)));
    const lines = readline.createInterface({ input: child.stderr });
    const listening = new Promise((resolve, reject) => {
      lines.on('line', (line) => {
        world.log.push(line);
        if (world.log.length > 2_000) world.log.shift();
        const at = /"event":"listening".*"address":"([^"]+)"|"address":"([^"]+)".*"event":"listening"/.exec(line);
        if (at) resolve(at[1] ?? at[2]);
      });
      child.on('error', reject);
      world.ended.then((code) => reject(new Error(`the server ended with ${code}:\n${world.log.join('\n')}`)));
    });
    try {
      const address = await within(listening, 'the start of the server');
      world.url = `http://${address}/graphql`;
      world.ws = `ws://${address}/graphql/ws`;
      const { login } = await world.ask(
        'mutation($input: LoginInput!) { login(input: $input) { tokens { accessToken } } }',
        { input: { email: 'admin@example.com', password: PASSWORD } },
      );
      world.admin = login.tokens.accessToken;
      return world;
    } catch (error) {
      // Nobody else knows of this server.
      child.kill('SIGKILL');
      await rm(folder, { recursive: true, force: true });
      throw error;
    }
  }

  /** The data of an operation that has to succeed. */
  async ask(query, variables = {}, token = undefined) {
    const response = await fetch(this.url, {
      method: 'POST',
      headers: { 'content-type': 'application/json', ...(token && { authorization: `Bearer ${token}` }) },
      body: JSON.stringify({ query, variables }),
    });
    const answer = await response.json();
    if (answer.errors) throw new Error(`${query}\n${JSON.stringify(answer.errors)}`);
    return answer.data;
  }

  /** A new user, signed in. */
  async user(name) {
    const email = `${name}-${randomUUID()}@example.com`;
    const { registerUser } = await this.ask(
      `mutation($input: RegisterUserInput!) {
        registerUser(input: $input) { tokens { accessToken user { id } } userErrors { message } }
      }`,
      { input: { email, displayName: name, password: PASSWORD } },
    );
    return { token: registerUser.tokens.accessToken, id: registerUser.tokens.user.id };
  }

  /** Makes one event of the user's settlements. */
  async credit(user) {
    const key = randomUUID();
    const input = { userId: user.id, amount: '1', reference: key, idempotencyKey: key };
    const { issueCredits } = await this.ask(
      'mutation($input: IssueCreditsInput!) { issueCredits(input: $input) { userErrors { message } } }',
      { input },
      this.admin,
    );
    if (issueCredits.userErrors.length) throw new Error(JSON.stringify(issueCredits.userErrors));
  }

  /** A cursor behind which there are `count` settlements of this user, or more. */
  async behind(user, count) {
    const leave = new AbortController();
    const stream = await fetch(this.url, {
      method: 'POST',
      headers: { 'content-type': 'application/json', accept: 'text/event-stream', authorization: `Bearer ${user.token}` },
      body: JSON.stringify({ query: 'subscription { settlementEvents { id } }' }),
      signal: leave.signal,
    });
    // Nothing tells when the server has begun to listen, so there are events until one arrives.
    let heard = false;
    const making = (async () => {
      while (!heard) {
        await this.credit(user);
        await new Promise((resolve) => setTimeout(resolve, 50));
      }
    })();
    let text = '';
    let cursor;
    for await (const chunk of stream.body) {
      text += new TextDecoder().decode(chunk);
      cursor = /^id: (.+)\n/m.exec(text)?.[1];
      if (cursor) break;
    }
    heard = true;
    leave.abort();
    await making;
    if (!cursor) throw new Error(`no event came: ${text}`);
    for (let n = 0; n < count; n += 1) await this.credit(user);
    return cursor;
  }

  /** Tells the server to end, as an operator does. */
  terminate() {
    this.child.kill('SIGTERM');
  }

  /** Ends the server and removes its folder. The server must have been alive, and must end well. */
  async stop() {
    const alive = this.child.exitCode === null;
    if (alive) this.terminate();
    const code = await within(this.ended, 'the end of the server', 60_000);
    await rm(this.folder, { recursive: true, force: true });
    const panics = this.log.filter((line) => line.includes('panic'));
    if (code !== 0 || panics.length) throw new Error(`the server ended with ${code}\n${panics.join('\n')}`);
  }
}

export const SETTLEMENTS = `subscription Settlements($after: EventCursor) {
  settlementEvents(after: $after) { __typename id cursor kind }
}`;
export const RENAME = `mutation Rename($input: UpdateProfileInput!) {
  updateProfile(input: $input) { user { id displayName } userErrors { message } }
}`;
export const ME = 'query Me { me { id displayName } }';
