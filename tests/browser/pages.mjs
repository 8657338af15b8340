// GraphiQL, the small page and what stands around them.

import { readFileSync, readdirSync } from 'node:fs';
import http from 'node:http';
import net from 'node:net';
import path from 'node:path';
import { buildSchema, parse, validate } from '../../web/node_modules/graphql/index.mjs';
import { live } from './console.mjs';
import { Eyes } from './eyes.mjs';
import { Market, root } from './market.mjs';

/** Fails unless all of it is as expected. */
function check(condition, what) {
  if (!condition) throw new Error(what);
}

const examples = path.join(root, 'web/src/graphiql/examples');

/** The worked operations fit the schema, and the service takes each. */
export async function exampleOperations({ market }) {
  const schema = buildSchema(readFileSync(path.join(root, 'schema.graphql'), 'utf8'), { assumeValidSDL: true });
  const files = readdirSync(examples).filter((name) => name.endsWith('.graphql')).sort();
  check(files.length >= 8, `there are only ${files.length} examples`);
  const token = await market.token(market.client);
  const ids = {};
  for (const name of files) {
    const query = readFileSync(path.join(examples, name), 'utf8');
    const errors = validate(schema, parse(query));
    check(errors.length === 0, `${name}: ${errors.map(({ message }) => message).join('; ')}`);
    const file = readdirSync(examples).find((other) => other === name.replace(/graphql$/, 'json'));
    const text = file ? readFileSync(path.join(examples, file), 'utf8') : '{}';
    const variables = JSON.parse(text.replace(/\{\{(\w+)\}\}/g, (_, of) => (of === 'key' ? `${name}-${Date.now()}` : ids[of])));
    if (/^subscription/m.test(query)) continue;
    const { data, errors: refused } = await market.answer(query, variables, token);
    check(!refused, `${name}: ${JSON.stringify(refused)}`);
    for (const [field, payload] of Object.entries(data)) {
      check(!payload?.userErrors?.length, `${name}: ${field} was refused: ${JSON.stringify(payload?.userErrors)}`);
      if (payload?.task) ids.task = payload.task.id;
      if (payload?.delegation) ids.delegation = payload.delegation.id;
    }
  }
  return `${files.length} fit the schema and are answered`;
}

async function run(page) {
  await page.locator('.graphiql-execute-button').click();
}

/** Waits until the answer contains a text. The editor shows only what fits, so its model is asked. */
async function answered(page, text) {
  const shown = page.locator('.result-window .view-lines');
  await page.waitForFunction(
    (wanted) => [...document.querySelectorAll('.result-window .view-line')].some((line) => line.textContent.replace(/\u00a0/g, ' ').includes(wanted)),
    text,
  ).catch(async () => {
    throw new Error(`the answer has no ${text}:\n${await shown.innerText()}`);
  });
}

async function ready(page) {
  await page.locator('.graphiql-query-editor .monaco-editor .view-line').first().waitFor();
}

async function signInto(page, { email, password }) {
  await page.getByRole('button', { name: 'Sign in', exact: true }).click();
  const dialog = page.getByRole('dialog');
  await dialog.getByLabel('E-mail').fill(email);
  await dialog.getByLabel('Password').fill(password);
  await dialog.getByRole('button', { name: 'Sign in', exact: true }).click();
  await page.getByText('Signed in as').waitFor();
}

/** Queries, completes, signs in, posts, follows; and what the browser keeps of it. */
export async function graphiql({ browser, market }) {
  let took;
  await Eyes.on(browser, 'graphiql', async (eyes, page) => {
    const started = Date.now();
    await page.goto(new URL('graphiql', market.url).href);
    await ready(page);
    took = Date.now() - started;
    check(await page.title() === 'GraphiQL · ZeroState', await page.title());
    await page.getByText('Not signed in').waitFor();
    await run(page);
    await answered(page, '"auctions"');
    await eyes.shot('graphiql');

    // The worker knows the schema.
    await page.getByRole('button', { name: 'New tab' }).click();
    await page.locator('.graphiql-query-editor .monaco-editor').click();
    await page.keyboard.type('query { lead', { delay: 30 });
    await page.keyboard.press('Control+Space');
    await page.locator('.suggest-widget').getByText('leaderboard').first().waitFor();
    await eyes.shot('graphiql-completes');
    await page.keyboard.press('Escape');
    const workers = page.workers().map((worker) => worker.url());
    for (const name of ['graphql.worker', 'editor.worker', 'json.worker']) {
      check(workers.some((url) => url.startsWith(market.url) && url.includes(name)), `no ${name} among ${workers}`);
    }
    check(!eyes.requests.some((url) => url.includes('IntrospectionQuery')), 'the schema was asked for');

    // Who does not know the password is told so, and stays.
    await page.getByRole('button', { name: 'Sign in', exact: true }).click();
    await page.getByRole('dialog').getByLabel('E-mail').fill(market.client.email);
    await page.getByRole('dialog').getByLabel('Password').fill('not the password');
    await page.getByRole('dialog').getByRole('button', { name: 'Sign in', exact: true }).click();
    await page.getByRole('alert').filter({ hasText: /\w/ }).waitFor();
    await eyes.shot('graphiql-sign-in');
    await page.getByRole('dialog').getByRole('button', { name: 'Close' }).click();
    await signInto(page, market.client);

    await page.getByRole('button', { name: 'Wallet', exact: true }).click();
    await run(page);
    await answered(page, '"available"');

    // A task is posted, and followed over our socket until its money is where it belongs.
    await page.getByRole('button', { name: 'Execute a task', exact: true }).click();
    await run(page);
    await answered(page, '"userErrors": []');
    await page.getByRole('button', { name: 'Follow a task', exact: true }).click();
    await run(page);
    const heard = () => eyes.sockets.flatMap((socket) => socket.heard).join('\n');
    for (const until = Date.now() + 45_000; !/TASK_COMPLETED/.test(heard()) || !/CHANNEL_CLOSED/.test(heard());) {
      check(Date.now() < until, `the task was not followed to its end:\n${heard().slice(-2_000)}`);
      await page.waitForTimeout(100);
    }
    await eyes.shot('graphiql-follows');
    const [socket] = eyes.sockets;
    check(socket.url === new URL('graphql/ws', market.url).href.replace('http', 'ws'), socket.url);
    const init = socket.sent.find((text) => text.includes('connection_init'));
    check(/"authorization":"Bearer ey/.test(init), 'the token is not in connection_init');

    // Nothing of it is left in the browser, nor what one types into the headers.
    await page.getByRole('button', { name: 'New tab' }).click();
    await page.locator('.graphiql-query-editor .monaco-editor').click();
    await page.keyboard.insertText('{ rateLimit { remaining } }');
    await page.getByRole('button', { name: 'Headers' }).click();
    await page.locator('.graphiql-editor-tool .monaco-editor').last().click();
    await page.keyboard.insertText('{ "x-request-id": "hush-hush" }');
    await run(page);
    await answered(page, '"remaining"');
    // GraphiQL stores a while after one has typed.
    await page.waitForTimeout(1_000);
    const stored = await eyes.stored();
    check(stored.includes('rateLimit'), `operations are not kept: ${stored}`);
    for (const secret of ['eyJ', 'hush-hush', market.client.password]) {
      check(!stored.includes(secret), `the browser keeps ${secret}: ${stored}`);
    }
    await page.getByRole('button', { name: 'Sign out' }).click();
    await page.getByText('Not signed in').waitFor();

    // Links of the console open in a tab.
    const query = 'query Linked($first: Int! = 3) { leaderboard(first: $first) { rank } }';
    const hash = `#query=${encodeURIComponent(query)}&variables=${encodeURIComponent('{ "first": 2 }')}`;
    await page.goto('about:blank');
    await page.goto(new URL(`graphiql${hash}`, market.url).href);
    await ready(page);
    await page.getByRole('tab', { name: 'Linked' }).waitFor();
    await run(page);
    await answered(page, '"rank": 2');
  });
  return `ready in ${took} ms`;
}

/** The page of every build: asks, follows, signs in. */
export async function smallPage({ browser, market }) {
  await Eyes.on(browser, 'lite', async (eyes, page) => {
    await page.goto(new URL('lite', market.url).href);
    await page.getByRole('button', { name: /^Run/ }).click();
    await page.locator('#answer').filter({ hasText: 'openAuctions' }).waitFor();
    await page.getByLabel('E-mail').fill(market.client.email);
    await page.getByLabel('Password').fill(market.client.password);
    await page.getByRole('button', { name: 'Sign in' }).click();
    await page.getByText('Signed in as').waitFor();
    await page.getByLabel('Example').selectOption('My wallet');
    await page.getByRole('button', { name: /^Run/ }).click();
    await page.locator('#answer').filter({ hasText: 'inEscrow' }).waitFor();
    await page.getByLabel('Example').selectOption('Post a task');
    await page.getByRole('button', { name: /^Run/ }).click();
    await page.locator('#answer').filter({ hasText: 'task_' }).waitFor();
    await page.getByLabel('Example').selectOption('Follow the market');
    await page.getByRole('button', { name: /^Run/ }).click();
    await page.getByText(/Following; [1-9]/).waitFor({ timeout: 40_000 });
    await eyes.shot('lite-follows');
    await page.getByRole('button', { name: 'Stop' }).click();
    await page.getByText(/Stopped after/).waitFor();
    check(!(await eyes.stored()).includes('eyJ'), 'the token is stored');
  });
  return 'asks, posts, follows';
}

/** What answers of the built files say, to clients of both kinds. */
export async function assets({ market }) {
  const page = await fetch(new URL('graphiql', market.url), { headers: { 'accept-encoding': 'gzip' } });
  const names = [...(await page.text()).matchAll(/(?:src|href)="\.\/(assets\/[^"]+)"/g)].map(([, name]) => name);
  check(names.length >= 3, `GraphiQL consists of ${names}`);
  check(page.headers.get('cache-control') === 'no-cache', page.headers.get('cache-control'));
  const known = await fetch(page.url, { headers: { 'accept-encoding': 'gzip', 'if-none-match': page.headers.get('etag') } });
  check(known.status === 304, `a known page is answered with ${known.status}`);
  for (const name of names) {
    const at = new URL(name, market.url);
    const [packed, plain] = await Promise.all(
      ['gzip', 'identity'].map((coding) => fetch(at, { headers: { 'accept-encoding': coding } })),
    );
    check(packed.headers.get('content-encoding') === 'gzip', `${name} is not compressed`);
    check(plain.headers.get('content-encoding') === null, `${name} is compressed for who does not take that`);
    check((await packed.text()) === (await plain.text()), `${name} differs`);
    check(packed.headers.get('cache-control').includes('immutable'), `${name} is not kept`);
  }
  const missing = await fetch(new URL('assets/none.js', market.url));
  check(missing.status === 404, `an unknown file is answered with ${missing.status}`);
  const licences = await (await fetch(new URL('licences.md', market.url))).text();
  for (const name of ['monaco-editor', 'graphql', 'react', 'preact']) {
    check(licences.includes(name), `the licences do not name ${name}`);
  }
  return `${names.length} files of GraphiQL, compressed and plain, kept for ever; licences of ${licences.split('\n## ').length - 1} packages`;
}

/** A proxy that passes on what is below a path, as it is, and nothing else. */
async function proxy(base, port) {
  const other = [];
  const server = http.createServer((request, response) => {
    if (!request.url.startsWith(base)) {
      other.push(request.url);
      response.writeHead(404).end();
      return;
    }
    const passed = http.request({ host: '127.0.0.1', port: port(), path: request.url, method: request.method, headers: request.headers }, (answer) => {
      response.writeHead(answer.statusCode, answer.headers);
      answer.pipe(response);
    });
    passed.on('error', () => response.destroy());
    response.on('close', () => passed.destroy());
    request.pipe(passed);
  });
  server.on('upgrade', (request, client, head) => {
    if (!request.url.startsWith(base)) {
      other.push(request.url);
      client.destroy();
      return;
    }
    const service = net.connect(port(), '127.0.0.1', () => {
      const headers = Object.entries(request.headers).map(([name, value]) => `${name}: ${value}\r\n`).join('');
      service.write(`${request.method} ${request.url} HTTP/1.1\r\n${headers}\r\n`);
      service.write(head);
      service.pipe(client).pipe(service);
    });
    for (const [one, two] of [[service, client], [client, service]]) one.on('error', () => two.destroy());
  });
  await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve));
  return { server, other, url: `http://127.0.0.1:${server.address().port}${base}` };
}

/** Both pages work below a path of a proxy. */
export async function belowAPath({ browser }) {
  let port;
  const before = await proxy('/market', () => port);
  const market = await Market.start({ PUBLIC_URL: before.url });
  try {
    port = market.port;
    await Eyes.on(browser, 'below-a-path', async (eyes, page) => {
      await page.goto(before.url);
      check(page.url() === `${before.url}/`, `the page stands at ${page.url()}`);
      await live(page);
      await eyes.shot('below-a-path');
      await page.goto(`${before.url}/graphiql`);
      await ready(page);
      await run(page);
      await answered(page, '"auctions"');
      // Faster than GraphiQL looks at what stands in its editor: run nevertheless as what it is.
      await page.getByRole('button', { name: 'Follow the market', exact: true }).evaluate((button) => {
        button.click();
        document.querySelector('.graphiql-execute-button').click();
      });
      const heard = () => eyes.sockets.some(({ url, heard }) => url.includes('/market/graphql/ws') && heard.some((text) => text.includes('"next"')));
      for (const until = Date.now() + 40_000; !heard();) {
        check(Date.now() < until, 'no event came through the proxy');
        await page.waitForTimeout(100);
      }
      await page.getByRole('link', { name: 'Console' }).click();
      await live(page);
      check(page.url().startsWith(`${before.url}/`), `the link leads to ${page.url()}`);
    });
    check(before.other.length === 0, `asked for outside the path: ${before.other}`);
  } finally {
    before.server.closeAllConnections();
    before.server.close();
    await market.stop();
  }
  return before.url.replace(/\d{4,5}/, 'PORT');
}
