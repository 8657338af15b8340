// One stream of events over any number of connections: after a break it goes on behind the last cursor, so nothing is missing and
// nothing comes twice.

export interface Sink<E> {
  next(event: E): void;
  /** The stream broke; `again` says what helps. */
  broken(fault: Fault): void;
  /** The service has nothing more to say. */
  over(): void;
}

export interface Fault {
  message: string;
  /** `wait` and `now` open the stream again, `renew` with a new token, `anew` without the cursor, `never` not at all. */
  again: 'wait' | 'now' | 'renew' | 'anew' | 'never';
}

export interface Following<E> {
  after: string | null;
  open(after: string | null, sink: Sink<E>): () => void;
  event(event: E): void;
  /** Whether the stream stands. */
  state(state: 'live' | 'reconnecting' | 'over', fault?: Fault): void;
  /** The log no longer reaches back to the cursor: what is shown has to be loaded anew. */
  anew(): void;
  /** Gets a new token; false when there is none to get. */
  renew(): Promise<boolean>;
  /** Opens again, too, what the service ended by itself. */
  endless: boolean;
  wait(ms: number): Promise<void>;
}

const FIRST_WAIT = 500;
const LONGEST_WAIT = 10_000;
const REMEMBERED = 500;
const REFUSED_AGAIN = 5_000;

export function follow<E extends { cursor: string }>(following: Following<E>): () => void {
  let after = following.after;
  let stopped = false;
  let failures = 0;
  let renewed = -Infinity;
  let close: (() => void) | undefined;
  const seen = new Set<string>();

  const open = () => {
    if (stopped) return;
    let mine = true;
    const once = (act: () => void) => {
      if (!mine || stopped) return;
      mine = false;
      act();
    };
    close = following.open(after, {
      next(event) {
        if (!mine || stopped || seen.has(event.cursor)) return;
        seen.add(event.cursor);
        if (seen.size > REMEMBERED) seen.delete(seen.values().next().value ?? '');
        after = event.cursor;
        failures = 0;
        following.event(event);
      },
      broken: (fault) => once(() => void again(fault)),
      over: () => once(() => {
        if (following.endless) void again({ message: 'The service ended the stream.', again: 'wait' });
        else end();
      }),
    });
    if (mine) following.state('live');
  };

  const end = (fault?: Fault) => {
    stopped = true;
    following.state('over', fault);
  };

  const again = async (fault: Fault) => {
    following.state('reconnecting', fault);
    if (fault.again === 'never') return end(fault);
    if (fault.again === 'anew') {
      after = null;
      seen.clear();
      following.anew();
    }
    if (fault.again === 'renew') {
      // A token that was renewed just now and is refused again would be refused for ever.
      if (performance.now() - renewed < REFUSED_AGAIN || !(await following.renew())) return end(fault);
      renewed = performance.now();
    }
    if (fault.again === 'wait' || (fault.again === 'now' && failures > 0) || fault.again === 'anew') {
      const longest = Math.min(FIRST_WAIT * 2 ** failures, LONGEST_WAIT);
      await following.wait(longest / 2 + (Math.random() * longest) / 2);
    }
    failures += 1;
    open();
  };

  open();
  return () => {
    stopped = true;
    close?.();
  };
}
