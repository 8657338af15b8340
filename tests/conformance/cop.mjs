// The checks of graphql-cop, written again: what makes a GraphQL server easy to exhaust, to misuse or to look into.

import assert from 'node:assert/strict';

/** Each check says what the tool sends and why our answer is not the one that it warns of. */
export async function cop(world) {
  const post = async (body, type = 'application/json') => {
    const response = await fetch(world.url, { method: 'POST', headers: { 'content-type': type }, body });
    return [response.status, await response.json()];
  };
  const ask = (query) => post(JSON.stringify({ query }));
  const refused = async (query, code) => {
    const [, answer] = await ask(query);
    assert.equal(answer.data ?? null, null, query.slice(0, 80));
    assert.equal(answer.errors[0].extensions.code, code, JSON.stringify(answer).slice(0, 300));
    return answer;
  };
  const many = (count, text) => Array.from({ length: count }, (_, index) => text(index)).join(' ');
  const checks = {
    'alias overloading': () => refused(`query { ${many(101, (n) => `alias${n}: __typename`)} }`, 'QUERY_LIMIT_EXCEEDED'),
    'array-based batches': async () => {
      const [status, answer] = await post(JSON.stringify(Array(10).fill({ query: '{ __typename }' })));
      assert.ok(status >= 400 && !Array.isArray(answer), JSON.stringify(answer));
    },
    'directive overloading': async () => {
      const [, answer] = await ask('query { __typename @aa@aa@aa@aa@aa@aa@aa@aa@aa@aa }');
      assert.equal(answer.errors.length, 1, 'one word about one thing');
    },
    'circular introspection': () => refused(`query { __schema { types ${'{ fields { type '.repeat(8)} { name } ${'} }'.repeat(8)} } }`,
      'QUERY_LIMIT_EXCEEDED'),
    'field duplication': () => refused(`query { ${many(500, () => '__typename')} }`, 'QUERY_LIMIT_EXCEEDED'),
    'field suggestions': async () => {
      const answer = await refused('query { servceInfo { version } }', 'GRAPHQL_VALIDATION_FAILED');
      assert.ok(!/did you mean/i.test(JSON.stringify(answer)));
    },
    'mutations by GET': async () => {
      const query = encodeURIComponent('mutation { logout { userErrors { message } } }');
      assert.equal((await fetch(`${world.url}?query=${query}`)).status, 405);
    },
    'requests by form (CSRF)': async () => {
      const [status] = await post('query=%7B__typename%7D', 'application/x-www-form-urlencoded');
      assert.equal(status, 415);
    },
    'mutations by form of text (CSRF)': async () => {
      const [status] = await post(JSON.stringify({ query: '{ __typename }' }), 'text/plain');
      assert.equal(status, 415);
    },
    'traces': async () => {
      const [, answer] = await ask('query { __typename }');
      assert.equal(answer.extensions?.tracing, undefined);
    },
    'unhandled errors': async () => {
      const [, answer] = await ask('query { node(id: "x") { id } }');
      assert.ok(!/panicked|exception|stack|\.rs:/i.test(JSON.stringify(answer)), JSON.stringify(answer));
    },
    // A public interface tells what it is, within the bound that the check of circular queries meets.
    'introspection, on purpose': async () => {
      const [, answer] = await ask('query { __schema { queryType { name } } }');
      assert.equal(answer.data.__schema.queryType.name, 'Query');
    },
  };
  for (const [name, check] of Object.entries(checks)) {
    try {
      await check();
    } catch (error) {
      throw new Error(`${name}: ${error.stack}`);
    }
  }
  return `${Object.keys(checks).length} checks`;
}
