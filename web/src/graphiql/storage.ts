// What GraphiQL may leave in the browser: how it looks, and operations without their headers. It would keep headers in its
// history, and whatever one types into variables; an operation that has to do with a secret is not kept at all.

import type { Storage } from '@graphiql/toolkit';

const PREFIX = 'graphiql:';
/** Lists of operations: the tabs, the history and its favourites. */
const OPERATIONS: Record<string, string> = { tabState: 'tabs', queries: 'queries', favorites: 'favorites' };
const LOOKS = /^(theme|visiblePlugin|\w*Flex)$/;
const SECRET = /password|token|secret|authorization|bearer/i;

/** The stored text of a list of operations without what must not be kept. */
function harmless(text: string, list: string): string {
  const stored = JSON.parse(text) as Record<string, unknown>;
  const operations = (stored[list] ?? []) as Record<string, unknown>[];
  const kept = operations
    .filter(({ query, variables }) => !SECRET.test(`${query} ${variables}`))
    .map((operation) => ({ ...operation, headers: null }));
  return JSON.stringify({ ...stored, [list]: kept });
}

/** The browser's storage behind that filter; `plugin` is open where nothing is known of what was open last. */
export function filtered(plugin: string): Storage {
  // Private windows and strict settings have none; GraphiQL then begins anew each time.
  const memory = new Map<string, string>();
  let kept: globalThis.Storage | undefined;
  try {
    kept = globalThis.localStorage;
  } catch {
    kept = undefined;
  }
  const read = (key: string) => memory.get(key) ?? kept?.getItem(key) ?? null;
  const storage: Storage = {
    get length() {
      return memory.size;
    },
    getItem: (key) => read(key) ?? (key === `${PREFIX}visiblePlugin` ? plugin : null),
    setItem(key, value) {
      memory.set(key, value);
      const name = key.slice(PREFIX.length);
      const list = OPERATIONS[name];
      if (list) kept?.setItem(key, harmless(value, list));
      else if (LOOKS.test(name)) kept?.setItem(key, value);
    },
    removeItem(key) {
      memory.delete(key);
      // That nothing is open is something to remember.
      if (key === `${PREFIX}visiblePlugin`) kept?.setItem(key, 'none');
      else kept?.removeItem(key);
    },
    clear() {
      for (const key of memory.keys()) kept?.removeItem(key);
      memory.clear();
    },
  };
  return storage;
}
