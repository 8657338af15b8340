// The frame of the console: where one is, how it is connected, who is signed in.

import { effect } from '@preact/signals';
import { type ComponentType, render } from 'preact';
import { useEffect } from 'preact/hooks';
import { Auction, Auctions } from './auction';
import './design.css';
import { Delegation, Delegations } from './delegation';
import { titleOf } from './events';
import { Floor } from './floor';
import { Agent, Leaderboard } from './leaderboard';
import { listen, start, status, trouble } from './live';
import { Away, Boundary, Empty, said, say } from './parts';
import { Post } from './post';
import { link, type Route } from './router';
import { signOut, viewer } from './session';
import { SignIn } from './sign-in';
import { System } from './system';
import { Task, Tasks } from './task';
import { Channel, Wallet } from './wallet';
import { route } from './where';

const PAGES: Record<string, { title: string; view: ComponentType<{ route: Route }>; part?: string }> = {
  floor: { title: 'Floor', view: Floor },
  auctions: { title: 'Auctions', view: Auctions },
  auction: { title: 'Auction', view: Auction, part: 'auctions' },
  leaderboard: { title: 'Leaderboard', view: Leaderboard },
  agent: { title: 'Agent', view: Agent, part: 'leaderboard' },
  tasks: { title: 'Tasks', view: Tasks },
  task: { title: 'Task', view: Task, part: 'tasks' },
  post: { title: 'Post a task', view: Post, part: 'tasks' },
  delegations: { title: 'Delegations', view: Delegations },
  delegation: { title: 'Delegation', view: Delegation, part: 'delegations' },
  wallet: { title: 'Wallet', view: Wallet },
  channel: { title: 'Channel', view: Channel, part: 'wallet' },
  system: { title: 'System', view: System },
  'sign-in': { title: 'Sign in', view: SignIn },
};
const PARTS = ['floor', 'auctions', 'leaderboard', 'tasks', 'delegations', 'wallet', 'system'];

effect(() => {
  document.title = `${PAGES[route.value.page]?.title ?? 'Not found'} – ZeroState`;
});

/** Tells a screen reader what happens, at most every ten seconds and in one sentence. */
function useNarrator(): void {
  useEffect(() => {
    let many = 0;
    let latest = '';
    const stop = listen((events) => {
      many += events.length;
      const event = events.at(-1);
      if (event) latest = titleOf(event);
    });
    const timer = setInterval(() => {
      if (many > 0 && route.value.page === 'floor' && status.value === 'live') say(`${many} ${many === 1 ? 'event' : 'events'}, the last: ${latest}`);
      many = 0;
    }, 10_000);
    return () => {
      stop();
      clearInterval(timer);
    };
  }, []);
}

function Pill() {
  return (
    <span class={`pill ${status.value}`} role="status" aria-label={`Events: ${status.value}`} title={trouble.value || 'Events arrive by WebSocket; after a break they go on behind the last one'}>
      <span class="mark" aria-hidden="true" />{status.value}
    </span>
  );
}

function Account() {
  if (!viewer.value) return <a class="button" href={link('sign-in')}>Sign in</a>;
  return (
    <span class="account">
      <span title={viewer.value.id}>{viewer.value.displayName}</span>
      <button type="button" class="quiet" onClick={() => void signOut().finally(() => say('Signed out'))}>Sign out</button>
    </span>
  );
}

function App() {
  useNarrator();
  const page = PAGES[route.value.page];
  const View = page?.view;
  const part = page?.part ?? route.value.page;
  return (
    <>
      <button type="button" class="skip" onClick={() => document.querySelector<HTMLElement>('main')?.focus()}>Skip to the content</button>
      <header class="top">
        <a class="brand" href={link('floor')} aria-label="ZeroState, to the floor"><svg viewBox="0 0 24 24" width="22" height="22" aria-hidden="true"><circle cx="12" cy="12" r="9" /><path d="M6 18 18 6" /></svg>ZeroState</a>
        <nav aria-label="Main">
          <ul>{PARTS.map((one) => <li key={one}><a href={link(one)} aria-current={part === one ? 'page' : undefined}>{PAGES[one]?.title}</a></li>)}</ul>
        </nav>
        <div class="end"><Pill /><a class="button primary" href={link('post')}>Post a task</a><Account /></div>
      </header>
      <main tabIndex={-1}>
        {status.value === 'off' && <div class="trouble" role="alert">Events no longer arrive. {trouble.value} Load the page again.</div>}
        <Boundary key={`${route.value.page}/${route.value.id}`}>
          {View ? <View key={`${route.value.page}/${route.value.id}`} route={route.value} /> : (
            <>
              <h1 tabIndex={-1}>Not found</h1>
              <Empty>No page has this address. <a href={link('floor')}>Go to the floor.</a></Empty>
            </>
          )}
        </Boundary>
      </main>
      <footer>Times are in UTC, local on hover. Amounts are exact. <Away to="graphiql">GraphiQL</Away> · <Away to="graphql/schema.graphql">schema</Away></footer>
      <div class="sr" role="status" aria-live="polite">{said.value}</div>
    </>
  );
}

const root = document.getElementById('app');
if (root) {
  start();
  render(<App />, root);
}
