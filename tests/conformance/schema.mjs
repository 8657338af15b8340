// The schema as tools see it: whether it is one, whether it is the committed one, and whether it follows the conventions.

import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { cp, mkdir, mkdtemp, readFile, readdir, rm, writeFile } from 'node:fs/promises';
import { createRequire } from 'node:module';
import path from 'node:path';
import graphqlPlugin from '@graphql-eslint/eslint-plugin';
import { diff } from '@graphql-inspector/core';
import { ESLint } from 'eslint';
import { buildClientSchema, buildSchema, getIntrospectionQuery, validateSchema } from 'graphql';
import { root } from './world.mjs';

const file = path.join(root, 'schema.graphql');
const here = path.join(root, 'tests/conformance');
/** How long a tool may take; then it is ended and its check has failed. */
const TOOL_PATIENCE = 150_000;

/** Full introspection makes a valid schema that is the committed one. */
export async function served(world) {
  const query = getIntrospectionQuery({ specifiedByUrl: true, directiveIsRepeatable: true, inputValueDeprecation: true, oneOf: true });
  const served = buildClientSchema(await world.ask(query));
  assert.deepEqual(validateSchema(served).map(String), []);
  const committed = buildSchema(await readFile(file, 'utf8'));
  assert.deepEqual(validateSchema(committed).map(String), []);
  const types = Object.values(served.getTypeMap()).length;
  // Introspection does not tell where directives are applied, so those are no differences.
  const changes = (await diff(committed, served)).filter((change) => !change.type.startsWith('DIRECTIVE_USAGE'));
  assert.deepEqual(changes.map((change) => `${change.criticality.level} ${change.message}`), []);
  const text = await (await fetch(`${world.url}/schema.graphql`)).text();
  assert.deepEqual(await diff(committed, buildSchema(text)), []);
  return `${types} types, no difference`;
}

/** What single places do otherwise. */
const EXCEPTIONS = [
  // The commitment of a Commitment is the hash, by the name that the field of auctions gives it.
  /no-typename-prefix Field "commitment" starts with the name of the parent type "Commitment"/,
  // `Statement.lines`, of which the rule above tells.
  /relay-arguments A field that returns a Connection type must include forward pagination arguments/,
];

/** The rules for schemas and for Relay, with what we do otherwise and why. */
export async function lint() {
  const rules = {
    ...graphqlPlugin.configs['flat/schema-recommended'].rules,
    ...graphqlPlugin.configs['flat/schema-relay'].rules,
    '@graphql-eslint/require-nullable-result-in-root': 'error',
    // Values, payloads, edges and connections are no things of their own; what is one implements Node, which has the id.
    '@graphql-eslint/strict-id-in-types': 'off',
    // The log of events is read forward only, and a statement takes the arguments of its lines, because its balances depend on them.
    '@graphql-eslint/relay-arguments': ['error', { includeBoth: false }],
    // Connections have `nodes` beside `edges`, lists of a few parts of one thing are lists, and what is listed need not be a thing of
    // its own: a line of a statement, a change of a channel and a commitment have no id.
    '@graphql-eslint/relay-edge-types': ['error', { withEdgeSuffix: true, shouldImplementNode: false, listTypeCanWrapOnlyEdgeType: false }],
  };
  const eslint = new ESLint({
    cwd: root,
    overrideConfigFile: true,
    overrideConfig: [{
      files: ['**/*.graphql'],
      plugins: { '@graphql-eslint': graphqlPlugin },
      languageOptions: { parser: graphqlPlugin.parser, parserOptions: { graphQLConfig: { schema: file } } },
      rules,
    }],
  });
  const [result] = await eslint.lintFiles([file]);
  const messages = result.messages.map((message) => `${message.line}: ${message.ruleId} ${message.message}`);
  const unexpected = messages.filter((message) => !EXCEPTIONS.some((exception) => exception.test(message)));
  assert.deepEqual(unexpected, []);
  const stale = EXCEPTIONS.filter((exception) => !messages.some((message) => exception.test(message)));
  assert.deepEqual(stale, [], 'exceptions that nothing needs');
  return `${Object.values(rules).filter((rule) => rule !== 'off').length} rules`;
}

/** Runs a tool of the packages in a copy of the sample application. */
async function tool(name, args, folder) {
  const require = createRequire(import.meta.url);
  const home = path.join(here, 'node_modules', ...name.split('/'));
  const { bin } = require(path.join(home, 'package.json'));
  const script = path.join(home, typeof bin === 'string' ? bin : Object.values(bin)[0]);
  const child = spawn(process.execPath, [script, ...args], { cwd: folder, env: { ...process.env, NO_COLOR: '1' }, timeout: TOOL_PATIENCE });
  let said = '';
  child.stdout.on('data', (chunk) => { said += chunk; });
  child.stderr.on('data', (chunk) => { said += chunk; });
  const code = await new Promise((resolve, reject) => child.on('error', reject).on('exit', resolve));
  assert.equal(code, 0, `${name} ended with ${code ?? 'a signal'}:\n${said}`);
  return said;
}

async function sample(work) {
  const folder = await mkdtemp(path.join(here, 'node_modules', '.sample-'));
  try {
    await cp(path.join(here, 'sample'), folder, { recursive: true });
    await cp(file, path.join(folder, 'schema.graphql'));
    return await work(folder);
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}

/** Relay's compiler takes the schema for a Relay server's: nodes, connections, refetchable fragments. */
export async function relay() {
  return sample(async (folder) => {
    await writeFile(path.join(folder, 'relay.config.json'), JSON.stringify({
      src: './relay', schema: './schema.graphql', language: 'javascript', artifactDirectory: './relay/__generated__', eagerEsModules: true, excludes: [],
    }));
    await mkdir(path.join(folder, 'relay/__generated__'));
    await tool('relay-compiler', ['relay.config.json'], folder);
    const made = await readdir(path.join(folder, 'relay/__generated__'));
    assert.ok(made.length >= 5, made.join(' '));
    return `${made.length} artifacts`;
  });
}

/** GraphQL Code Generator makes types from the running server, and TypeScript takes what it made. */
export async function codegen(world) {
  return sample(async (folder) => {
    await writeFile(path.join(folder, 'codegen.json'), JSON.stringify({
      schema: world.url, documents: 'codegen/*.ts', generates: { 'codegen/gql/': { preset: 'client', config: { defaultScalarType: 'string', scalars: { JSON: 'unknown' } } } },
    }));
    await tool('@graphql-codegen/cli', ['--config', 'codegen.json'], folder);
    await tool('typescript', ['--noEmit', '--strict', '--skipLibCheck', '--module', 'esnext', '--moduleResolution', 'bundler',
      '--target', 'es2022', 'codegen/app.ts'], folder);
    const made = await readdir(path.join(folder, 'codegen/gql'));
    return `${made.length} files, typed`;
  });
}
