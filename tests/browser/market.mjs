// A market of its own for the checks: `zerostate demo` in a fresh folder, with sample agents that bid and work.

import { spawn } from 'node:child_process';
import { mkdtemp, rm } from 'node:fs/promises';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { fileURLToPath } from 'node:url';

export const root = path.resolve(path.dirname(fileURLToPath(import.meta.url)), '../..');
const program = process.env.ZEROSTATE_TEST_PROGRAM ?? path.join(root, 'target/debug/zerostate');
const PATIENCE = 60_000;

/** Fails after a while: nothing here may wait for ever. */
export function within(promise, what, ms = PATIENCE) {
  let timer;
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error(`${what} did not happen within ${ms} ms`)), ms);
  });
  return Promise.race([promise, late]).finally(() => clearTimeout(timer));
}

async function freePort() {
  const server = createServer();
  await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve));
  const { port } = server.address();
  await new Promise((resolve) => server.close(resolve));
  return port;
}

export class Market {
  /** Starts one; `settings` stand in its environment. */
  static async start(settings = {}) {
    const market = new Market();
    market.folder = await mkdtemp(path.join(tmpdir(), 'zerostate-browser-'));
    market.port = await freePort();
    market.settings = settings;
    await market.run();
    return market;
  }

  get url() {
    return `http://127.0.0.1:${this.port}/`;
  }

  /** Starts the process, for the first time or again, on the same port and the same data. */
  async run() {
    const environment = Object.fromEntries(
      Object.entries(process.env).filter(([name]) => !/^(ZEROSTATE_|DATABASE_URL$|HOST$|PORT$|RUST_LOG$)/.test(name)),
    );
    this.child = spawn(program, ['demo', '--port', String(this.port), '--keep', this.folder, '--speed', '1'], {
      env: { ...environment, ...this.settings },
      stdio: ['ignore', 'pipe', 'pipe'],
    });
    this.log = '';
    this.ended = new Promise((resolve) => this.child.on('exit', (code, signal) => resolve(code ?? signal)));
    const ready = new Promise((resolve, reject) => {
      const hear = (chunk) => {
        this.log += chunk;
        const person = (role) => new RegExp(`(\\S+@\\S+) / (\\S+) \\(${role}\\)`).exec(this.log);
        const [client, admin] = [person('client'), person('administrator')];
        if (client && admin && this.log.includes('Ctrl-C stops')) {
          this.client = { email: client[1], password: client[2] };
          this.admin = { email: admin[1], password: admin[2] };
          resolve();
        }
      };
      this.child.stdout.on('data', hear);
      this.child.stderr.on('data', hear);
      this.child.on('error', reject);
      this.ended.then((code) => reject(new Error(`the service ended with ${code}:\n${this.log}`)));
    });
    try {
      await within(ready, 'the start of the service');
    } catch (error) {
      // Nobody else knows of this process.
      this.child.kill('SIGKILL');
      await rm(this.folder, { recursive: true, force: true });
      throw error;
    }
  }

  /** The answer to an operation, errors and all. */
  async answer(query, variables = {}, token = undefined) {
    const response = await fetch(new URL('graphql', this.url), {
      method: 'POST',
      headers: { 'content-type': 'application/json', ...(token && { authorization: `Bearer ${token}` }) },
      body: JSON.stringify({ query, variables }),
    });
    return response.json();
  }

  /** The data of an operation that has to succeed. */
  async ask(query, variables = {}, token = undefined) {
    const answer = await this.answer(query, variables, token);
    if (answer.errors) throw new Error(`${query}\n${JSON.stringify(answer.errors)}`);
    return answer.data;
  }

  async token(person) {
    const { login } = await this.ask(
      'mutation($input: LoginInput!) { login(input: $input) { tokens { accessToken } } }',
      { input: person },
    );
    return login.tokens.accessToken;
  }

  /** Ends the process as a failing machine does. */
  async kill() {
    this.child.kill('SIGKILL');
    await within(this.ended, 'the death of the service');
  }

  /** Ends the service and removes its folder. It must have been alive, and must end well. */
  async stop() {
    const alive = this.child.exitCode === null;
    this.child.kill('SIGTERM');
    const code = await within(this.ended, 'the end of the service');
    await rm(this.folder, { recursive: true, force: true });
    const panics = this.log.split('\n').filter((line) => line.includes('panic'));
    if (!alive || code !== 0 || panics.length) throw new Error(`the service ended with ${code}\n${panics.join('\n')}`);
  }
}
