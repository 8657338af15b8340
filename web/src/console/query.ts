// A question that is asked again when something happened that its answer depends on.

import { useSignalEffect } from '@preact/signals';
import { useCallback, useEffect, useRef, useState } from 'preact/hooks';
import { ApiError, ask } from './api';
import type { MarketEvent } from './events';
import type { Document, Result, Variables } from './graphql';
import { generation, listen } from './live';
import { type Refusal, viewer } from './session';

/** Between two questions of one view. */
const PACE = 1_200;

export interface Answer<R> {
  data: R | null;
  fault: ApiError | null;
  reload(): void;
}

export const asFault = (cause: unknown): ApiError =>
  cause instanceof ApiError ? cause : new ApiError('PAGE', cause instanceof Error ? cause.message : String(cause));

export function useQuery<D extends Document>(
  document: D,
  variables: Variables<D>,
  options: { when?: (event: MarketEvent) => boolean; every?: number; skip?: boolean } = {},
): Answer<Result<D>> {
  const [state, setState] = useState<{ key: string; data: Result<D> | null; fault: ApiError | null }>({ key: '', data: null, fault: null });
  const key = JSON.stringify([variables, options.skip ?? false]);
  const run = useRef({ at: 0, timer: 0, latest: 0, when: options.when });
  run.current.when = options.when;

  const load = useCallback(() => {
    if (options.skip) return;
    const mine = ++run.current.latest;
    run.current.at = performance.now();
    clearTimeout(run.current.timer);
    run.current.timer = 0;
    const settle = (next: { data: Result<D> | null; fault: ApiError | null }) => {
      if (mine !== run.current.latest) return;
      setState((before) => ({ key, data: next.data ?? (before.key === key ? before.data : null), fault: next.fault }));
    };
    ask(document, variables).then(
      (data) => settle({ data, fault: null }),
      (cause: unknown) => {
        const fault = asFault(cause);
        settle({ data: null, fault });
        if (mine !== run.current.latest) return;
        if (fault.code === 'NO_ANSWER') later(3_000);
        if (fault.code === 'RATE_LIMITED' || fault.code === 'UNAVAILABLE') later(fault.retryAfterMs ?? 2_000);
      },
    );
  }, [document, key]);

  /** Loads once within so many milliseconds, however often it is asked to. */
  const later = (ms: number) => {
    if (!run.current.timer) run.current.timer = window.setTimeout(load, ms);
  };
  const soon = () => later(Math.max(60, run.current.at + PACE - performance.now()));

  useEffect(() => {
    load();
    const stop = listen((events) => {
      if (run.current.when && events.some(run.current.when)) soon();
    });
    const timer = options.every ? setInterval(() => window.document.hidden || soon(), options.every) : 0;
    return () => {
      stop();
      clearInterval(timer);
      clearTimeout(run.current.timer);
      run.current.timer = 0;
      run.current.latest += 1;
    };
  }, [load]);

  // Somebody else sees something else, and after a gap everything may be different.
  const first = useRef(true);
  useSignalEffect(() => {
    void viewer.value;
    void generation.value;
    if (first.current) first.current = false;
    else soon();
  });

  const mine = state.key === key;
  return { data: mine ? state.data : null, fault: mine ? state.fault : null, reload: load };
}

/** What somebody means to do, under one key however often it is sent; what is changed, or done, is another intent. */
export function useIntent(): {
  busy: boolean;
  fault: ApiError | null;
  refusals: readonly Refusal[];
  run(input: object, perform: (idempotencyKey: string) => Promise<readonly Refusal[] | undefined>): Promise<boolean>;
} {
  const [state, setState] = useState<{ busy: boolean; fault: ApiError | null; refusals: readonly Refusal[] }>({ busy: false, fault: null, refusals: [] });
  const intent = useRef({ input: '', key: '' });
  const busy = useRef(false);
  const run = async (input: object, perform: (idempotencyKey: string) => Promise<readonly Refusal[] | undefined>) => {
    if (busy.current) return false;
    busy.current = true;
    const text = JSON.stringify(input);
    if (intent.current.input !== text) intent.current = { input: text, key: newKey() };
    setState({ busy: true, fault: null, refusals: [] });
    try {
      const refusals = (await perform(intent.current.key)) ?? [];
      if (refusals.length === 0) intent.current = { input: '', key: '' };
      setState({ busy: false, fault: null, refusals });
      return refusals.length === 0;
    } catch (cause) {
      const fault = asFault(cause);
      setState({ busy: false, fault: fault.code === 'NO_ANSWER' ? new ApiError('ANSWER_LOST', fault.message) : fault, refusals: [] });
      return false;
    } finally {
      busy.current = false;
    }
  };
  return { ...state, run };
}

/** 128 random bits; unlike `randomUUID` they are there on plain HTTP too. */
function newKey(): string {
  return [...crypto.getRandomValues(new Uint8Array(16))].map((byte) => byte.toString(16).padStart(2, '0')).join('');
}
