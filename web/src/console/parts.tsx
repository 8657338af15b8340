// What every view is made of.

import { signal } from '@preact/signals';
import { Component, type ComponentChildren } from 'preact';
import { useId, useState } from 'preact/hooks';
import { type ApiError, asCurl, inGraphiql } from './api';
import type { Tone } from './events';
import { type Document, text, type Variables } from './graphql';
import { now } from './live';
import { amount, isZero, share, span, sum } from './money';
import { asFault } from './query';
import { link, pageOf } from './router';
import type { Refusal } from './session';

/** Leads out of the console in a tab of its own: leaving this page would sign one out. */
export function Away({ to, children, ...rest }: { to: string; children: ComponentChildren; class?: string; title?: string; 'aria-label'?: string }) {
  return <a href={to} target="_blank" rel="noopener" {...rest}>{children}</a>;
}

/** What a screen reader is told, politely. */
export const said = signal('');
export function say(sentence: string): void {
  said.value = '';
  setTimeout(() => (said.value = sentence), 50);
}

export async function copy(what: string, name: string): Promise<void> {
  try {
    await navigator.clipboard.writeText(what);
  } catch {
    // The clipboard is for HTTPS and this machine alone; a selected text can be copied on plain HTTP too.
    const area = document.createElement('textarea');
    area.value = what;
    document.body.append(area);
    area.select();
    document.execCommand('copy');
    area.remove();
  }
  say(`${name} copied`);
}

/** Behind numbers: the query they come from, in GraphiQL and as a command. */
export function Source<D extends Document>({ document, variables, of }: { document: D; variables: Variables<D>; of: string }) {
  const [copied, setCopied] = useState(false);
  const query = text(document);
  return (
    <span class="source">
      <Away to={inGraphiql(query, variables as object)} aria-label={`Open in GraphiQL: ${of}`}>GraphiQL</Away>
      <button type="button" class="quiet" aria-label={`Copy as curl: ${of}`} onClick={() => {
        void copy(asCurl(query, variables as object), 'Command');
        setCopied(true);
        setTimeout(() => setCopied(false), 1_500);
      }}>{copied ? 'copied' : 'curl'}</button>
    </span>
  );
}

export function Panel({ title, actions, children, wide = false, id }: {
  title: string; actions?: ComponentChildren; children: ComponentChildren; wide?: boolean; id?: string;
}) {
  const heading = useId();
  return (
    <section class={wide ? 'panel wide' : 'panel'} aria-labelledby={heading} id={id}>
      <header><h2 id={heading}>{title}</h2>{actions && <div class="actions">{actions}</div>}</header>
      {children}
    </section>
  );
}

/** A figure; its value leads to the query that it comes from. */
export function Figure({ label, value, query, variables, note, tone }: {
  label: string; value: ComponentChildren; query: string; variables?: object; note?: ComponentChildren; tone?: Tone;
}) {
  return (
    <div class="figure">
      <dt>{label}</dt>
      <dd>
        <Away class={`value ${tone ?? ''}`} to={inGraphiql(query, variables)} title="Open in GraphiQL">{value}<span class="sr"> – open in GraphiQL</span></Away>
        {note && <span class="note">{note}</span>}
      </dd>
    </div>
  );
}

export function Credits({ of, unit = false }: { of: string | null | undefined; unit?: boolean }) {
  if (of == null) return <span class="none">–</span>;
  return <span class="num">{amount(of)}{unit && <small> cr</small>}</span>;
}

const pad = (value: number, digits = 2) => String(value).padStart(digits, '0');

/** An instant in UTC; the local time is on hover. */
export function Time({ at, full = false }: { at: string | null | undefined; full?: boolean }) {
  if (!at) return <span class="none">–</span>;
  const instant = new Date(at);
  const day = `${instant.getUTCFullYear()}-${pad(instant.getUTCMonth() + 1)}-${pad(instant.getUTCDate())}`;
  const time = `${pad(instant.getUTCHours())}:${pad(instant.getUTCMinutes())}:${pad(instant.getUTCSeconds())}`;
  const today = new Date().toISOString().startsWith(day);
  return (
    <time dateTime={at} class="num" title={`${instant.toLocaleString(undefined, { dateStyle: 'medium', timeStyle: 'long' })} (local)`}>
      {full || !today ? `${day} ` : ''}{time}{full ? ' UTC' : ''}
    </time>
  );
}

/** The end of an id, which tells things apart; all of it is on hover. */
export const short = (id: string): string => `…${id.slice(-6)}`;

export function Id({ of, label }: { of: string; label?: string }) {
  const page = pageOf(of);
  const shown = label ?? short(of);
  return page ? <a class={label ? '' : 'id'} href={link(page, of)} title={of}>{shown}</a> : <span class="id" title={of}>{shown}</span>;
}

const TONES: Record<string, Tone> = {
  OPEN: 'info', REVEALING: 'info', AWARDED: 'good', EXPIRED: 'warn', CANCELLED: 'warn', RUNNING: 'info', SUBMITTED: 'info', COMPLETED: 'good',
  REFUNDED: 'bad', DISPUTED: 'warn', WON: 'good', LOST: 'plain', INELIGIBLE: 'warn', FORFEITED: 'bad', PLANNING: 'info', FAILED: 'bad',
  STOPPING: 'warn', SKIPPED: 'warn', PENDING: 'plain', CLOSED: 'plain', CLOSING: 'warn', ACTIVE: 'good', PAUSED: 'warn', RETIRED: 'plain',
  RELEASED: 'good', HELD: 'info', SPLIT: 'warn',
};

export function Badge({ children, tone }: { children: string; tone?: Tone }) {
  return <span class={`badge ${tone ?? TONES[children] ?? 'plain'}`}>{children.toLowerCase().replaceAll('_', ' ')}</span>;
}

/** A length beside a number that says the same. */
export function Bar({ percent, tone = 'info' }: { percent: number; tone?: Tone }) {
  return <span class={`bar ${tone}`} aria-hidden="true"><span style={{ width: `${Math.max(0, Math.min(100, percent))}%` }} /></span>;
}

/** The time to an instant, and how much of the whole time is left. */
export function Countdown({ from, to }: { from: string; to: string }) {
  const left = Date.parse(to) - now.value;
  const all = Date.parse(to) - Date.parse(from);
  return (
    <span class="countdown" title={`closes at ${to}`}>
      <span class="num">{left > 0 ? span(left) : 'closing'}</span>
      <Bar percent={all > 0 ? (100 * left) / all : 0} tone={left < 3_000 ? 'warn' : 'info'} />
    </span>
  );
}

/** Nothing is there, and how something gets there. */
export function Empty({ children, command }: { children: ComponentChildren; command?: string }) {
  return (
    <div class="empty">
      <p>{children}</p>
      {command && (
        <p class="command">
          <code>{command}</code>
          <button type="button" class="quiet" aria-label={`Copy: ${command}`} onClick={() => void copy(command, 'Command')}>copy</button>
        </p>
      )}
    </div>
  );
}

export function Loading() {
  return <p class="loading" role="status">Loading…</p>;
}

/** What went wrong, under which id the service's log has it, and what to do. */
export function Trouble({ fault, retry, advice = fault.advice }: { fault: ApiError; retry?: () => void; advice?: string }) {
  return (
    <div class="trouble" role="alert">
      <p><code>{fault.code}</code> {fault.message}</p>
      <p>{advice}</p>
      {fault.requestId && <p class="note">Request id <code>{fault.requestId}</code></p>}
      {retry && <button type="button" onClick={retry}>Try again</button>}
    </div>
  );
}

/** What a query answered, or why it did not; an older answer stays while the next one fails. */
export function Shown<R>({ answer, children }: { answer: { data: R | null; fault: ApiError | null; reload(): void }; children: (data: R) => ComponentChildren }) {
  return (
    <>
      {answer.fault && <Trouble fault={answer.fault} retry={answer.reload} />}
      {answer.data ? children(answer.data) : !answer.fault && <Loading />}
    </>
  );
}

/** What is for people who are signed in. */
export function SignInFirst({ adds }: { adds: string }) {
  return (
    <div class="empty">
      <p>{adds}</p>
      <p><a class="button" href={link('sign-in')}>Sign in</a></p>
    </div>
  );
}

/** A field with its label, its hint, and what the service said about it. */
export function Field({ label, name, hint, refusals = [], children }: {
  label: string; name: string; hint?: ComponentChildren; refusals?: readonly Refusal[]; children: (props: { id: string; name: string; 'aria-describedby': string; 'aria-invalid': boolean }) => ComponentChildren;
}) {
  const id = useId();
  const mine = refusals.filter(({ field }) => field?.at(-1) === name || field?.at(1) === name);
  return (
    <div class="field">
      <label for={id}>{label}</label>
      {children({ id, name, 'aria-describedby': `${id}-hint`, 'aria-invalid': mine.length > 0 })}
      <p id={`${id}-hint`} class={mine.length > 0 ? 'refusal' : 'hint'} role={mine.length > 0 ? 'alert' : undefined}>
        {mine.length > 0 ? mine.map(({ code, message }) => `${message} (${code})`).join('; ') : hint}
      </p>
    </div>
  );
}

/** What was refused without a field to show it at. */
export function Refusals({ of, shown = [] }: { of: readonly Refusal[]; shown?: readonly string[] }) {
  const others = of.filter(({ field }) => !field?.some((name) => shown.includes(name)));
  return others.length === 0 ? null : (
    <div class="trouble" role="alert">{others.map(({ code, message }) => <p key={message}><code>{code}</code> {message}</p>)}</div>
  );
}

export interface Posting {
  id: string;
  kind: string;
  amount: string;
  createdAt: string;
  reference?: string | null;
  task?: { id: string } | null;
  debit: Party | null;
  credit: Party | null;
}
interface Party {
  id: string;
  kind: string;
  user: { displayName: string } | null;
  agent: { id: string; name: string } | null;
}

const ACCOUNTS: Record<string, string> = {
  BOND: 'Bonds', ESCROW_CHANNEL: 'Escrow of a channel', ESCROW_DELEGATION: 'Escrow of a delegation', ESCROW_TASK: 'Escrow of a task',
  EXTERNAL: 'Outside the market', FEES: 'Fees of the market', USER: 'Wallet', AGENT: 'Earnings',
};

export function AccountName({ of }: { of: Party | null }) {
  if (!of) return <span class="none" title="An account that is not yours to see">another account</span>;
  const whose = of.agent ? <Id of={of.agent.id} label={of.agent.name} /> : of.user?.displayName;
  return <>{ACCOUNTS[of.kind] ?? of.kind}{whose && <> · {whose}</>} <span class="id" title={of.id}>{short(of.id)}</span></>;
}

/** Transfers as they stand in the books: what leaves one account comes into another. */
export function Postings({ of, caption }: { of: readonly Posting[]; caption: string }) {
  const all = sum(of.map((one) => one.amount));
  return (
    <div class="scroll" tabIndex={0} role="group" aria-label={caption}>
      <table class="postings">
        <caption class="sr">{caption}</caption>
        <thead><tr><th scope="col">Time</th><th scope="col">Transfer</th><th scope="col">Account</th><th scope="col" class="right">Out</th><th scope="col" class="right">In</th></tr></thead>
        {of.map((transfer) => (
          <tbody key={transfer.id}>
            <tr>
              <td rowSpan={2}><Time at={transfer.createdAt} /></td>
              <td rowSpan={2}>{transfer.kind.toLowerCase().replaceAll('_', ' ')}{transfer.task && <><br /><Id of={transfer.task.id} /></>}</td>
              <td><AccountName of={transfer.debit} /></td>
              <td class="right"><Credits of={transfer.amount} /></td>
              <td />
            </tr>
            <tr>
              <td class="indent"><AccountName of={transfer.credit} /></td>
              <td />
              <td class="right"><Credits of={transfer.amount} /></td>
            </tr>
          </tbody>
        ))}
        <tfoot><tr><th scope="row" colSpan={3}>Together</th><td class="right"><Credits of={all} /></td><td class="right"><Credits of={all} /></td></tr></tfoot>
      </table>
    </div>
  );
}

/** Which page of a list one is on; going on keeps the way back. */
export function usePages(of: string): { after: string | null; pager: (info: { endCursor: string | null; hasNextPage: boolean }) => ComponentChildren } {
  const [path, setPath] = useState<readonly string[]>([]);
  return {
    after: path.at(-1) ?? null,
    pager: (info) => (path.length > 0 || info.hasNextPage) && (
      <nav class="pager" aria-label={`Pages of ${of}`}>
        <button type="button" disabled={path.length === 0} onClick={() => setPath(path.slice(0, -1))}>Newer</button>
        <span class="note">page {path.length + 1}</span>
        <button type="button" disabled={!info.hasNextPage} onClick={() => info.endCursor && setPath([...path, info.endCursor])}>Older</button>
      </nav>
    ),
  };
}

/** A choice that is kept in the address. */
export function Choice({ label, value, options, choose }: { label: string; value: string; options: readonly [string, string][]; choose: (value: string) => void }) {
  const id = useId();
  return (
    <span class="choice">
      <label for={id}>{label}</label>
      <select id={id} value={value} onChange={(event) => choose(event.currentTarget.value)}>
        {options.map(([key, name]) => <option key={key} value={key}>{name}</option>)}
      </select>
    </span>
  );
}

/** A small line of a number over time; the table beside it says the number. */
export function Sparkline({ values, label }: { values: readonly number[]; label: string }) {
  if (values.length < 2) return <span class="none">–</span>;
  const low = Math.min(...values);
  const high = Math.max(...values);
  const y = (value: number) => (high === low ? 9 : 16 - (14 * (value - low)) / (high - low));
  const points = values.map((value, at) => `${((80 * at) / (values.length - 1)).toFixed(1)},${y(value).toFixed(1)}`).join(' ');
  return <svg class="sparkline" viewBox="-1 0 82 18" width="82" height="18" role="img" aria-label={label}><polyline points={points} /></svg>;
}

export function Json({ value }: { value: unknown }) {
  const shown = typeof value === 'string' ? value : JSON.stringify(value, null, 2);
  return <pre tabIndex={0}>{shown.length > 20_000 ? `${shown.slice(0, 20_000)}\n… ${shown.length - 20_000} more characters` : shown}</pre>;
}

/** What is paid, returned and held out of a budget, in one line. */
export function Split({ budget, paid, returned, held }: { budget: string; paid: string; returned: string; held: string }) {
  return (
    <span class="split" role="img" aria-label={`${amount(paid)} paid, ${amount(held)} held, ${amount(returned)} returned of ${amount(budget)}`}>
      {([['good', paid], ['info', held], ['plain', returned]] as const).map(([tone, part]) => !isZero(part) && <span key={tone} class={tone} style={{ width: `${share(part, budget)}%` }} />)}
    </span>
  );
}

/** Keeps a fault of one view from taking the page with it. */
export class Boundary extends Component<{ children: ComponentChildren }, { fault: ApiError | null }> {
  override state: { fault: ApiError | null } = { fault: null };
  override componentDidCatch(cause: unknown): void {
    this.setState({ fault: asFault(cause) });
  }
  override render() {
    if (!this.state.fault) return this.props.children;
    return (
      <div class="panel">
        <h1>This view broke</h1>
        <p>The market is not touched by it. <code>{this.state.fault.message}</code></p>
        <p><button type="button" onClick={() => this.setState({ fault: null })}>Show it again</button> <a href={link('floor')}>Go to the floor</a></p>
      </div>
    );
  }
}

