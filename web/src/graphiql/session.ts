// Who is signed in. The tokens are kept in these variables alone: another page, a reload and whoever reads the browser's storage
// later find nothing.

import { createClient } from 'graphql-ws';

/** Where the service is, relative to this page: it may stand below any path. */
const service = (path: string) => new URL(path, document.baseURI);
const ENDPOINT = service('./graphql');
const SOCKET = service('./graphql/ws');
SOCKET.protocol = SOCKET.protocol.replace('http', 'ws');

/** How long before its end an access token is renewed. */
const BEFORE_THE_END = 60_000;
/** Timers take no longer. */
const LONGEST = 2 ** 31 - 1;

interface Tokens {
  accessToken: string;
  accessTokenExpiresAt: string;
  refreshToken: string;
  user: { displayName: string };
}

interface Payload {
  tokens: Tokens | null;
  userErrors: { message: string }[];
}

let token = '';
let socket: WebSocket | undefined;
let renewal: ReturnType<typeof setTimeout> | undefined;
let tell: (who: string) => void = () => {};

/** `who` is told of everybody who signs in, by name, and of nobody. */
export function onChange(who: (name: string) => void): void {
  tell = who;
}

export const socketClient = createClient({
  url: SOCKET.href,
  lazy: true,
  retryAttempts: 20,
  connectionParams: () => (token ? { authorization: `Bearer ${token}` } : {}),
  on: {
    connected: (connected) => {
      socket = connected as WebSocket;
    },
  },
});

/** As `fetch`, in the name of who is signed in, unless the request has a name already. */
export function signedFetch(input: RequestInfo | URL, init: RequestInit = {}): Promise<Response> {
  const headers = new Headers(init.headers);
  if (token && !headers.has('authorization')) headers.set('authorization', `Bearer ${token}`);
  return fetch(input, { ...init, headers });
}

export const endpoint = ENDPOINT.href;

async function ask(field: 'login' | 'refreshSession', type: string, input: object): Promise<Tokens> {
  const query = `mutation($input: ${type}!) {
    ${field}(input: $input) {
      tokens { accessToken accessTokenExpiresAt refreshToken user { displayName } }
      userErrors { message }
    }
  }`;
  const response = await fetch(ENDPOINT, {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify({ query, variables: { input } }),
  });
  const answer = (await response.json()) as { data?: Record<string, Payload | null>; errors?: { message: string }[] };
  const payload = answer.data?.[field];
  if (payload?.tokens) return payload.tokens;
  throw new Error(payload?.userErrors[0]?.message ?? answer.errors?.[0]?.message ?? 'The service did not answer.');
}

/** Uses new tokens from now on, and has them renewed in time. */
function take(tokens: Tokens): void {
  token = tokens.accessToken;
  clearTimeout(renewal);
  const left = Date.parse(tokens.accessTokenExpiresAt) - Date.now() - BEFORE_THE_END;
  renewal = setTimeout(() => void renew(tokens.refreshToken), Math.min(Math.max(left, 1_000), LONGEST));
  tell(tokens.user.displayName);
}

async function renew(refreshToken: string): Promise<void> {
  try {
    take(await ask('refreshSession', 'RefreshSessionInput', { refreshToken }));
    // A socket that is open goes on with the new token.
    if (socket?.readyState === WebSocket.OPEN) {
      socket.send(JSON.stringify({ type: 'ping', payload: { authorization: `Bearer ${token}` } }));
    }
  } catch {
    signOut();
  }
}

/** Whoever was there before is not listened to any longer. */
function reconnect(): void {
  if (socket?.readyState === WebSocket.OPEN) socketClient.terminate();
}

export async function signIn(email: string, password: string): Promise<void> {
  take(await ask('login', 'LoginInput', { email, password }));
  reconnect();
}

export async function useToken(pasted: string): Promise<void> {
  const response = await fetch(ENDPOINT, {
    method: 'POST',
    headers: { 'content-type': 'application/json', authorization: `Bearer ${pasted}` },
    body: JSON.stringify({ query: '{ me { displayName } }' }),
  });
  const answer = (await response.json()) as { data?: { me: { displayName: string } | null }; errors?: { message: string }[] };
  if (!answer.data?.me) throw new Error(answer.errors?.[0]?.message ?? 'The service does not know this token.');
  clearTimeout(renewal);
  token = pasted;
  tell(answer.data.me.displayName);
  reconnect();
}

export function signOut(): void {
  clearTimeout(renewal);
  token = '';
  tell('');
  reconnect();
}
