// Clients as their users have them, unmodified: a query, a mutation and a subscription each.

import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { ApolloClient, ApolloLink, CombinedGraphQLErrors, HttpLink, InMemoryCache, gql } from '@apollo/client';
import { PersistedQueryLink } from '@apollo/client/link/persisted-queries';
import { GraphQLWsLink } from '@apollo/client/link/subscriptions';
import { getMainDefinition } from '@apollo/client/utilities';
import { Client as UrqlClient, cacheExchange, fetchExchange, subscriptionExchange } from '@urql/core';
import { createClient as createSseClient } from 'graphql-sse';
import { createClient as createWsClient } from 'graphql-ws';
import { WebSocket } from 'ws';
import { ME, RENAME, SETTLEMENTS, within } from './world.mjs';

const EVENTS = 3;

const renamed = (name) => ({ input: { displayName: name } });

/** Takes so many values of an asynchronous iterator. */
async function take(iterator, count) {
  const taken = [];
  for (let n = 0; n < count; n += 1) {
    const { value, done } = await within(iterator.next(), `event ${n + 1}`);
    assert.ok(!done, `the stream ended after ${n}`);
    taken.push(value);
  }
  await iterator.return?.();
  return taken;
}

/** Events in the order of the log, none twice. */
function inOrder(results) {
  const events = results.map((result) => {
    assert.equal(result.errors, undefined, JSON.stringify(result));
    return result.data.settlementEvents;
  });
  assert.equal(events.length, EVENTS);
  assert.equal(new Set(events.map((event) => event.cursor)).size, EVENTS);
  for (const event of events) assert.equal(event.kind, 'CREDITS_ISSUED');
  return events;
}

/** The same three operations by a client whose `iterate` speaks for itself. */
async function byIterating(world, user, client) {
  const one = async (query, variables) => (await within(client.iterate({ query, variables }).next(), query)).value;
  assert.equal((await one(ME)).data.me.id, user.id);
  const changed = await one(RENAME, renamed('Iterated'));
  assert.deepEqual(changed.data.updateProfile, { user: { id: user.id, displayName: 'Iterated' }, userErrors: [] });
  const after = await world.behind(user, EVENTS);
  const events = inOrder(await take(client.iterate({ query: SETTLEMENTS, variables: { after } }), EVENTS));
  // From the middle on, nothing twice and nothing left out.
  const rest = await take(client.iterate({ query: SETTLEMENTS, variables: { after: events[0].cursor } }), EVENTS - 1);
  assert.deepEqual(rest.map((result) => result.data.settlementEvents), events.slice(1));
  const errors = [];
  try {
    errors.push(...((await one('{ noSuchField }')).errors ?? []));
  } catch (thrown) {
    errors.push(...thrown);
  }
  assert.equal(errors[0].extensions.code, 'GRAPHQL_VALIDATION_FAILED');
}

export async function graphqlWs(world) {
  const user = await world.user('graphql-ws');
  const client = createWsClient({
    url: world.ws,
    webSocketImpl: WebSocket,
    connectionParams: { authorization: `Bearer ${user.token}` },
    keepAlive: 1_000,
    retryAttempts: 0,
  });
  try {
    await byIterating(world, user, client);
  } finally {
    await client.dispose();
  }
  return 'query, mutation, subscription, resumed';
}

export async function graphqlSse(world) {
  const user = await world.user('graphql-sse');
  const client = createSseClient({
    url: world.url,
    singleConnection: false,
    headers: { authorization: `Bearer ${user.token}` },
    retryAttempts: 0,
  });
  try {
    await byIterating(world, user, client);
  } finally {
    client.dispose();
  }
  return 'query, mutation, subscription, resumed';
}

/** What browsers do by themselves: connect again with the id of the last event. */
export async function lastEventId(world) {
  const user = await world.user('last-event-id');
  const after = await world.behind(user, EVENTS);
  // The document does not ask for the cursor, and the id is it all the same.
  const query = 'subscription($after: EventCursor) { settlementEvents(after: $after) { id } }';
  const target = `${world.url}?query=${encodeURIComponent(query)}&variables=${encodeURIComponent(JSON.stringify({ after }))}`;
  const read = async (id, count) => {
    const headers = { accept: 'text/event-stream', authorization: `Bearer ${user.token}`, ...(id && { 'last-event-id': id }) };
    const response = await fetch(target, { headers });
    assert.equal(response.status, 200);
    assert.match(response.headers.get('content-type'), /^text\/event-stream/);
    assert.equal(response.headers.get('cache-control'), 'no-store');
    let text = '';
    const complete = () => text.split('\n\n').slice(0, -1).filter((frame) => !frame.startsWith(':'));
    for await (const chunk of response.body) {
      text += new TextDecoder().decode(chunk);
      if (complete().length >= count) break;
    }
    const events = complete();
    assert.ok(events.length >= count, `the stream ended: ${text}`);
    return events.slice(0, count).map((frame) => {
      const fields = Object.fromEntries(frame.split('\n').map((line) => line.split(/: (.*)/s).slice(0, 2)));
      assert.equal(fields.event, 'next');
      const event = JSON.parse(fields.data).data.settlementEvents;
      assert.deepEqual(Object.keys(event), ['id']);
      return { cursor: fields.id, id: event.id };
    });
  };
  const all = await within(read(null, EVENTS), 'the events');
  assert.ok(all.every((event) => event.cursor), 'an event without an id');
  assert.equal(new Set(all.map((event) => event.cursor)).size, EVENTS);
  assert.deepEqual(await within(read(all[0].cursor, EVENTS - 1), 'the rest'), all.slice(1));
  return `${EVENTS} events, resumed behind the first`;
}

export async function apollo(world) {
  const user = await world.user('apollo');
  const authorization = `Bearer ${user.token}`;
  const sha256 = (text) => createHash('sha256').update(text).digest('hex');
  const http = ApolloLink.from([
    new PersistedQueryLink({ sha256 }),
    new HttpLink({ uri: world.url, headers: { authorization } }),
  ]);
  const sockets = createWsClient({ url: world.ws, webSocketImpl: WebSocket, connectionParams: { authorization }, retryAttempts: 0 });
  const isSubscription = ({ query }) => getMainDefinition(query).operation === 'subscription';
  const client = new ApolloClient({
    link: ApolloLink.split(isSubscription, new GraphQLWsLink(sockets), http),
    cache: new InMemoryCache(),
  });
  try {
    const once = async () => (await client.query({ query: gql(ME), fetchPolicy: 'network-only' })).data.me.id;
    // By its hash alone, which nobody knows; then with its text; then by its hash.
    assert.equal(await once(), user.id);
    assert.equal(await once(), user.id);
    const changed = await client.mutate({ mutation: gql(RENAME), variables: renamed('Apollo') });
    assert.equal(changed.data.updateProfile.user.displayName, 'Apollo');
    const wrong = await client.query({ query: gql('{ noSuchField }') }).catch((error) => error);
    assert.ok(CombinedGraphQLErrors.is(wrong), String(wrong));
    assert.equal(wrong.errors[0].extensions.code, 'GRAPHQL_VALIDATION_FAILED');
    const after = await world.behind(user, EVENTS);
    const results = await within(new Promise((resolve, reject) => {
      const seen = [];
      const subscription = client.subscribe({ query: gql(SETTLEMENTS), variables: { after } }).subscribe({
        next: (result) => {
          seen.push({ ...result, errors: result.error });
          if (seen.length === EVENTS) {
            subscription.unsubscribe();
            resolve(seen);
          }
        },
        error: reject,
      });
    }), 'the events');
    inOrder(results);
  } finally {
    client.stop();
    await sockets.dispose();
  }
  return 'query by its hash, mutation, subscription';
}

export async function urql(world) {
  const user = await world.user('urql');
  const authorization = `Bearer ${user.token}`;
  const sockets = createWsClient({ url: world.ws, webSocketImpl: WebSocket, connectionParams: { authorization }, retryAttempts: 0 });
  // Without sockets urql itself reads subscriptions as event streams; both are tried.
  const bySocket = subscriptionExchange({
    forwardSubscription: ({ query, variables }) => ({
      subscribe: (sink) => ({ unsubscribe: sockets.subscribe({ query, variables }, sink) }),
    }),
  });
  const variants = {
    sockets: { exchanges: [cacheExchange, fetchExchange, bySocket] },
    streams: { exchanges: [cacheExchange, fetchExchange], fetchSubscriptions: true },
  };
  try {
    for (const [name, options] of Object.entries(variants)) {
      const client = new UrqlClient({ url: world.url, fetchOptions: { headers: { authorization } }, preferGetMethod: false, ...options });
      const asked = await client.query(ME, {}).toPromise();
      assert.equal(asked.data?.me.id, user.id, String(asked.error));
      const byGet = await client.query('query ByGet { __typename }', {}, { preferGetMethod: 'force' }).toPromise();
      assert.equal(byGet.data?.__typename, 'Query', String(byGet.error));
      const changed = await client.mutation(RENAME, renamed(`urql ${name}`)).toPromise();
      assert.equal(changed.data?.updateProfile.user.displayName, `urql ${name}`, String(changed.error));
      const wrong = await client.query('{ noSuchField }', {}).toPromise();
      assert.equal(wrong.error.graphQLErrors[0].extensions.code, 'GRAPHQL_VALIDATION_FAILED');
      const after = await world.behind(user, EVENTS);
      const results = await within(new Promise((resolve, reject) => {
        const seen = [];
        const { unsubscribe } = client.subscription(SETTLEMENTS, { after }).subscribe((result) => {
          if (result.error) reject(result.error);
          seen.push({ data: structuredClone(result.data) });
          if (seen.length === EVENTS) {
            queueMicrotask(() => unsubscribe());
            resolve(seen);
          }
        });
      }), `the events by ${name}`);
      inOrder(results);
    }
  } finally {
    await sockets.dispose();
  }
  return 'query, mutation, subscription by WebSocket and by event stream';
}
