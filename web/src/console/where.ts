// Where one is, and the way back from signing in.

import { signal } from '@preact/signals';
import { link, parse } from './router';

export const route = signal(parse(location.hash));
let before = link('floor');

export function back(): void {
  location.hash = before;
}

addEventListener('hashchange', () => {
  const next = parse(location.hash);
  const moved = next.page !== route.value.page || next.id !== route.value.id;
  if (route.value.page !== 'sign-in') before = link(route.value.page, route.value.id, route.value.search);
  route.value = next;
  if (!moved) return;
  scrollTo(0, 0);
  // A view that loads first has its heading a moment later.
  const focus = (tries: number) => {
    const heading = document.querySelector<HTMLElement>('main h1');
    if (heading) heading.focus({ preventScroll: true });
    else if (tries > 0) setTimeout(() => focus(tries - 1), 100);
  };
  setTimeout(() => focus(20), 0);
});
