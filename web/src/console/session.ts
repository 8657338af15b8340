// Who is signed in. What was given to sign in is forgotten, tokens live in this module until the page is closed.

import { signal } from '@preact/signals';
import { ApiError, ask, become, renewed } from './api';
import { graphql, type Result } from './graphql';

const TOKENS = graphql(`
  fragment TokenParts on Tokens {
    accessToken accessTokenExpiresAt refreshToken user { id displayName role }
  }
`);

const LOGIN = graphql(`
  mutation SignIn($input: LoginInput!) {
    login(input: $input) { tokens { ...TokenParts } userErrors { code message field } }
  }
`, [TOKENS]);

const REGISTER = graphql(`
  mutation SignUp($input: RegisterUserInput!) {
    registerUser(input: $input) { tokens { ...TokenParts } userErrors { code message field } }
  }
`, [TOKENS]);

const REFRESH = graphql(`
  mutation RenewSession($input: RefreshSessionInput!) {
    refreshSession(input: $input) { tokens { ...TokenParts } userErrors { code message } }
  }
`, [TOKENS]);

const LOGOUT = graphql(`
  mutation SignOut { logout { session { id } userErrors { code message } } }
`);

const ME = graphql(`
  query Me { me { id displayName role } }
`);

type Tokens = Result<typeof TOKENS>;
export type Viewer = Tokens['user'];
export interface Refusal {
  code: string;
  message: string;
  field: string[] | null;
}

/** Who looks at the page; null is nobody in particular. */
export const viewer = signal<Viewer | null>(null);
/** Why one is not signed in any more. */
export const ended = signal('');

/** How long before its end a token is renewed. */
const EARLY = 60_000;
/** What a browser's timer can count to is 24 days. */
const LONGEST = 24 * 86_400_000;

let refreshToken: string | null = null;
let renewing: Promise<boolean> | null = null;
let timer: ReturnType<typeof setTimeout> | undefined;

function enter(tokens: Tokens): void {
  refreshToken = tokens.refreshToken;
  become({ token: tokens.accessToken, renew });
  ended.value = '';
  viewer.value = tokens.user;
  schedule(tokens);
}

function schedule(tokens: Tokens): void {
  clearTimeout(timer);
  const left = Date.parse(tokens.accessTokenExpiresAt) - Date.now() - EARLY;
  timer = setTimeout(() => void renew(), Math.min(Math.max(left, 5_000), LONGEST));
}

function leave(reason: string): void {
  clearTimeout(timer);
  refreshToken = null;
  become(null);
  viewer.value = null;
  ended.value = reason;
}

/** Renews the session, once however many ask for it. */
function renew(): Promise<boolean> {
  renewing ??= renewOnce().finally(() => (renewing = null));
  return renewing;
}

async function renewOnce(): Promise<boolean> {
  if (!refreshToken) {
    leave('The token ended. Sign in again.');
    return false;
  }
  try {
    const { refreshSession } = await ask(REFRESH, { input: { refreshToken } }, true);
    const tokens = refreshSession?.tokens;
    if (!tokens) throw new ApiError('UNAUTHENTICATED', 'The session ended.');
    refreshToken = tokens.refreshToken;
    renewed(tokens.accessToken);
    schedule(tokens);
    return true;
  } catch (cause) {
    if (cause instanceof ApiError && cause.code !== 'UNAUTHENTICATED') {
      // The service is away for a moment; the session is not over.
      clearTimeout(timer);
      timer = setTimeout(() => void renew(), 5_000);
      return false;
    }
    leave('Your session ended. Sign in again.');
    return false;
  }
}

export async function signIn(input: { email: string; password: string }): Promise<Refusal[]> {
  const { login } = await ask(LOGIN, { input }, true);
  if (login?.tokens) enter(login.tokens);
  return login?.userErrors ?? [];
}

export async function signUp(input: { email: string; password: string; displayName: string }): Promise<Refusal[]> {
  const { registerUser } = await ask(REGISTER, { input }, true);
  if (registerUser?.tokens) enter(registerUser.tokens);
  return registerUser?.userErrors ?? [];
}

/** Signs in by an access token or an API key, which cannot be renewed. */
export async function useToken(token: string): Promise<void> {
  become({ token, renew });
  try {
    const { me } = await ask(ME, {});
    if (!me) throw new ApiError('UNAUTHENTICATED', 'The token belongs to nobody.');
    ended.value = '';
    viewer.value = me;
  } catch (cause) {
    become(null);
    throw cause;
  }
}

export async function signOut(): Promise<void> {
  try {
    // An API key or a pasted token is only forgotten: its session belongs to another program.
    if (refreshToken) await ask(LOGOUT, {});
  } finally {
    leave('');
  }
}
