// The console: tasks from the page to their end, everybody's use of every page, and what happens when the service dies.

import { Eyes } from './eyes.mjs';
import { Market } from './market.mjs';

function check(condition, what) {
  if (!condition) throw new Error(what);
}

/** Waits until events arrive at the page. */
export async function live(page) {
  await page.getByRole('status', { name: 'Events: live' }).waitFor();
}

async function open(page, market, hash = '') {
  await page.goto(new URL(hash, market.url).href);
  await live(page);
}

async function signIn(page, market, person) {
  await open(page, market, '#/sign-in');
  await page.getByLabel('E-mail', { exact: true }).fill(person.email);
  await page.getByLabel('Password', { exact: true }).fill(person.password);
  await page.getByRole('form', { name: 'Sign in' }).getByRole('button', { name: 'Sign in', exact: true }).click();
  await page.getByRole('button', { name: 'Sign out' }).waitFor();
}

/** A step of the timeline of a task. */
function step(page, name, state) {
  return page.locator(`.steps li.${state}`).filter({ has: page.locator('b', { hasText: name }) });
}

/** Presses Tab until something has the focus. */
async function tabTo(page, selector) {
  for (let presses = 0; presses < 120; presses += 1) {
    await page.keyboard.press('Tab');
    if (await page.evaluate((wanted) => document.activeElement?.matches(wanted), selector)) return;
  }
  throw new Error(`Tab does not reach ${selector}`);
}

/** Signs in, posts a task and follows it to its settlement, without a mouse. */
export async function byKeyboard({ browser, market }) {
  let events;
  await Eyes.on(browser, 'by-keyboard', async (eyes, page) => {
    await open(page, market);
    await eyes.shot('floor-anonymous');
    await tabTo(page, '[href="#/sign-in"]');
    await page.keyboard.press('Enter');
    await page.getByLabel('E-mail').waitFor();
    await tabTo(page, '[name="email"]');
    await page.keyboard.type(market.client.email);
    await tabTo(page, '[name="password"]');
    await page.keyboard.type(market.client.password);
    await page.keyboard.press('Enter');
    await page.getByRole('button', { name: 'Sign out' }).waitFor();

    await tabTo(page, '[href="#/post"]');
    await page.keyboard.press('Enter');
    await page.getByRole('form', { name: 'Post a task' }).waitFor();
    await tabTo(page, '[name="title"]');
    await page.keyboard.type('Posted without a mouse');
    await tabTo(page, '[name="capabilities"]');
    await page.keyboard.type('text.stats');
    await tabTo(page, '[name="budget"]');
    await page.keyboard.type('2.5');
    await tabTo(page, 'textarea[name="input"]');
    await page.keyboard.type('To be, or not to be.');
    await tabTo(page, 'summary');
    await page.keyboard.press('Enter');
    await tabTo(page, '[name="closesIn"]');
    await page.keyboard.type('5');
    await tabTo(page, '[name="visibility"]');
    await page.keyboard.type('open to');
    await eyes.shot('post');
    await tabTo(page, 'form button[type="submit"]');
    await page.keyboard.press('Enter');

    // The bids arrive while the auction is open, then everything else, and nobody loads the page again.
    await page.waitForURL(/#\/task\/task_/);
    await step(page, 'Award', 'now').waitFor();
    await eyes.shot('task-with-bids');
    for (const name of ['Posted', 'Auction', 'Bids', 'Award', 'Escrow', 'Run', 'Result', 'Settlement', 'Reputation']) {
      await step(page, name, 'done').waitFor({ timeout: 30_000 });
    }
    await page.getByRole('group', { name: 'Transfers of this task' }).getByText('release').waitFor();
    await eyes.shot('task-settled', { fullPage: true });
    events = await page.getByRole('group', { name: 'Events of the task' }).locator('tbody tr').count();
    check(events >= 8, `only ${events} events are shown`);
    check(!(await eyes.stored()).includes('eyJ'), 'the token is stored');

    // Why the winner won is behind the award.
    await page.locator('.facts a[href^="#/auction/"]').click();
    await page.getByRole('heading', { name: 'Why the winner won' }).waitFor();
    await eyes.shot('auction-decided', { fullPage: true });
  });
  return `settled, with ${events} events`;
}

/** Posts a task that waits for its buyer's word, and returns when it waits. */
async function postForReview(page, market, title) {
  await page.goto(new URL('#/post', market.url).href);
  const form = page.getByRole('form', { name: 'Post a task' });
  await form.getByLabel('Title').fill(title);
  await form.getByLabel('Capability').selectOption('text.stats');
  await form.getByLabel('Budget').fill('2.5');
  await form.getByLabel('Input', { exact: true }).fill('To be, or not to be.');
  await form.getByText('Rules of the auction').click();
  await form.getByLabel('It is paid').selectOption('REVIEW');
  await form.getByRole('button', { name: 'Post the task' }).click();
  await page.waitForURL(/#\/task\/task_/);
  await page.getByRole('button', { name: /^Accept and pay/ }).waitFor({ timeout: 30_000 });
}

/** Accepts one result and disputes another. */
export async function judges({ browser, market }) {
  await Eyes.on(browser, 'judges', async (eyes, page) => {
    await signIn(page, market, market.client);
    await postForReview(page, market, 'To be accepted');
    await eyes.shot('task-to-review', { fullPage: true });
    await page.getByRole('button', { name: /^Accept and pay/ }).click();
    await step(page, 'Settlement', 'done').filter({ hasText: 'paid' }).waitFor();
    await page.getByRole('radio', { name: '4' }).check();
    await page.getByRole('button', { name: 'Rate 4 of 5' }).click();
    await page.getByText('rated 4 of 5').waitFor();

    await postForReview(page, market, 'To be disputed');
    await page.getByLabel('Why you do not accept it').fill('The words are counted wrongly.');
    await page.getByRole('button', { name: 'Reject and open a dispute' }).click();
    await page.getByRole('heading', { name: 'Dispute', exact: true }).waitFor();
    await page.getByText('The words are counted wrongly.').first().waitFor();
    await step(page, 'Settlement', 'now').filter({ hasText: 'disputed' }).waitFor();
    await eyes.shot('task-disputed', { fullPage: true });
  });
  return 'one accepted, paid and rated; one rejected and in dispute';
}

/** Every page in light and dark: what axe finds, and a picture. */
export async function accessible({ browser, market }) {
  const token = await market.token(market.client);
  const [key, input] = [`${Date.now()}`, 'To be, or not to be.'];
  const { executeTask } = await market.ask(
    'mutation($input: ExecuteTaskInput!) { executeTask(input: $input) { task { id auction { id } } userErrors { message } } }',
    { input: { title: 'For everybody', capabilities: ['text.stats'], input, budget: '2.5', idempotencyKey: `t${key}` } },
    token,
  );
  const plan = { steps: [
    { name: 'stats', capabilities: ['text.stats'], input },
    { name: 'keywords', capabilities: ['text.keywords'], input, dependsOn: ['stats'] },
  ] };
  const { delegateTask } = await market.ask(
    'mutation($input: DelegateTaskInput!) { delegateTask(input: $input) { delegation { id } userErrors { message } } }',
    { input: { goal: 'Describe a sentence', budget: '10', plan, idempotencyKey: `d${key}` } },
    token,
  );
  const { leaderboard } = await market.ask('{ leaderboard(first: 1) { agent { id } } }');
  const { task } = executeTask;
  const pages = [
    ['floor', '#/'], ['auctions', '#/auctions'], ['auction', `#/auction/${task.auction.id}`], ['leaderboard', '#/leaderboard'],
    ['agent', `#/agent/${leaderboard[0].agent.id}`], ['tasks', '#/tasks'], ['task', `#/task/${task.id}`], ['post', '#/post'],
    ['delegations', '#/delegations'], ['delegation', `#/delegation/${delegateTask.delegation.id}`], ['wallet', '#/wallet'], ['system', '#/system'],
  ];
  const found = [];
  for (const colorScheme of ['light', 'dark']) {
    await Eyes.on(browser, `accessible-${colorScheme}`, async (eyes, page) => {
      const look = async (name) => {
        await eyes.shot(`${name}-${colorScheme}`, { fullPage: true });
        await eyes.axe(`${name} in ${colorScheme}`).catch((error) => found.push(error.message));
      };
      await open(page, market, '#/sign-in');
      await look('sign-in');
      await signIn(page, market, market.client);
      for (const [name, hash] of pages) {
        await page.evaluate((next) => { location.hash = next; }, hash);
        await page.locator('main h1').waitFor({ state: 'attached' });
        await page.waitForFunction(() => !document.querySelector('main .loading'));
        await look(name);
      }
      // Of GraphiQL what is ours, and the small page.
      await page.goto(new URL('graphiql', market.url).href);
      await page.locator('.examples li').last().waitFor();
      await page.getByRole('button', { name: 'Sign in', exact: true }).click();
      await eyes.shot(`graphiql-${colorScheme}`);
      for (const part of ['#signing-in', '.bar', '.examples']) {
        await eyes.axe(`${part} of GraphiQL in ${colorScheme}`, part).catch((error) => found.push(error.message));
        if (part === '#signing-in') await page.getByRole('button', { name: 'Close' }).click();
      }
      await page.goto(new URL('lite', market.url).href);
      await look('lite');
    }, { colorScheme, reducedMotion: 'reduce' });
  }
  check(found.length === 0, [...new Set(found)].join('\n'));
  return `${pages.length + 3} pages in light and dark`;
}

/** The cursors that follow one, up to another, as a client of its own reads them. */
async function between(market, after, last) {
  const leave = new AbortController();
  const cursors = [];
  const response = await fetch(new URL('graphql', market.url), {
    method: 'POST',
    headers: { 'content-type': 'application/json', accept: 'text/event-stream' },
    body: JSON.stringify({ query: 'subscription($after: EventCursor) { marketEvents(after: $after) { cursor } }', variables: { after } }),
    signal: leave.signal,
  });
  let text = '';
  for await (const chunk of response.body) {
    text += new TextDecoder().decode(chunk);
    cursors.splice(0, Infinity, ...[...text.matchAll(/"cursor":"([^"]+)"/g)].map(([, cursor]) => cursor));
    if (cursors.includes(last)) break;
  }
  leave.abort();
  return cursors.slice(0, cursors.indexOf(last) + 1);
}

/** The service dies and comes back: the page connects again by itself, and no event is missing. */
export async function reconnects({ browser }) {
  const market = await Market.start();
  let many = 0;
  try {
    await Eyes.on(browser, 'reconnects', async (eyes, page) => {
      await open(page, market);
      const heard = () => eyes.sockets.flatMap((socket) => socket.heard)
        .flatMap((text) => [...text.matchAll(/"cursor":"([^"]+)"/g)].map(([, cursor]) => cursor));
      const moreThan = async (count, what) => {
        for (const until = Date.now() + 40_000; heard().length <= count;) {
          check(Date.now() < until, `${what}: no events`);
          await page.waitForTimeout(100);
        }
      };
      await moreThan(0, 'before');
      eyes.forgiving = true;
      await market.kill();
      await page.getByRole('status', { name: 'Events: reconnecting' }).waitFor();
      await eyes.shot('reconnecting');
      const before = heard();
      await market.run();
      // Things happen before the page is back.
      const token = await market.token(market.client);
      const input = { title: 'Meanwhile', capabilities: ['text.stats'], input: 'x', budget: '2', idempotencyKey: 'meanwhile' };
      await market.ask('mutation($input: ExecuteTaskInput!) { executeTask(input: $input) { task { id } } }', { input }, token);
      await live(page);
      eyes.forgiving = false;
      await moreThan(before.length, 'after');
      await page.waitForTimeout(1_000);
      const [all, last] = [new Set(heard()), heard().at(-1)];
      const expected = await between(market, before[0], last);
      many = expected.length;
      const missing = expected.filter((cursor) => !all.has(cursor));
      check(many >= 2 && missing.length === 0, `of ${many} events ${missing.length} are missing: ${missing}`);
      const twice = heard().length - all.size;
      check(twice <= before.length, `${twice} events came twice`);
    });
  } finally {
    await market.stop();
  }
  return `${many} events, none missing`;
}
