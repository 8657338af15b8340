// Makes the types of the schema for gql.tada, and checks every document of the console against the schema: those in graphql(`…`), and
// the short ones behind single figures.
import { minifyIntrospection, outputIntrospectionFile } from '@gql.tada/internal';
import { buildSchema, introspectionFromSchema, parse, validate } from 'graphql';
import { mkdirSync, readFileSync, readdirSync, writeFileSync } from 'node:fs';

const here = new URL('.', import.meta.url);
const schema = buildSchema(readFileSync(new URL('../../../schema.graphql', here), 'utf8'));
const types = outputIntrospectionFile(minifyIntrospection(introspectionFromSchema(schema, { descriptions: false })), {
  fileType: '.d.ts',
});
mkdirSync(new URL('generated/', here), { recursive: true });
writeFileSync(new URL('generated/schema.d.ts', here), types);

const found = [];
const fragments = new Map();
for (const file of readdirSync(here).filter((name) => /\.tsx?$/.test(name))) {
  const source = readFileSync(new URL(file, here), 'utf8');
  const frame = /const query = \(fields: string\) => `([^`]*)`/.exec(source)?.[1];
  const add = (pattern, write = (text) => text) => {
    for (const match of source.matchAll(pattern)) {
      found.push({ where: `${file}:${source.slice(0, match.index).split('\n').length}`, text: write(match[1]) });
    }
  };
  add(/graphql\(`([^`]*)`/g);
  add(/query="([^"]*)"/g);
  add(/inGraphiql\('([^']*)'/g);
  add(/query\('([^']*)'\)/g, (fields) => frame.replace('${fields}', fields));
}
for (const { text } of found) {
  const name = /^\s*fragment (\w+)/.exec(text)?.[1];
  if (name) fragments.set(name, text);
}

/** A document with the fragments that it uses, and those that they use. */
function whole(text) {
  const used = new Map();
  const use = (some) => {
    for (const [, name] of some.matchAll(/\.\.\.(\w+)/g)) {
      const fragment = fragments.get(name);
      if (!fragment || used.has(name)) continue;
      used.set(name, fragment);
      use(fragment);
    }
  };
  use(text);
  return [text, ...used.values()].join('\n');
}

let wrong = 0;
for (const { where, text } of found) {
  if (/^\s*fragment /.test(text)) continue;
  let faults;
  try {
    faults = validate(schema, parse(whole(text)));
  } catch (fault) {
    faults = [fault];
  }
  wrong += faults.length;
  for (const fault of faults) console.error(`src/console/${where}: ${fault.message}`);
}
console.log(`${found.length} documents of the console, ${wrong} faults`);
process.exitCode = wrong === 0 && found.length > 0 ? 0 : 1;
