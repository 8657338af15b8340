// GraphQL over HTTP as the public audits of graphql-http see it.

import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { auditServer } from 'graphql-http';

export async function audits(world) {
  const results = await auditServer({ url: world.url, fetchFn: fetch });
  const bad = results.filter((result) => result.status !== 'ok');
  assert.equal(bad.length, 0, bad.map((result) => `${result.id} ${result.name}: ${result.reason}`).join('\n'));
  assert.equal(results.length, 61);
  return `${results.length} of ${results.length}`;
}

/** The draft of August 2026, with the codes that the older audits do not know. */
export async function draftProfile(world) {
  const post = async (body, accept) => {
    const response = await fetch(world.url, {
      method: 'POST',
      headers: { 'content-type': 'application/json', accept },
      body: typeof body === 'string' ? body : JSON.stringify(body),
    });
    return [response.status, await response.json()];
  };
  const graphql = 'application/graphql-response+json';
  const legacy = 'application/json';
  let cases = 0;
  for (const [body, accept, status] of [
    ['{', graphql, 400],
    [{}, graphql, 422],
    [{ query: '{' }, graphql, 400],
    [{ query: '{ noSuchField }' }, graphql, 422],
    [{ query: '{ noSuchField }' }, legacy, 422],
    [{ query: 'query A { __typename } query B { __typename }' }, graphql, 422],
    [{ query: 'query($id: ID!) { node(id: $id) { id } }' }, graphql, 422],
    [{ query: '{ __typename }' }, graphql, 200],
    [{ query: '{ __typename me { id } }' }, graphql, 294],
    [{ query: '{ __typename me { id } }' }, legacy, 200],
  ]) {
    const [answered, answer] = await post(body, accept);
    assert.equal(answered, status, `${JSON.stringify(body)} as ${accept}: ${JSON.stringify(answer)}`);
    assert.equal('data' in answer, status < 300);
    cases += 1;
  }
  return `${cases} cases`;
}

/** Documents that are named by their hash, by POST and by GET. */
export async function persistedQueries(world) {
  const query = '{ __typename serviceInfo { version } }';
  const sha256Hash = createHash('sha256').update(query).digest('hex');
  const extensions = { persistedQuery: { version: 1, sha256Hash } };
  const post = async (body) => {
    const headers = { 'content-type': 'application/json' };
    return (await fetch(world.url, { method: 'POST', headers, body: JSON.stringify(body) })).json();
  };
  const unknown = await post({ extensions });
  assert.equal(unknown.errors[0].message, 'PersistedQueryNotFound');
  assert.equal(unknown.errors[0].extensions.code, 'PERSISTED_QUERY_NOT_FOUND');
  const known = await post({ query, extensions });
  assert.equal(known.data.__typename, 'Query');
  assert.deepEqual(await post({ extensions }), known);
  assert.deepEqual(await post({ documentId: `sha256:${sha256Hash}` }), known);
  const byGet = await fetch(`${world.url}?extensions=${encodeURIComponent(JSON.stringify(extensions))}`);
  assert.deepEqual(await byGet.json(), known);
  const other = await post({ query: '{ __typename }', extensions });
  assert.equal(other.errors[0].extensions.code, 'BAD_USER_INPUT');
  return '5 ways';
}
