// What happens on the market now.

import { Lines } from './chart';
import { agentOf, count, detailOf, type MarketEvent, moneyOf, titleOf, toneOf, words } from './events';
import { graphql, type Result } from './graphql';
import { feed, pause, paused, rates, waiting } from './live';
import { amount, minus, place, score } from './money';
import { Badge, Bar, Countdown, Credits, Empty, Figure, Id, Panel, Shown, Source, Time } from './parts';
import { useQuery } from './query';
import { link } from './router';

const OPEN = graphql(`
  query OpenAuctions {
    auctions(first: 50, filter: { status: [OPEN, REVEALING] }, orderBy: { field: CLOSES_AT, direction: ASC }) {
      totalCount
      nodes {
        id status kind visibility budget capabilities createdAt closesAt revealUntil bidCount commitmentCount priceWeight reputationWeight
        bestBid { id price agent { id name score } }
      }
    }
  }
`);

const DECIDED = graphql(`
  query DecidedAuctions {
    auctions(first: 10, filter: { status: [AWARDED, EXPIRED, CANCELLED] }, orderBy: { field: CREATED_AT, direction: DESC }) {
      nodes { id status budget capabilities closedAt bidCount clearingPrice winningBid { id price score { total } agent { id name } } }
    }
  }
`);

const STATS = graphql(`
  query Market {
    marketStats { activeAgents openAuctions bids successRate volume averagePrice tasks { status count } }
    economicHealth { booksInOrder creditsInEscrow unsettledTasks overdue }
  }
`);

const ofAuctions = (event: MarketEvent) => event.__typename === 'AuctionEvent' || event.__typename === 'BidEvent';

export function Floor() {
  return (
    <>
      <h1 tabIndex={-1} class="sr">The floor</h1>
      <Stats />
      <div class="columns">
        <div class="main">
          <OpenAuctions />
          <Decided />
        </div>
        <div class="side">
          <Rates />
          <Feed />
        </div>
      </div>
    </>
  );
}

function Stats() {
  const answer = useQuery(STATS, {}, { when: (event) => event.__typename !== 'BidEvent', every: 15_000 });
  return (
    <Shown answer={answer}>
      {({ marketStats: stats, economicHealth: health }) => {
        const tasks = (status: string) => stats?.tasks.find((one) => one.status === status)?.count ?? '–';
        return (
          <dl class="figures" aria-label="The market in figures">
            <Figure label="Open auctions" value={stats?.openAuctions ?? '–'} query="{ marketStats { openAuctions } }" note={stats && `${count(stats.bids, 'bid')} so far`} />
            <Figure label="Tasks paid" value={tasks('COMPLETED')} query="{ marketStats { tasks { status count } } }" note={`${tasks('REFUNDED')} refunded`} />
            <Figure label="Success" value={stats?.successRate ? `${stats.successRate} %` : '–'} query="{ marketStats { successRate } }" note="of the settled tasks" />
            <Figure label="Volume" value={<Credits of={stats?.volume} unit />} query="{ marketStats { volume averagePrice } }" note={stats?.averagePrice ? `${amount(stats.averagePrice)} a task` : 'nothing paid yet'} />
            <Figure label="In escrow" value={<Credits of={health?.creditsInEscrow} unit />} query="{ economicHealth { creditsInEscrow unsettledTasks } }" note={health && `${count(health.unsettledTasks, 'task')} in work`} />
            <Figure label="Active agents" value={stats?.activeAgents ?? '–'} query="{ marketStats { activeAgents } }" note={<a href={link('leaderboard')}>leaderboard</a>} />
            <Figure label="Books" value={health?.booksInOrder == null ? 'not checked yet' : health.booksInOrder ? 'in order' : 'broken'} tone={health?.booksInOrder === false ? 'bad' : 'good'} query="{ economicHealth { booksInOrder overdue } }" note={health?.overdue === '0' ? 'nothing overdue' : `${health?.overdue ?? '–'} overdue`} />
          </dl>
        );
      }}
    </Shown>
  );
}

type Open = NonNullable<Result<typeof OPEN>['auctions']>['nodes'][number];

function OpenAuctions() {
  const answer = useQuery(OPEN, {}, { when: ofAuctions, every: 10_000 });
  return (
    <Panel title="Open auctions" actions={<><a href={link('auctions')}>all auctions</a><Source document={OPEN} variables={{}} of="Open auctions" /></>}>
      <Shown answer={answer}>
        {({ auctions }) => !auctions || auctions.nodes.length === 0
          ? <Empty command="zerostate task run --capability text.stats --input README.md --budget 2.5 --closes-in 30">No auction is open at this moment. <a href={link('post')}>Post a task</a> with time for bids, here or with:</Empty>
          : (
            <div class="scroll" tabIndex={0} role="group" aria-label="Open auctions">
              <table>
                <thead><tr><th scope="col">Auction</th><th scope="col">Asks for</th><th scope="col">Rules</th><th scope="col" class="right">Budget</th><th scope="col" class="right">Bids</th><th scope="col" class="right">Best price</th><th scope="col" class="right">Score</th><th scope="col">Closes in</th></tr></thead>
                <tbody>{auctions.nodes.map((auction) => <OpenRow key={auction.id} auction={auction} />)}</tbody>
              </table>
              {auctions.totalCount != null && auctions.totalCount > auctions.nodes.length && <p class="note">The {auctions.nodes.length} that close first of {auctions.totalCount}.</p>}
            </div>
          )}
      </Shown>
    </Panel>
  );
}

function OpenRow({ auction }: { auction: Open }) {
  const best = auction.bestBid;
  return (
    <tr>
      <td><Id of={auction.id} /></td>
      <td>{auction.capabilities.join(', ')}</td>
      <td class="soft">{words(auction.kind)}, {words(auction.visibility)}</td>
      <td class="right"><Credits of={auction.budget} /></td>
      <td class="right num">{auction.bidCount + auction.commitmentCount}</td>
      <td class="right">{best ? <><Credits of={best.price} />{best.agent && <small class="under"><Id of={best.agent.id} label={best.agent.name} /></small>}</> : <span class="none">{auction.visibility === 'OPEN' ? 'none' : 'sealed'}</span>}</td>
      <td class="right num">{best?.agent ? score({ ...auction, price: best.price, reputation: best.agent.score }) : '–'}</td>
      <td><Countdown from={auction.createdAt} to={auction.status === 'REVEALING' && auction.revealUntil ? auction.revealUntil : auction.closesAt} /></td>
    </tr>
  );
}

function Decided() {
  const answer = useQuery(DECIDED, {}, { when: (event) => event.__typename === 'AuctionEvent', every: 30_000 });
  return (
    <Panel title="Just decided" actions={<Source document={DECIDED} variables={{}} of="Just decided" />}>
      <Shown answer={answer}>
        {({ auctions }) => !auctions || auctions.nodes.length === 0
          ? <Empty command="zerostate demo">No auction was decided yet. A market that moves by itself:</Empty>
          : (
            <div class="scroll" tabIndex={0} role="group" aria-label="Just decided">
              <table>
                <thead><tr><th scope="col">Auction</th><th scope="col">Asked for</th><th scope="col">Winner</th><th scope="col" class="right">Score</th><th scope="col" class="right">Price</th><th scope="col">Of the budget</th><th scope="col" class="right">Saved</th><th scope="col">At</th></tr></thead>
                <tbody>
                  {auctions.nodes.map((auction) => {
                    const { winningBid: bid, clearingPrice: price } = auction;
                    return (
                      <tr key={auction.id}>
                        <td><Id of={auction.id} /></td>
                        <td>{auction.capabilities.join(', ')}</td>
                        <td>{bid?.agent ? <Id of={bid.agent.id} label={bid.agent.name} /> : <Badge>{auction.status}</Badge>}</td>
                        <td class="right num">{bid?.score?.total ?? '–'}</td>
                        <td class="right"><Credits of={price} /></td>
                        <td><span class="ratio">{price && <Bar percent={(100 * place(price)) / place(auction.budget)} tone="good" />}<Credits of={auction.budget} /></span></td>
                        <td class="right"><Credits of={price && minus(auction.budget, price)} /></td>
                        <td><Time at={auction.closedAt} /></td>
                      </tr>
                    );
                  })}
                </tbody>
              </table>
            </div>
          )}
      </Shown>
    </Panel>
  );
}

function Rates() {
  const points = rates.value;
  const last = points.at(-1);
  return (
    <Panel title="Pace" actions={<span class="note">each second, since this page opened</span>}>
      {!last || points.length < 2
        ? <p class="loading">The first ten seconds are being measured.</p>
        : <Lines title={`Events each second over the last minutes; now ${last.all / 5} events, ${last.bids / 5} bids`} height={140} fromZero times={points.map(({ at }) => at)} lines={[
          { label: 'events', colour: 'info', fill: true, values: points.map(({ all }) => all / 5) },
          { label: 'bids', colour: 'good', values: points.map(({ bids }) => bids / 5) },
        ]} />}
    </Panel>
  );
}

const FEED = graphql(`
  subscription Feed { marketEvents { __typename cursor kind occurredAt ... on BidEvent { auctionId price } ... on AuctionEvent { auctionId amount } } }
`);

function Feed() {
  const events = feed.value;
  return (
    <Panel title="Feed" id="feed" actions={
      <>
        <button type="button" aria-pressed={paused.value} onClick={() => pause(!paused.value)}>{paused.value ? `Resume${waiting.value.length ? ` (${waiting.value.length} new)` : ''}` : 'Pause'}</button>
        <Source document={FEED} variables={{}} of="Feed" />
      </>
    }>
      {events.length === 0
        ? <Empty command="zerostate task run --capability text.stats --input README.md --budget 2.5">Nothing has happened yet. The first event comes with the first task:</Empty>
        : (
          <ol class="feed" aria-label="Events, newest first" tabIndex={0}>
            {events.map((event) => <FeedRow key={event.cursor} event={event} />)}
          </ol>
        )}
    </Panel>
  );
}

function subjectOf(event: MarketEvent): string | null {
  switch (event.__typename) {
    case 'AuctionEvent':
    case 'BidEvent':
      return event.auctionId;
    case 'TaskEvent':
      return event.taskId;
    case 'ChannelEvent':
      return event.channelId;
    case 'DelegationEvent':
      return event.delegationId;
    case 'ReputationChangedEvent':
    case 'CreditsEvent':
      return null;
  }
}

function FeedRow({ event }: { event: MarketEvent }) {
  const agent = agentOf(event);
  const subject = subjectOf(event);
  const money = moneyOf(event);
  return (
    <li data-cursor={event.cursor}>
      <Time at={event.occurredAt} />
      <Badge tone={toneOf(event)}>{titleOf(event)}</Badge>
      <span class="what">{agent && <Id of={agent.id} label={agent.name} />} <span class="soft">{detailOf(event)}</span></span>
      {money && <Credits of={money} />}
      {subject && <Id of={subject} />}
    </li>
  );
}
