// How the page talks to the service: queries and mutations by POST, events by one WebSocket. Every address is relative to the page.

import { signal } from '@preact/signals';
import { createClient } from 'graphql-ws';
import { follow, type Fault } from './follow';
import { type Document, type Result, text, type Variables } from './graphql';

export const address = (path: string): string => new URL(path, document.baseURI).href;

/** What a request was refused with, and what to do about it. */
export class ApiError extends Error {
  constructor(
    readonly code: string,
    message: string,
    readonly requestId: string | null = null,
    readonly retryAfterMs: number | null = null,
  ) {
    super(message);
  }

  get advice(): string {
    return ADVICE[this.code] ?? 'Load the page again; if it stays, tell who runs the service the request id.';
  }
}

const ADVICE: Record<string, string> = {
  NO_ANSWER: 'Check that the service runs (zerostate healthcheck) and that you are online. The page tries again by itself.',
  ANSWER_LOST: 'It may have been done or not. Send it again as it is: the same intent has the same key, so it is done once.',
  UNAUTHENTICATED: 'Sign in, then try again.',
  FORBIDDEN: 'Your account or key may not do this. Sign in as somebody who may.',
  NOT_FOUND: 'Check the id. What is not yours looks like what is not there: sign in as who owns it.',
  RATE_LIMITED: 'Too much at a time. The page waits and tries again by itself.',
  TIMEOUT: 'Try again. Nothing is bought twice: the same intent has the same key.',
  UNAVAILABLE: 'Try again in a moment. Nothing is bought twice: the same intent has the same key.',
  BAD_USER_INPUT: 'Check the link or what you typed.',
  GRAPHQL_VALIDATION_FAILED: 'The page and the service are of different versions. Load the page again.',
  PERSISTED_QUERY_NOT_IN_LIST: 'This service takes listed documents only; those of the console are not among them.',
  INTERNAL_SERVER_ERROR: 'A fault of the service. Its log has the cause under the request id.',
};

interface WireError {
  message: string;
  extensions?: { code?: string; requestId?: string; retryAfterMs?: number };
}

function fromWire(error: WireError): ApiError {
  const { code, requestId, retryAfterMs } = error.extensions ?? {};
  return new ApiError(code ?? 'INTERNAL_SERVER_ERROR', error.message, requestId, retryAfterMs);
}

/** Who asks. Tokens are in memory only: not in storage, not in an address. */
interface Credentials {
  token: string;
  renew(): Promise<boolean>;
}

let credentials: Credentials | null = null;
let socket: WebSocket | null = null;

/** Who asks from now on; the streams begin again as them, behind what was seen. */
export function become(next: Credentials | null): void {
  credentials = next;
  client.terminate();
}

/** The same caller has a new token; the socket goes on. */
export function renewed(token: string): void {
  if (credentials) credentials.token = token;
  if (socket?.readyState === WebSocket.OPEN) {
    socket.send(JSON.stringify({ type: 'ping', payload: { authorization: `Bearer ${token}` } }));
  }
}

const renew = async (): Promise<boolean> => (await credentials?.renew()) ?? false;

/** How far our clock is ahead of the service's. */
let ahead = 0;
export const serviceNow = (): number => Date.now() - ahead;
export function tellTime(now: string): void {
  ahead = Date.now() - Date.parse(now);
}

async function post(document: Document, variables: object, token: string | undefined): Promise<Record<string, unknown>> {
  let response: Response;
  try {
    response = await fetch(address('graphql'), {
      method: 'POST',
      headers: {
        accept: 'application/graphql-response+json, application/json',
        'content-type': 'application/json',
        ...(token ? { authorization: `Bearer ${token}` } : {}),
      },
      body: JSON.stringify({ query: text(document), variables }),
      credentials: 'omit',
    });
  } catch {
    throw new ApiError('NO_ANSWER', 'The service does not answer.');
  }
  let body: { data?: Record<string, unknown> | null; errors?: WireError[] };
  try {
    body = await response.json();
  } catch {
    throw new ApiError('NO_ANSWER', `Something other than the service answered, with status ${response.status}.`);
  }
  if (body.errors?.[0]) throw fromWire(body.errors[0]);
  if (!body.data) throw new ApiError('NO_ANSWER', `An answer without data, with status ${response.status}.`);
  return body.data;
}

/** Asks once; a token that ended is renewed and the question asked again. */
export async function ask<D extends Document>(document: D, variables: Variables<D>, anonymous = false): Promise<Result<D>> {
  const token = anonymous ? undefined : credentials?.token;
  try {
    return (await post(document, variables as object, token)) as Result<D>;
  } catch (cause) {
    if (!token || !(cause instanceof ApiError) || cause.code !== 'UNAUTHENTICATED' || !(await renew())) throw cause;
    return (await post(document, variables as object, credentials?.token)) as Result<D>;
  }
}

const client = createClient({
  url: () => address('graphql/ws').replace(/^http/, 'ws'),
  connectionParams: () => (credentials ? { authorization: `Bearer ${credentials.token}` } : {}),
  // Going on behind the last cursor is ours; the library would ask again from the beginning.
  retryAttempts: 0,
  keepAlive: 12_000,
  on: {
    connecting: () => (connected.value = false),
    connected: (opened) => {
      socket = opened as WebSocket;
      connected.value = true;
    },
    closed: () => {
      socket = null;
      connected.value = false;
    },
  },
});

/** Whether the socket stands. */
export const connected = signal(false);

const NEVER = [1009, 4400, 4406, 4409, 4429];

/** What a break of a stream means. */
export function faultOf(cause: unknown): Fault {
  if (Array.isArray(cause)) {
    const error = fromWire(cause[0] as WireError);
    const message = `${error.message} ${error.advice}`;
    if (error.code === 'CURSOR_EXPIRED') return { message, again: 'anew' };
    if (error.code === 'UNAUTHENTICATED') return { message, again: credentials ? 'renew' : 'never' };
    const passing = ['RATE_LIMITED', 'TIMEOUT', 'UNAVAILABLE', 'INTERNAL_SERVER_ERROR'];
    return { message, again: passing.includes(error.code) ? 'wait' : 'never' };
  }
  const code = (cause as { code?: number } | null)?.code ?? 0;
  if (code === 4401 || code === 4403) return { message: 'The token ended.', again: credentials ? 'renew' : 'wait' };
  if (NEVER.includes(code)) return { message: `The service closed the stream (${code}).`, again: 'never' };
  return { message: 'The connection is down.', again: code === 1012 || code === 4499 ? 'now' : 'wait' };
}

/** Waits, but no longer than until the machine is online again. */
function pause(ms: number): Promise<void> {
  return new Promise((resolve) => {
    const done = () => {
      clearTimeout(timer);
      removeEventListener('online', done);
      resolve();
    };
    const timer = setTimeout(done, ms);
    addEventListener('online', done);
  });
}

/** Follows a subscription of one field; returns how to stop. */
export function stream<E extends { cursor: string }>(
  document: Document,
  variables: object,
  options: {
    after: string | null;
    event(event: E): void;
    anew(): void;
    state?(state: 'live' | 'reconnecting' | 'over', fault?: Fault): void;
    endless?: boolean;
  },
): () => void {
  return follow<E>({
    after: options.after,
    event: options.event,
    anew: options.anew,
    state: options.state ?? (() => undefined),
    endless: options.endless ?? false,
    renew,
    wait: pause,
    open: (after, sink) =>
      client.subscribe<Record<string, E>>(
        { query: text(document), variables: { ...variables, after } },
        {
          next: (value) => {
            const event = value.data && Object.values(value.data)[0];
            if (value.errors) sink.broken(faultOf(value.errors));
            else if (event) sink.next(event);
          },
          error: (cause) => sink.broken(faultOf(cause)),
          complete: () => sink.over(),
        },
      ),
  });
}

/** Where GraphiQL shows a query. */
export function inGraphiql(query: string, variables: object = {}): string {
  return `graphiql#query=${encodeURIComponent(query)}&variables=${encodeURIComponent(JSON.stringify(variables))}`;
}

/** The same as a command. The token stays a name, so that it gets into no history. */
export function asCurl(query: string, variables: object = {}): string {
  const body = JSON.stringify({ query, variables }).replaceAll("'", "'\\''");
  const authorization = credentials ? ' -H "authorization: Bearer $TOKEN"' : '';
  return `curl -s ${address('graphql')}${authorization} -H 'content-type: application/json' -d '${body}'`;
}
