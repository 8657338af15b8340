// All that happened to one thing: what the log has, then what follows, in order and without a gap between the two.

import { useEffect, useState } from 'preact/hooks';
import { type ApiError, ask, stream } from './api';
import { EVENT, type MarketEvent } from './events';
import { graphql, type Result } from './graphql';
import { asFault } from './query';
import { viewer } from './session';

const TASK_PAST = graphql(`
  query TaskHistory($id: ID!, $after: EventCursor) {
    events(filter: { taskId: $id }, first: 100, after: $after) { nodes { ...EventParts } pageInfo { endCursor hasNextPage } }
  }
`, [EVENT]);
const TASK_NEXT = graphql(`
  subscription TaskEvents($id: ID!, $after: EventCursor) { taskEvents(taskId: $id, after: $after) { ...EventParts } }
`, [EVENT]);
const DELEGATION_PAST = graphql(`
  query DelegationHistory($id: ID!, $after: EventCursor) {
    delegation(id: $id) { events(first: 100, after: $after) { nodes { ...EventParts } pageInfo { endCursor hasNextPage } } }
  }
`, [EVENT]);
const DELEGATION_NEXT = graphql(`
  subscription DelegationEvents($id: ID!, $after: EventCursor) { delegationEvents(delegationId: $id, after: $after) { ...EventParts } }
`, [EVENT]);

export const HISTORY = { task: TASK_PAST, delegation: DELEGATION_PAST };

/** What one page keeps of a history. */
const MOST = 500;

type Page = NonNullable<Result<typeof TASK_PAST>['events']>;

async function past(kind: 'task' | 'delegation', id: string): Promise<{ events: MarketEvent[]; after: string | null }> {
  const events: MarketEvent[] = [];
  let after: string | null = null;
  for (;;) {
    const page: Page | null | undefined = kind === 'task' ? (await ask(TASK_PAST, { id, after })).events : (await ask(DELEGATION_PAST, { id, after })).delegation?.events;
    if (!page) return { events, after };
    events.push(...page.nodes);
    after = page.pageInfo.endCursor ?? after;
    if (!page.pageInfo.hasNextPage) return { events, after };
  }
}

/** The events of a task or a delegation, and a call for each that is new. */
export function useHistory(kind: 'task' | 'delegation', id: string, happened: () => void): { events: readonly MarketEvent[]; fault: ApiError | null } {
  const [state, setState] = useState<{ events: readonly MarketEvent[]; fault: ApiError | null }>({ events: [], fault: null });
  const who = viewer.value?.id;
  useEffect(() => {
    let stop: (() => void) | undefined;
    let gone = false;
    const begin = async () => {
      try {
        const { events, after } = await past(kind, id);
        if (gone) return;
        setState({ events: events.slice(-MOST), fault: null });
        stop = stream<MarketEvent>(kind === 'task' ? TASK_NEXT : DELEGATION_NEXT, { id }, {
          after,
          event: (event) => {
            setState((before) => ({ events: [...before.events, event].slice(-MOST), fault: null }));
            happened();
          },
          anew: () => {
            stop?.();
            void begin();
          },
          state: (state, fault) => {
            if (state === 'over' && !fault) happened();
          },
        });
      } catch (cause) {
        if (!gone) setState((before) => ({ ...before, fault: asFault(cause) }));
      }
    };
    if (who) void begin();
    return () => {
      gone = true;
      stop?.();
    };
  }, [kind, id, who]);
  return state;
}
