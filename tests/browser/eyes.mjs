// A browser that sees what goes wrong on a page: messages of the console, requests that fail, requests to anybody else, what is
// not accessible.

import { mkdirSync, readFileSync, rmSync } from 'node:fs';
import { createRequire } from 'node:module';
import path from 'node:path';
import { chromium } from 'playwright-core';
import { root } from './market.mjs';

const AXE = readFileSync(createRequire(import.meta.url).resolve('axe-core/axe.min.js'), 'utf8');
const SHOTS = path.join(root, 'target/browser');
const PATIENCE = 20_000;

/** Every name is unknown to this browser but the one address of the service: what works here works offline. */
export function launch() {
  rmSync(SHOTS, { recursive: true, force: true });
  mkdirSync(SHOTS, { recursive: true });
  return chromium.launch({
    executablePath: process.env.CHROMIUM ?? '/usr/bin/chromium',
    args: [
      '--disable-dev-shm-usage',
      '--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1',
      ...(process.getuid?.() === 0 ? ['--no-sandbox'] : []),
    ],
  });
}

/** A page in a context of its own, and what went wrong on it. */
export class Eyes {
  static async open(browser, options = {}) {
    const eyes = new Eyes();
    eyes.context = await browser.newContext({ viewport: { width: 1280, height: 800 }, ...options });
    eyes.page = await eyes.context.newPage();
    eyes.page.setDefaultTimeout(PATIENCE);
    eyes.faults = [];
    eyes.requests = [];
    eyes.sockets = [];
    /** While the service is down on purpose, that it does not answer is no fault. */
    eyes.forgiving = false;
    const fault = (text) => {
      if (!eyes.forgiving) eyes.faults.push(text);
    };
    eyes.page.on('console', (message) => {
      if (['error', 'warning'].includes(message.type())) fault(`console ${message.type()}: ${message.text()}`);
    });
    eyes.page.on('pageerror', (error) => fault(`uncaught: ${error.name} ${error.message} ${error.stack} ${JSON.stringify(error)}`));
    eyes.page.on('request', (request) => {
      eyes.requests.push(request.url());
      if (!/^(http:\/\/127\.0\.0\.1[:/]|data:|blob:http:\/\/127\.0\.0\.1[:/])/.test(request.url())) {
        eyes.faults.push(`a request to ${request.url()}`);
      }
    });
    eyes.page.on('requestfailed', (request) => {
      // What a page gives up by itself, as when one follows a link, is not what failed.
      const why = request.failure()?.errorText;
      if (why !== 'net::ERR_ABORTED') fault(`${why}: ${request.url()}`);
    });
    eyes.page.on('response', (response) => {
      if (response.status() >= 400) fault(`${response.status()}: ${response.url()}`);
    });
    eyes.page.on('websocket', (socket) => {
      const talk = { url: socket.url(), sent: [], heard: [] };
      eyes.sockets.push(talk);
      socket.on('framesent', ({ payload }) => talk.sent.push(String(payload)));
      socket.on('framereceived', ({ payload }) => talk.heard.push(String(payload)));
      if (!/^ws:\/\/127\.0\.0\.1[:/]/.test(socket.url())) eyes.faults.push(`a socket to ${socket.url()}`);
    });
    return eyes;
  }

  /** Keeps a picture of the page for people to look at. */
  async shot(name, options = {}) {
    await this.page.screenshot({ path: path.join(SHOTS, `${name}.png`), ...options });
  }

  /** Whether everybody can use the page, or the part of it that `within` selects; small matters are let pass. */
  async axe(where, within = undefined) {
    await this.page.evaluate(AXE);
    const { violations, passes } = await this.page.evaluate(
      (part) => globalThis.axe.run(part ?? document, { resultTypes: ['violations'] }),
      within,
    );
    if (!passes.length) throw new Error(`axe found nothing to look at on ${where}`);
    const grave = violations.filter(({ impact }) => ['serious', 'critical'].includes(impact));
    const told = grave.map(({ id, impact, help, nodes }) =>
      `${id} (${impact}): ${help}\n${nodes.slice(0, 4).map((node) => `    ${node.html.slice(0, 200)}\n    ${node.failureSummary?.replace(/\n\s*/g, ' ')}`).join('\n')}`);
    if (told.length) throw new Error(`axe on ${where}:\n  ${told.join('\n  ')}`);
  }

  /** Everything that was stored in the browser, as text. */
  stored() {
    return this.page.evaluate(() => JSON.stringify([{ ...localStorage }, { ...sessionStorage }, document.cookie]));
  }

  /** Closes the page; fails for all that went wrong on it. */
  async close() {
    const { faults } = this;
    await this.context.close();
    if (faults.length) throw new Error(`on the page:\n  ${[...new Set(faults)].join('\n  ')}`);
  }

  /** Does `work` on a page of its own and looks afterwards at what went wrong. A failure leaves a picture. */
  static async on(browser, name, work, options = {}) {
    const eyes = await Eyes.open(browser, options);
    try {
      await work(eyes, eyes.page);
    } catch (error) {
      await eyes.shot(`failed-${name}`).catch(() => {});
      const { faults } = eyes;
      await eyes.context.close();
      throw new Error(`${error.stack ?? error}\n  ${[...new Set(faults)].join('\n  ')}`);
    }
    await eyes.close();
  }
}
