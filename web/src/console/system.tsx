// The service itself: is it well, are the books in order, how this page is connected.

import { useEffect, useState } from 'preact/hooks';
import { address } from './api';
import { count, words } from './events';
import { graphql } from './graphql';
import { cursor, rates, received, status, trouble } from './live';
import { Away, Badge, Bar, Credits, Empty, Figure, Panel, Shown, Source, Time } from './parts';
import { place } from './money';
import { useQuery } from './query';
import { viewer } from './session';

const SYSTEM = graphql(`
  query System {
    serviceInfo { name version now fee instanceId publicKey maxAmount maxInputBytes maxModuleBytes maxBids maxPageSize maxTimeout maxAuctionDuration }
    economicHealth { booksInOrder creditsInCirculation creditsInWallets creditsInEscrow creditsOfAgents fees openAuctions openChannels unsettledTasks overdue }
    marketStats { users activeAgents bids tasks { status count } }
    journalHead { place hash signedAt }
    rateLimit { limit remaining resetAt }
  }
`);

const AUDIT = graphql(`
  query Audit { ledgerAudit(full: false) { ok full violations checks { name statement violations } } }
`);

interface Check {
  name: string;
  status: string;
  ms: number;
}

/** What `/ready` says, which is for probes and people alike. */
function useReady(): { status: string; checks: readonly Check[] } | null {
  const [ready, setReady] = useState<{ status: string; checks: readonly Check[] } | null>(null);
  useEffect(() => {
    let gone = false;
    const look = async () => {
      try {
        const response = await fetch(address('ready'), { credentials: 'omit' });
        const said = (await response.json()) as { status?: string; checks?: Check[] };
        if (!gone) setReady({ status: said.status ?? String(response.status), checks: said.checks ?? [] });
      } catch {
        if (!gone) setReady({ status: 'no answer', checks: [] });
      }
    };
    void look();
    const timer = setInterval(() => document.hidden || void look(), 5_000);
    return () => {
      gone = true;
      clearInterval(timer);
    };
  }, []);
  return ready;
}

export function System() {
  const answer = useQuery(SYSTEM, {}, { every: 5_000 });
  const ready = useReady();
  const last = rates.value.slice(-12);
  return (
    <>
      <h1 tabIndex={-1}>System</h1>
      <Shown answer={answer}>
        {({ serviceInfo: info, economicHealth: health, marketStats: stats, journalHead: head, rateLimit: limit }) => (
          <>
            <dl class="figures" aria-label="The service in figures">
              <Figure label="Service" value={`${info?.name ?? ''} ${info?.version ?? ''}`} query="{ serviceInfo { name version instanceId } }" note={<>its time <Time at={info?.now} full /></>} />
              <Figure label="Ready" value={ready?.status ?? '…'} tone={ready?.status === 'ready' ? 'good' : 'warn'} query="{ serviceInfo { now } }" note={<Away to="ready">ready</Away>} />
              <Figure label="Books" value={health?.booksInOrder == null ? 'not checked yet' : health.booksInOrder ? 'in order' : 'broken'} tone={health?.booksInOrder === false ? 'bad' : 'good'} query="{ economicHealth { booksInOrder } }" note={head && <>journal at {head.place}</>} />
              <Figure label="Overdue" value={health?.overdue ?? '–'} tone={health?.overdue === '0' ? 'good' : 'warn'} query="{ economicHealth { overdue } }" note="things past their deadline" />
              <Figure label="Agents" value={stats?.activeAgents ?? '–'} query="{ marketStats { users activeAgents } }" note={`${stats?.users ?? '–'} users`} />
              <Figure label="Fee" value={`${info?.fee ?? '–'} %`} query="{ serviceInfo { fee } }" note="of a payout" />
            </dl>
            <div class="columns even">
              <Panel title="Where the credits are" actions={<Source document={SYSTEM} variables={{}} of="Where the credits are" />}>
                <table>
                  <thead><tr><th scope="col">Place</th><th scope="col" class="right">Credits</th><th scope="col"><span class="sr">As a bar</span></th></tr></thead>
                  <tbody>
                    {health && ([['Wallets', health.creditsInWallets], ['Escrow', health.creditsInEscrow], ['Earnings of agents', health.creditsOfAgents], ['Fees', health.fees]] as const).map(([name, sum]) => (
                      <tr key={name}><th scope="row">{name}</th><td class="right"><Credits of={sum} /></td><td class="lane"><Bar percent={(100 * place(sum)) / (place(health.creditsInCirculation) || 1)} tone="info" /></td></tr>
                    ))}
                  </tbody>
                  <tfoot><tr><th scope="row">In circulation</th><td class="right"><Credits of={health?.creditsInCirculation} /></td><td /></tr></tfoot>
                </table>
                <h3>Tasks</h3>
                <p class="legend">{stats?.tasks.map((one) => <span key={one.status}><Badge>{one.status}</Badge> <span class="num">{one.count}</span></span>)}</p>
                <p class="soft">Open: {count(health?.openAuctions ?? 0, 'auction')}, {count(health?.openChannels ?? 0, 'channel')}. Not settled: {count(health?.unsettledTasks ?? 0, 'task')}.</p>
              </Panel>
              <Panel title="Checks and links">
                <table>
                  <thead><tr><th scope="col">Check</th><th scope="col">Status</th><th scope="col" class="right">Took</th></tr></thead>
                  <tbody>{(ready?.checks ?? []).map((one) => <tr key={one.name}><th scope="row">{one.name}</th><td><Badge tone={one.status === 'ok' ? 'good' : 'bad'}>{one.status}</Badge></td><td class="right num">{one.ms} ms</td></tr>)}</tbody>
                </table>
                <ul class="links">
                  <li><Away to="graphiql">GraphiQL</Away>, to ask anything</li>
                  <li><Away to="graphql/schema.graphql">Schema</Away>, the contract</li>
                  <li><Away to="metrics">Metrics</Away>, for Prometheus</li>
                  <li><Away to="health">Health</Away> and <Away to="ready">ready</Away>, for probes</li>
                  <li><Away to=".well-known/jwks.json">Keys</Away> that tokens are signed with</li>
                </ul>
              </Panel>
              <Panel title="This page">
                <dl class="pairs">
                  <dt>Events</dt><dd><Badge tone={status.value === 'live' ? 'good' : 'warn'}>{status.value}</Badge> {trouble.value}</dd>
                  <dt>Received</dt><dd class="num">{received.value}, {(last.reduce((all, one) => all + one.all, 0) / Math.max(last.length * 5, 1)).toFixed(1)} a second lately</dd>
                  <dt>Last cursor</dt><dd class="id">{cursor.value || '–'}</dd>
                  <dt>Points left</dt><dd class="num">{limit ? `${limit.remaining} of ${limit.limit}` : 'not limited'}</dd>
                  <dt>Signed in</dt><dd>{viewer.value ? `${viewer.value.displayName}, ${words(viewer.value.role)}` : 'nobody'}</dd>
                </dl>
              </Panel>
              <Panel title="Limits and identity" actions={<Source document={SYSTEM} variables={{}} of="Limits and identity" />}>
                <dl class="pairs">
                  <dt>Instance</dt><dd class="id">{info?.instanceId}</dd>
                  <dt>Public key</dt><dd class="id">{info?.publicKey}</dd>
                  <dt>Journal</dt><dd class="id">{head ? <>{head.hash} <Time at={head.signedAt} /></> : '–'}</dd>
                  <dt>Most in one operation</dt><dd><Credits of={info?.maxAmount} unit /></dd>
                  <dt>Input, module</dt><dd class="num">{Number(info?.maxInputBytes ?? 0) / 1024} KiB, {Number(info?.maxModuleBytes ?? 0) / 1024} KiB</dd>
                  <dt>Bids, page</dt><dd class="num">{info?.maxBids}, {info?.maxPageSize}</dd>
                </dl>
              </Panel>
            </div>
          </>
        )}
      </Shown>
      <Audit />
    </>
  );
}

/** The invariants of the books, for administrators. */
function Audit() {
  const admin = viewer.value?.role === 'ADMIN';
  const answer = useQuery(AUDIT, {}, { skip: !admin, every: 60_000 });
  return (
    <Panel title="Audit of the ledger" wide actions={admin && <Source document={AUDIT} variables={{}} of="Audit of the ledger" />}>
      {!admin
        ? <Empty command="zerostate audit">Each invariant by itself is for administrators. Who runs the service can check them with:</Empty>
        : (
          <Shown answer={answer}>
            {({ ledgerAudit: audit }) => audit && (
              <div class="scroll short" tabIndex={0} role="group" aria-label="Audit of the ledger">
                <table>
                  <thead><tr><th scope="col">Invariant</th><th scope="col">What must hold</th><th scope="col">Holds</th></tr></thead>
                  <tbody>{audit.checks.map((check) => <tr key={check.name}><th scope="row">{check.name}</th><td class="soft">{check.statement}</td><td><Badge tone={check.violations === '0' ? 'good' : 'bad'}>{check.violations === '0' ? 'yes' : `${check.violations} violations`}</Badge></td></tr>)}</tbody>
                </table>
              </div>
            )}
          </Shown>
        )}
    </Panel>
  );
}
