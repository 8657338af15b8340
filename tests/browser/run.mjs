// Runs every check and says how each went. `node run.mjs NAME …` runs those whose names contain one of the words.

import * as console_ from './console.mjs';
import { launch } from './eyes.mjs';
import { Market, within } from './market.mjs';
import * as pages from './pages.mjs';

/** Against checks that hang; each takes seconds. */
const CHECK_PATIENCE = 180_000;
/** Checks that run at the same time: most of each is waiting. */
const AT_ONCE = 2;

// The longest begin first.
const checks = [
  ['task by keyboard', console_.byKeyboard],
  ['accessibility', console_.accessible],
  ['GraphiQL', pages.graphiql],
  ['accepts and disputes', console_.judges],
  ['reconnects', console_.reconnects],
  ['below a path', pages.belowAPath],
  ['small page', pages.smallPage],
  ['example operations', pages.exampleOperations],
  ['files as they are served', pages.assets],
];

const words = process.argv.slice(2);
const wanted = checks.filter(([name]) => words.length === 0 || words.some((word) => name.includes(word)));
const counts = { passed: 0, failed: 0 };

async function attempt(name, work) {
  const started = Date.now();
  let verdict;
  try {
    verdict = `ok      ${await within(work(), name, CHECK_PATIENCE)}`;
    counts.passed += 1;
  } catch (error) {
    verdict = `FAILED  ${error.stack ?? error}`;
    counts.failed += 1;
  }
  console.log(`${name.padEnd(30)} ${String(((Date.now() - started) / 1000).toFixed(1)).padStart(5)} s  ${verdict}`);
}

if (wanted.length === 0) {
  counts.failed += 1;
  console.error('no check has such a name');
} else {
  const started = Date.now();
  const [browser, market] = await Promise.all([launch(), Market.start()]);
  const waiting = [...wanted];
  const work = async () => {
    for (let next = waiting.shift(); next; next = waiting.shift()) {
      const [name, check] = next;
      await attempt(name, () => check({ browser, market }));
    }
  };
  await Promise.all(Array.from({ length: AT_ONCE }, work));
  await attempt('end of the service', async () => {
    await market.stop();
    return 'alive to the end, no panic';
  });
  await browser.close();
  console.log(`screenshots are in target/browser/; ${((Date.now() - started) / 1000).toFixed(0)} s`);
}
console.log(`browser: ${counts.passed} passed, ${counts.failed} failed`);
process.exit(counts.failed === 0 ? 0 : 1);
