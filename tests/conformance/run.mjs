// Runs every check and says how each went. `node run.mjs NAME …` runs those whose names contain one of the words.

import { spawn } from 'node:child_process';
import path from 'node:path';
import * as clients from './clients.mjs';
import { cop } from './cop.mjs';
import * as http from './http.mjs';
import * as schema from './schema.mjs';
import { closeCodes } from './socket.mjs';
import { ME, RENAME, SETTLEMENTS, World, root, within } from './world.mjs';

/** Against checks that hang; each takes seconds. */
const CHECK_PATIENCE = 180_000;

/** gql for Python, in a process of its own. */
async function python(world) {
  const user = await world.user('python');
  const given = { url: world.url, ws: world.ws, authorization: `Bearer ${user.token}`, user: user.id,
    me: ME, rename: RENAME, settlements: SETTLEMENTS, after: await world.behind(user, 3) };
  const interpreter = path.join(root, 'tests/conformance/.venv/bin/python');
  const child = spawn(interpreter, [path.join(root, 'tests/conformance/clients.py')], { timeout: CHECK_PATIENCE });
  child.stdin.end(JSON.stringify(given));
  let said = '';
  let failed = '';
  child.stdout.on('data', (chunk) => { said += chunk; });
  child.stderr.on('data', (chunk) => { failed += chunk; });
  const code = await new Promise((resolve, reject) => child.on('error', reject).on('exit', resolve));
  if (code !== 0) throw new Error(failed);
  return said.trim();
}

/** schemathesis: valid and invalid requests made from the schema, for a minute. */
async function fuzz(world) {
  const user = await world.user('fuzz');
  const interpreter = path.join(root, 'tests/conformance/.venv/bin/schemathesis');
  const seconds = process.env.FUZZ_SECONDS ?? '60';
  const child = spawn(interpreter, ['run', world.url, '--max-examples', '25', '--phases', 'fuzzing', '--mode', 'all',
    '--header', `Authorization: Bearer ${user.token}`, '--max-time', seconds, '--no-color', '--suppress-health-check', 'all',
    '--checks', 'every_error_is_one_of_ours,what_the_schema_forbids_is_refused',
    // These end the session that asks.
    '--exclude-name', 'Mutation.logout', '--exclude-name', 'Mutation.changePassword'],
  { env: { ...process.env, SCHEMATHESIS_HOOKS: path.join(root, 'tests/conformance/fuzz/hooks.py') }, cwd: world.folder,
    timeout: CHECK_PATIENCE });
  let said = '';
  child.stdout.on('data', (chunk) => { said += chunk; });
  child.stderr.on('data', (chunk) => { said += chunk; });
  const code = await new Promise((resolve, reject) => child.on('error', reject).on('exit', resolve));
  const [, cases] = said.match(/(\d+) generated/) ?? [];
  if (code !== 0 || !cases) throw new Error(said);
  return `${cases} requests in ${seconds} s, no fault of ours, nothing accepted that the schema forbids`;
}

// The servers: one as it comes, one whose callers may spend what they like, one with the other status profile, one that loses its patience soon.
const servers = {
  usual: [],
  unlimited: ['--points-per-second', '0'],
  draft: ['--status-profile', 'draft-2026-08'],
  strict: ['--init-timeout', '1', '--ping-interval', '1', '--silence', '2', '--recheck-interval', '1', '--sockets-per-caller', '2',
    '--operations-per-socket', '2', '--message-bytes', '8192'],
};

const checks = [
  ['usual', 'graphql-http audits', http.audits],
  ['usual', 'persisted documents', http.persistedQueries],
  ['usual', 'checks of graphql-cop', cop],
  ['draft', 'status profile of the draft', http.draftProfile],
  ['strict', 'close codes', closeCodes],
  ['usual', 'graphql-ws', clients.graphqlWs],
  ['usual', 'graphql-sse', clients.graphqlSse],
  ['usual', 'Last-Event-ID', clients.lastEventId],
  ['usual', 'Apollo Client', clients.apollo],
  ['usual', 'urql', clients.urql],
  ['usual', 'gql for Python', python],
  ['usual', 'introspection, inspector', schema.served],
  ['usual', 'eslint rules', schema.lint],
  ['usual', 'relay-compiler', schema.relay],
  ['usual', 'codegen', schema.codegen],
  ['unlimited', 'schemathesis', fuzz],
];

const words = process.argv.slice(2);
const wanted = checks.filter(([, name]) => words.length === 0 || words.some((word) => name.includes(word)));
const running = {};
let failures = 0;

async function attempt(name, work) {
  const started = Date.now();
  let verdict;
  try {
    verdict = `ok      ${await within(work(), name, CHECK_PATIENCE)}`;
  } catch (error) {
    failures += 1;
    verdict = `FAILED  ${error.stack ?? error}`;
  }
  console.log(`${name.padEnd(30)} ${String(((Date.now() - started) / 1000).toFixed(1)).padStart(5)} s  ${verdict}`);
}

for (const [server, name, check] of wanted) {
  await attempt(name, async () => {
    running[server] ??= await World.start(servers[server]);
    return check(running[server]);
  });
}
for (const [name, world] of Object.entries(running)) {
  await attempt(`end of the ${name} server`, async () => {
    await world.stop();
    return 'alive to the end, no panic';
  });
}
if (wanted.length === 0) {
  failures += 1;
  console.error('no check has such a name');
}
console.log(`conformance: ${wanted.length} checks, ${failures} failed`);
process.exit(failures === 0 ? 0 : 1);
