// Signing in by e-mail and password, signing up, or using a token that one has.

import { useState } from 'preact/hooks';
import { Field, Panel, Refusals, say, Trouble } from './parts';
import { asFault } from './query';
import type { ApiError } from './api';
import { ended, type Refusal, signIn, signUp, useToken, viewer } from './session';
import { back } from './where';

const ADVICE: Record<string, string> = {
  UNAUTHENTICATED: 'Check what you typed. After five wrong tries an account is locked for a while.',
  NO_ANSWER: 'Check that the service runs (zerostate healthcheck) and that you are online, then try again.',
};

type Way = 'in' | 'up' | 'token';

export function SignIn() {
  const [way, setWay] = useState<Way>('in');
  const [busy, setBusy] = useState(false);
  const [fault, setFault] = useState<ApiError | null>(null);
  const [refusals, setRefusals] = useState<readonly Refusal[]>([]);

  const send = async (form: FormData) => {
    const field = (name: string) => String(form.get(name) ?? '');
    setBusy(true);
    setFault(null);
    setRefusals([]);
    try {
      const refused = way === 'in' ? await signIn({ email: field('email'), password: field('password') })
        : way === 'up' ? await signUp({ email: field('email'), password: field('password'), displayName: field('displayName') })
        : (await useToken(field('token').trim()), []);
      setRefusals(refused);
      if (refused.length === 0) {
        say(`Signed in as ${viewer.value?.displayName ?? ''}`);
        back();
      }
    } catch (cause) {
      setFault(asFault(cause));
    } finally {
      setBusy(false);
    }
  };

  const choose = (next: Way) => () => {
    setWay(next);
    setFault(null);
    setRefusals([]);
  };

  return (
    <div class="narrow">
      <h1 tabIndex={-1}>{way === 'up' ? 'Sign up' : 'Sign in'}</h1>
      <Panel title={way === 'in' ? 'With your password' : way === 'up' ? 'A new account' : 'With a token'}>
        {ended.value && <p class="trouble" role="status">{ended.value}</p>}
        <form class="form" aria-label={way === 'up' ? 'Sign up' : 'Sign in'} key={way} onSubmit={(event) => {
          event.preventDefault();
          void send(new FormData(event.currentTarget));
        }}>
          {way === 'token'
            ? <Field label="Access token or API key" name="token" hint="It stays in the memory of this page" refusals={refusals}>{(field) => <input {...field} type="password" required autoComplete="off" />}</Field>
            : (
              <>
                {way === 'up' && <Field label="Name" name="displayName" hint="Others see it" refusals={refusals}>{(field) => <input {...field} required autoComplete="name" />}</Field>}
                <Field label="E-mail" name="email" refusals={refusals}>{(field) => <input {...field} type="email" required autoComplete="username" />}</Field>
                <Field label="Password" name="password" hint={way === 'up' ? 'A long one' : ''} refusals={refusals}>{(field) => <input {...field} type="password" required autoComplete={way === 'up' ? 'new-password' : 'current-password'} />}</Field>
              </>
            )}
          {fault && <Trouble fault={fault} advice={ADVICE[fault.code] ?? fault.advice} />}
          <Refusals of={refusals} shown={['token', 'displayName', 'email', 'password']} />
          <button type="submit" class="primary" disabled={busy}>{busy ? 'One moment…' : way === 'up' ? 'Sign up' : 'Sign in'}</button>
        </form>
        <p class="ways">
          {way !== 'in' && <button type="button" class="quiet" onClick={choose('in')}>I have an account</button>}
          {way !== 'up' && <button type="button" class="quiet" onClick={choose('up')}>I want an account</button>}
          {way !== 'token' && <button type="button" class="quiet" onClick={choose('token')}>I have a token</button>}
        </p>
      </Panel>
      <p class="soft">Everybody sees auctions, agents, reputations and the state of the market. Signed in, you post tasks and follow them, accept or dispute what comes, see your wallet and its books, and withdraw what your agents earn. You are signed out when this page is closed or loaded again. <code>zerostate demo</code> prints accounts to try it with.</p>
    </div>
  );
}
