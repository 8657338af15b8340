// One's credits: the wallet, its statement, the books behind it, and channels.

import { count, words } from './events';
import { graphql } from './graphql';
import { amount, minus, sum, units } from './money';
import { Badge, Choice, Credits, Empty, Figure, Id, Panel, Postings, Shown, SignInFirst, Source, Time, usePages } from './parts';
import { useQuery } from './query';
import { link, type Route } from './router';
import { viewer } from './session';

const WALLET = graphql(`
  query Wallet($after: String) {
    me {
      wallet {
        available inEscrow
        account {
          id balance
          statement(first: 30, after: $after) {
            opening closing
            lines { pageInfo { endCursor hasNextPage } nodes { number amount balanceBefore balanceAfter createdAt transfer { id kind reference task { id title } channel { id } } counterparty { id kind agent { id name } } } }
          }
        }
      }
      agents(first: 50) { nodes { id name status score inWork earnings price } }
    }
  }
`);

const TRANSFERS = graphql(`
  query Transfers($after: String) {
    economicHealth { booksInOrder }
    transfers(first: 20, after: $after) {
      pageInfo { endCursor hasNextPage }
      nodes { id kind amount createdAt reference task { id }
        debit { id kind user { displayName } agent { id name } } credit { id kind user { displayName } agent { id name } } }
    }
  }
`);

const CHANNELS = graphql(`
  query Channels($after: String, $filter: ChannelFilter) {
    channels(first: 20, after: $after, filter: $filter) {
      pageInfo { endCursor hasNextPage }
      nodes { id purpose status closeReason deposit paid remaining openedAt closedAt agent { id name } task { id title } }
    }
  }
`);

const moved = { when: (event: { __typename: string }) => event.__typename !== 'BidEvent', every: 10_000 };

export function Wallet({ route }: { route: Route }) {
  return (
    <>
      <h1 tabIndex={-1}>Wallet</h1>
      {!viewer.value
        ? <Panel title="Sign in first" wide><SignInFirst adds="A wallet, its books and its channels are seen by their owner. Sign in to see yours, with every credit in a double entry." /></Panel>
        : (
          <>
            <Mine />
            <div class="columns even">
              <Books />
              <Channels route={route} />
            </div>
          </>
        )}
    </>
  );
}

function Mine() {
  const { after, pager } = usePages('the statement');
  const variables = { after };
  const answer = useQuery(WALLET, variables, moved);
  return (
    <Shown answer={answer}>
      {({ me }) => {
        const wallet = me?.wallet;
        const statement = wallet?.account?.statement;
        const lines = statement?.lines.nodes ?? [];
        // Each line begins where the older one ended, and ends where its amount leads.
        const chained = lines.every((line, at) => {
          const older = lines[at + 1];
          return units(line.balanceBefore) + units(line.amount) === units(line.balanceAfter) && (!older || older.balanceAfter === line.balanceBefore);
        });
        const agents = me?.agents?.nodes ?? [];
        return (
          <>
            <dl class="figures" aria-label="The wallet in figures">
              <Figure label="You can spend" value={<Credits of={wallet?.available} unit />} query="{ me { wallet { available } } }" note="available" />
              <Figure label="Set aside" value={<Credits of={wallet?.inEscrow} unit />} query="{ me { wallet { inEscrow } } }" note="for tasks, channels and bids" />
              <Figure label="Together" value={<Credits of={wallet && sum([wallet.available, wallet.inEscrow])} unit />} query="{ me { wallet { available inEscrow } } }" note="yours" />
              <Figure label="Statement" value={lines.length === 0 ? 'empty' : chained ? 'balanced' : 'broken'} tone={lines.length === 0 ? 'plain' : chained ? 'good' : 'bad'} query="{ me { wallet { account { statement(first: 30) { opening closing lines { nodes { amount balanceBefore balanceAfter } } } } } } }" note={`${count(lines.length, 'line')} recomputed here`} />
            </dl>
            {agents.length > 0 && (
              <Panel title="Your agents" wide actions={<Source document={WALLET} variables={variables} of="Your agents" />}>
                <table>
                  <thead><tr><th scope="col">Agent</th><th scope="col">Status</th><th scope="col" class="right">Score</th><th scope="col" class="right">In work</th><th scope="col" class="right">Asks</th><th scope="col" class="right">To withdraw</th></tr></thead>
                  <tbody>{agents.map((agent) => <tr key={agent.id}><td><Id of={agent.id} label={agent.name} /></td><td><Badge>{agent.status}</Badge></td><td class="right num">{agent.score}</td><td class="right num">{agent.inWork}</td><td class="right"><Credits of={agent.price} /></td><td class="right"><Credits of={agent.earnings} /></td></tr>)}</tbody>
                </table>
              </Panel>
            )}
            <Panel title="Statement of the wallet" wide actions={<Source document={WALLET} variables={variables} of="Statement of the wallet" />}>
              {lines.length === 0
                ? <Empty command="zerostate demo">Nothing has moved in it. Credits come from an administrator of the market; a demo gives some:</Empty>
                : (
                  <>
                    <div class="scroll short" tabIndex={0} role="group" aria-label="Statement of the wallet">
                      <table>
                        <thead><tr><th scope="col">Time</th><th scope="col">What</th><th scope="col">For</th><th scope="col" class="right">Amount</th><th scope="col" class="right">Balance</th></tr></thead>
                        <tbody>
                          {lines.map((line) => (
                            <tr key={line.number}>
                              <td><Time at={line.createdAt} /></td>
                              <td>{line.transfer && words(line.transfer.kind)}</td>
                              <td>{line.transfer?.task ? <Id of={line.transfer.task.id} label={line.transfer.task.title} /> : line.counterparty?.agent ? <Id of={line.counterparty.agent.id} label={line.counterparty.agent.name} /> : line.transfer?.reference ?? (line.counterparty && words(line.counterparty.kind))}</td>
                              <td class={`right num ${line.amount.startsWith('-') ? 'out' : 'in'}`}>{line.amount.startsWith('-') ? '' : '+'}{amount(line.amount)}</td>
                              <td class="right"><Credits of={line.balanceAfter} /></td>
                            </tr>
                          ))}
                        </tbody>
                        <tfoot><tr><th scope="row" colSpan={3}>Closing balance of all</th><td /><td class="right"><Credits of={statement?.closing} /></td></tr></tfoot>
                      </table>
                    </div>
                    {statement && pager(statement.lines.pageInfo)}
                  </>
                )}
            </Panel>
          </>
        );
      }}
    </Shown>
  );
}

function Books() {
  const { after, pager } = usePages('the books');
  const variables = { after };
  const answer = useQuery(TRANSFERS, variables, moved);
  return (
    <Panel title="The books, as double entries" actions={<Source document={TRANSFERS} variables={variables} of="The books" />}>
      <Shown answer={answer}>
        {({ transfers, economicHealth }) => !transfers || transfers.nodes.length === 0
          ? <Empty command="zerostate task run --capability text.stats --input README.md --budget 2.5">No transfer yet. A task makes some:</Empty>
          : (
            <>
              <p class="soft">{economicHealth?.booksInOrder != null && <Badge tone={economicHealth.booksInOrder ? 'good' : 'bad'}>{economicHealth.booksInOrder ? 'in order' : 'broken'}</Badge>} What leaves one account comes into another. The badge is the last audit of all books.</p>
              <Postings caption="Transfers, newest first" of={transfers.nodes} />
              {pager(transfers.pageInfo)}
            </>
          )}
      </Shown>
    </Panel>
  );
}

const PURPOSES = ['ESCROW', 'STREAM'] as const;

function Channels({ route }: { route: Route }) {
  const { after, pager } = usePages('the channels');
  const purpose = PURPOSES.find((one) => one === route.search['purpose']);
  const variables = { after, filter: purpose ? { purpose } : {} };
  const answer = useQuery(CHANNELS, variables, moved);
  return (
    <Panel title="Channels" actions={
      <>
        <Choice label="Purpose" value={purpose ?? ''} options={[['', 'any'], ['ESCROW', 'escrow of a task'], ['STREAM', 'streaming']]} choose={(value) => (location.hash = link('wallet', '', { purpose: value }))} />
        <Source document={CHANNELS} variables={variables} of="Channels" />
      </>
    }>
      <Shown answer={answer}>
        {({ channels }) => !channels || channels.nodes.length === 0
          ? <Empty command="zerostate task run --capability text.stats --input README.md --budget 2.5">No such channel. Each award opens one for its task; streaming ones are opened by <code>openChannel</code>:</Empty>
          : (
            <>
              <div class="scroll" tabIndex={0} role="group" aria-label="Channels">
                <table>
                  <thead><tr><th scope="col">Channel</th><th scope="col">For</th><th scope="col">Status</th><th scope="col" class="right">Deposit</th><th scope="col" class="right">Paid</th><th scope="col">Opened</th></tr></thead>
                  <tbody>
                    {channels.nodes.map((channel) => (
                      <tr key={channel.id}>
                        <td><Id of={channel.id} /></td>
                        <td>{channel.task ? <Id of={channel.task.id} label={channel.task.title} /> : words(channel.purpose)}{channel.agent && <small class="under"><Id of={channel.agent.id} label={channel.agent.name} /></small>}</td>
                        <td><Badge>{channel.status}</Badge>{channel.closeReason && <small class="under">{words(channel.closeReason)}</small>}</td>
                        <td class="right"><Credits of={channel.deposit} /></td>
                        <td class="right"><Credits of={channel.paid} /></td>
                        <td><Time at={channel.openedAt} /></td>
                      </tr>
                    ))}
                  </tbody>
                </table>
              </div>
              {pager(channels.pageInfo)}
            </>
          )}
      </Shown>
    </Panel>
  );
}

const ONE = graphql(`
  query Channel($id: ID!) {
    channel(id: $id) {
      id purpose status closeReason deposit paid remaining nonce voucherNonce openedAt expiresAt closesAt closedAt
      payer { id displayName } agent { id name } task { id title }
      changes(first: 50) { nodes { kind nonce amount fee returned deposit paid createdAt actor { id displayName } } }
    }
    transfers(first: 50, filter: { channelId: $id }) {
      nodes { id kind amount createdAt reference task { id }
        debit { id kind user { displayName } agent { id name } } credit { id kind user { displayName } agent { id name } } }
    }
  }
`);

export function Channel({ route }: { route: Route }) {
  const { id } = route;
  const variables = { id };
  const answer = useQuery(ONE, variables, { ...moved, skip: !viewer.value });
  const query = (fields: string) => `query($id: ID!) { channel(id: $id) { ${fields} } }`;
  return (
    <>
      <h1 tabIndex={-1}>Channel <span class="id" title={id}>{id}</span></h1>
      {!viewer.value
        ? <Panel title="Private" wide><SignInFirst adds="A channel is seen by its payer and its agent's owner. Sign in as one of them and this link shows it." /></Panel>
        : (
          <Shown answer={answer}>
            {({ channel, transfers }) => !channel
              ? <Empty command="zerostate events tail">There is no such channel, or it is not yours to see. What happens to yours:</Empty>
              : (
                <>
                  <dl class="figures" aria-label="The channel in figures">
                    <Figure label="Status" value={<Badge>{channel.status}</Badge>} query={query('status closeReason')} variables={variables} note={channel.closeReason ? words(channel.closeReason) : <>until <Time at={channel.expiresAt} /></>} />
                    <Figure label="Deposit" value={<Credits of={channel.deposit} unit />} query={query('deposit')} variables={variables} note={words(channel.purpose)} />
                    <Figure label="Paid" value={<Credits of={channel.paid} unit />} query={query('paid')} variables={variables} note={channel.agent && <>to <Id of={channel.agent.id} label={channel.agent.name} /></>} />
                    <Figure label={channel.status === 'CLOSED' ? 'Returned' : 'Remaining'} value={<Credits of={channel.remaining ?? minus(channel.deposit, channel.paid)} unit />} query={query('deposit paid remaining')} variables={variables} note={channel.payer && `of ${channel.payer.displayName}`} />
                  </dl>
                  {channel.task && <p class="facts">It backs the task <Id of={channel.task.id} label={channel.task.title} /> · opened <Time at={channel.openedAt} /> · closed <Time at={channel.closedAt} /></p>}
                  <div class="columns even">
                    <Panel title="As double entries" actions={<Source document={ONE} variables={variables} of="As double entries" />}>
                      {transfers && transfers.nodes.length > 0 ? <Postings caption="Transfers of this channel" of={[...transfers.nodes].reverse()} /> : <Empty>No transfer of it is yours to see.</Empty>}
                    </Panel>
                    <Panel title="Changes" actions={<Source document={ONE} variables={variables} of="Changes" />}>
                      {(channel.changes?.nodes ?? []).length === 0
                        ? <p class="soft">An escrow changes twice, by its award and its settlement; both are in the entries. A streaming channel has its changes here.</p>
                        : (
                          <div class="scroll" tabIndex={0} role="group" aria-label="Changes">
                            <table>
                              <thead><tr><th scope="col" class="right">Nonce</th><th scope="col">Change</th><th scope="col" class="right">Amount</th><th scope="col" class="right">Paid</th><th scope="col" class="right">Deposit</th><th scope="col">By</th><th scope="col">Time</th></tr></thead>
                              <tbody>
                                {channel.changes?.nodes.map((one) => (
                                  <tr key={one.nonce}><td class="right num">{one.nonce}</td><td>{words(one.kind)}</td><td class="right"><Credits of={one.amount} /></td><td class="right"><Credits of={one.paid} /></td><td class="right"><Credits of={one.deposit} /></td><td>{one.actor?.displayName ?? 'market'}</td><td><Time at={one.createdAt} /></td></tr>
                                ))}
                              </tbody>
                            </table>
                          </div>
                        )}
                    </Panel>
                  </div>
                </>
              )}
          </Shown>
        )}
    </>
  );
}
