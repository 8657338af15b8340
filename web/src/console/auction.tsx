// The list of auctions, and one: its bids as price against reputation, its scores in figures, and why the winner won.

import { ask, inGraphiql } from './api';
import { count, words } from './events';
import { graphql, type Result } from './graphql';
import { amount, decimal, minus, place, score, units } from './money';
import { Away, Badge, Bar, Choice, Countdown, Credits, Empty, Figure, Id, Panel, Refusals, say, Shown, Source, Time, Trouble, usePages } from './parts';
import { useIntent, useQuery } from './query';
import { link, type Route } from './router';
import { viewer } from './session';

const LIST = graphql(`
  query Auctions($filter: AuctionFilter, $after: String) {
    auctions(first: 30, after: $after, filter: $filter, orderBy: { field: CREATED_AT, direction: DESC }) {
      pageInfo { endCursor hasNextPage }
      nodes { id status kind visibility budget capabilities createdAt closedAt bidCount commitmentCount clearingPrice winningBid { id agent { id name } } }
    }
  }
`);

const STATUSES = ['OPEN', 'REVEALING', 'AWARDED', 'EXPIRED', 'CANCELLED'] as const;

export function Auctions({ route }: { route: Route }) {
  const { after, pager } = usePages('auctions');
  const status = STATUSES.find((one) => one === route.search['status']);
  const variables = { after, filter: status ? { status: [status] } : {} };
  const answer = useQuery(LIST, variables, { when: (event) => !after && event.__typename === 'AuctionEvent', every: 30_000 });
  return (
    <>
      <h1 tabIndex={-1}>Auctions</h1>
      <Panel title="Newest first" wide actions={
        <>
          <Choice label="Status" value={status ?? ''} options={[['', 'any'], ...STATUSES.map((one): [string, string] => [one, words(one)])]} choose={(value) => (location.hash = link('auctions', '', { status: value }))} />
          <Source document={LIST} variables={variables} of="Auctions" />
        </>
      }>
        <Shown answer={answer}>
          {({ auctions }) => !auctions || auctions.nodes.length === 0
            ? <Empty command="zerostate task run --capability text.stats --input README.md --budget 2.5 --closes-in 30">No such auction. One with half a minute for bids:</Empty>
            : (
              <>
                <div class="scroll" tabIndex={0} role="group" aria-label="Auctions">
                  <table>
                    <thead><tr><th scope="col">Auction</th><th scope="col">Status</th><th scope="col">Asks for</th><th scope="col">Rules</th><th scope="col" class="right">Budget</th><th scope="col" class="right">Bids</th><th scope="col">Winner</th><th scope="col" class="right">Price</th><th scope="col">Opened</th><th scope="col">Closed</th></tr></thead>
                    <tbody>
                      {auctions.nodes.map((auction) => (
                        <tr key={auction.id}>
                          <td><Id of={auction.id} /></td>
                          <td><Badge>{auction.status}</Badge></td>
                          <td>{auction.capabilities.join(', ')}</td>
                          <td class="soft">{words(auction.kind)}, {words(auction.visibility)}</td>
                          <td class="right"><Credits of={auction.budget} /></td>
                          <td class="right num">{auction.bidCount + auction.commitmentCount}</td>
                          <td>{auction.winningBid?.agent ? <Id of={auction.winningBid.agent.id} label={auction.winningBid.agent.name} /> : <span class="none">–</span>}</td>
                          <td class="right"><Credits of={auction.clearingPrice} /></td>
                          <td><Time at={auction.createdAt} /></td>
                          <td><Time at={auction.closedAt} /></td>
                        </tr>
                      ))}
                    </tbody>
                  </table>
                </div>
                {pager(auctions.pageInfo)}
              </>
            )}
        </Shown>
      </Panel>
    </>
  );
}

const ONE = graphql(`
  query Auction($id: ID!) {
    auction(id: $id) {
      id status kind visibility awardMode budget maxPrice reservePrice minReputation priceWeight reputationWeight capabilities createdAt
      closesAt closedAt revealUntil softClose closeAfterBids extensions bidCount commitmentCount clearingPrice bidBond
      requester { id displayName } task { id title status } certificate { id sha256 version } winningBid { id }
      bids(first: 100) {
        totalCount
        nodes { id price status sequence rank reputation createdAt promisedDuration tasksTogether score { total price reputation } agent { id name score } }
      }
    }
  }
`);

type One = NonNullable<Result<typeof ONE>['auction']>;
type Bid = NonNullable<One['bids']>['nodes'][number];

export function Auction({ route }: { route: Route }) {
  const { id } = route;
  const answer = useQuery(ONE, { id }, {
    when: (event) => (event.__typename === 'AuctionEvent' || event.__typename === 'BidEvent') && event.auctionId === id,
    every: 30_000,
  });
  return (
    <>
      <h1 tabIndex={-1}>Auction <span class="id" title={id}>{id}</span></h1>
      <Shown answer={answer}>
        {({ auction }) => auction
          ? <Whole auction={auction} reload={answer.reload} />
          : <Empty command="zerostate events tail --kind AUCTION_OPENED">There is no auction with this id. Ids of auctions begin with auc_; new ones are told by:</Empty>}
      </Shown>
    </>
  );
}

/** Bids that count: what was replaced or withdrawn is only listed. */
const standing = (bid: Bid) => !['REPLACED', 'WITHDRAWN', 'CANCELLED'].includes(bid.status);

function Whole({ auction, reload }: { auction: One; reload: () => void }) {
  const bids = auction.bids?.nodes ?? [];
  const live = bids.filter(standing);
  const query = (fields: string) => `query($id: ID!) { auction(id: $id) { ${fields} } }`;
  const variables = { id: auction.id };
  const open = auction.status === 'OPEN' || auction.status === 'REVEALING';
  return (
    <>
      <dl class="figures" aria-label="The auction in figures">
        <Figure label="Status" value={<Badge>{auction.status}</Badge>} query={query('status closesAt closedAt')} variables={variables} note={open ? <Countdown from={auction.createdAt} to={auction.status === 'REVEALING' && auction.revealUntil ? auction.revealUntil : auction.closesAt} /> : <>closed <Time at={auction.closedAt} /></>} />
        <Figure label="Budget" value={<Credits of={auction.budget} unit />} query={query('budget maxPrice reservePrice')} variables={variables} note={auction.maxPrice === auction.budget ? 'no lower ceiling' : `no bid above ${amount(auction.maxPrice)}`} />
        <Figure label="Price paid" value={<Credits of={auction.clearingPrice} unit />} query={query('clearingPrice winningBid { price }')} variables={variables} note={auction.clearingPrice ? `${amount(minus(auction.budget, auction.clearingPrice))} went back` : 'not decided'} />
        <Figure label="Bids" value={String(auction.bidCount)} query={query('bidCount commitmentCount')} variables={variables} note={auction.commitmentCount ? `${auction.commitmentCount} committed` : words(auction.visibility)} />
        <Figure label="Weights" value={`${auction.priceWeight} / ${auction.reputationWeight}`} query={query('priceWeight reputationWeight')} variables={variables} note="% price / % reputation" />
        <Figure label="Rules" value={words(auction.kind)} query={query('kind visibility awardMode minReputation softClose closeAfterBids extensions')} variables={variables} note={[`award ${words(auction.awardMode)}`, auction.minReputation !== '0' ? `reputation from ${auction.minReputation}` : '', auction.closeAfterBids ? `closes after ${count(auction.closeAfterBids, 'bid')}` : '', auction.extensions ? `close moved ${count(auction.extensions, 'time')}` : ''].filter(Boolean).join(', ')} />
      </dl>
      <p class="facts">
        Asks for <strong>{auction.capabilities.join(', ')}</strong>
        {auction.requester && <> · bought by {auction.requester.displayName}</>} · opened <Time at={auction.createdAt} />
        {auction.task ? <> · task <Id of={auction.task.id} label={auction.task.title} /></> : ' · its task is seen by who pays and who works'}
        {auction.certificate && <> · <Away to={inGraphiql('query($id: ID!) { awardCertificate(auctionId: $id) { sha256 signature publicKey bundle } }', variables)}>signed certificate</Away> <span class="id" title={auction.certificate.sha256}>{auction.certificate.sha256.slice(0, 12)}</span></>}
      </p>
      {live.length === 0
        ? (
          <Panel title="Bids" wide actions={<Source document={ONE} variables={variables} of="Bids" />}>
            <Empty command={`zerostate events tail --auction ${auction.id}`}>{open && auction.visibility !== 'OPEN' && auction.bidCount + auction.commitmentCount > 0
              ? `${count(auction.bidCount + auction.commitmentCount, 'bid')}, sealed until the decision; only the bidder sees a bid. To follow the auction:`
              : open ? 'No bid yet. To follow the auction:' : 'It ended without a bid. What happened:'}</Empty>
          </Panel>
        )
        : (
          <div class="columns even">
            <Panel title="Price against reputation" actions={<Source document={ONE} variables={variables} of="Price against reputation" />}><Scatter auction={auction} bids={live} /></Panel>
            <Panel title={auction.winningBid ? 'Why the winner won' : 'How it is decided'}><Why auction={auction} bids={live} /></Panel>
          </div>
        )}
      {bids.length > 0 && <Bids auction={auction} bids={bids} reload={reload} />}
    </>
  );
}

/** The reputation that counts, or would count at this moment. */
const reputation = (bid: Bid): string => bid.reputation ?? bid.agent?.score ?? '0';

function Scatter({ auction, bids }: { auction: One; bids: readonly Bid[] }) {
  const budget = place(auction.budget);
  const [left, right, top, bottom] = [54, 14, 10, 34];
  const [width, height] = [520, 300];
  const x = (value: number) => left + ((width - left - right) * value) / 100;
  const y = (value: number) => top + ((height - top - bottom) * value) / budget;
  // A line of equal score: along it price and reputation outweigh each other exactly.
  const winner = bids.find((bid) => bid.id === auction.winningBid?.id);
  const [wp, wr] = [place(auction.priceWeight), place(auction.reputationWeight)];
  const line = winner && wp > 0
    ? [0, 100].map((rep) => ({ rep, price: place(winner.price) + ((wr / 100) * (rep - place(reputation(winner))) * budget) / wp }))
    : [];
  return (
    <figure class="scatter">
      <svg viewBox={`0 0 ${width} ${height}`} role="img" aria-label={`${count(bids.length, 'bid')} by price and reputation; the table below has the numbers`}>
        <defs><clipPath id="field"><rect x={left} y={top} width={width - left - right} height={height - top - bottom} /></clipPath></defs>
        {[0, 20, 40, 60, 80, 100].map((tick) => (
          <g key={tick}><line class="grid" x1={x(tick)} x2={x(tick)} y1={top} y2={height - bottom} /><text x={x(tick)} y={height - bottom + 14} text-anchor="middle">{tick}</text></g>
        ))}
        {[0, 0.25, 0.5, 0.75, 1].map((part) => (
          <g key={part}><line class="grid" x1={left} x2={width - right} y1={y(part * budget)} y2={y(part * budget)} /><text x={left - 6} y={y(part * budget) + 4} text-anchor="end">{Number((part * budget).toPrecision(3))}</text></g>
        ))}
        <text x={(left + width - right) / 2} y={height - 4} text-anchor="middle">reputation</text>
        <text x={12} y={(top + height - bottom) / 2} text-anchor="middle" transform={`rotate(-90 12 ${(top + height - bottom) / 2})`}>price, low is up</text>
        {line.length === 2 && <line class="equal" clip-path="url(#field)" x1={x(0)} y1={y(line[0]?.price ?? 0)} x2={x(100)} y2={y(line[1]?.price ?? 0)} />}
        {bids.map((bid) => {
          const at = { x: x(place(reputation(bid))), y: y(place(bid.price)) };
          const won = bid.id === auction.winningBid?.id;
          return (
            <g key={bid.id} class={won ? 'bid won' : bid.status === 'INELIGIBLE' ? 'bid out' : 'bid'}>
              <circle cx={at.x} cy={at.y} r={won ? 7 : 5} />
              <text x={at.x + (at.x > width * 0.7 ? -10 : 10)} y={at.y + 4} text-anchor={at.x > width * 0.7 ? 'end' : 'start'}>{bid.agent?.name} {bid.price}</text>
              <title>{`${bid.agent?.name ?? 'a bid'}: price ${bid.price}, reputation ${reputation(bid)}, score ${bid.score?.total ?? 'not decided'}`}</title>
            </g>
          );
        })}
      </svg>
      <figcaption>{winner ? 'On the dashed line every bid would score what the winner scored; to the right of it, more.' : 'Further right and further up is better.'}</figcaption>
    </figure>
  );
}

function Formula({ auction, bid }: { auction: One; bid: Bid }) {
  const at = { budget: auction.budget, price: bid.price, reputation: reputation(bid), priceWeight: auction.priceWeight, reputationWeight: auction.reputationWeight };
  const total = bid.score?.total ?? score(at);
  return (
    <p class="formula">
      <span class="who">{bid.agent?.name ?? 'the bid'}</span>
      <span>{auction.priceWeight} × ({amount(auction.budget)} − {amount(bid.price)}) ÷ {amount(auction.budget)}{bid.score && <> = <b>{bid.score.price}</b></>}</span>
      <span>{auction.reputationWeight} × {reputation(bid)} ÷ 100{bid.score && <> = <b>{bid.score.reputation}</b></>}</span>
      <span class="total">{bid.score ? 'score' : 'score as of now'} <b>{total}</b></span>
    </p>
  );
}

function Why({ auction, bids }: { auction: One; bids: readonly Bid[] }) {
  const ranked = bids.filter((bid) => bid.rank != null).sort((a, b) => (a.rank ?? 0) - (b.rank ?? 0));
  const winner = bids.find((bid) => bid.id === auction.winningBid?.id);
  const rival = ranked.find((bid) => bid.id !== winner?.id);
  const out = bids.filter((bid) => bid.status === 'INELIGIBLE').length;
  const sum = (
    <p class="soft">
      The score is {auction.priceWeight} % what is saved of the budget, and {auction.reputationWeight} % reputation. Equal scores go to the better reputation,
      then to the earlier bid. Prices are measured against the budget, never against each other.
    </p>
  );
  if (!winner) return <>{sum}{[...bids].slice(0, 5).map((bid) => <Formula key={bid.id} auction={auction} bid={bid} />)}</>;
  return (
    <>
      <p class="verdict">{verdict(auction, winner, rival)}</p>
      <Formula auction={auction} bid={winner} />
      {rival && <Formula auction={auction} bid={rival} />}
      {auction.kind === 'SECOND_PRICE' && auction.clearingPrice && (
        <p>It bid {amount(winner.price)} and is paid its critical price, {amount(auction.clearingPrice)}: the highest with which it would still have won.</p>
      )}
      {out > 0 && <p class="soft">{count(out, 'bid')} did not count, for reputation, capacity or the reserve price.</p>}
      {sum}
    </>
  );
}

/** Why, in a sentence with its numbers. */
function verdict(auction: One, winner: Bid, rival: Bid | undefined): string {
  const name = winner.agent?.name ?? 'The winner';
  if (!rival || !winner.score || !rival.score) return `${name} made the only bid that counted.`;
  const other = rival.agent?.name ?? 'the next';
  const by = units(minus(winner.score.total, rival.score.total));
  if (winner.rank !== 1) {
    return auction.awardMode === 'MANUAL'
      ? `The buyer named ${name}; ${other} has the better score.`
      : `${name} took over from a better bid whose agent did not start in time, at its own price.`;
  }
  if (by === 0n) {
    return reputation(winner) === reputation(rival)
      ? `${name} and ${other} scored the same with the same reputation; ${name} bid first.`
      : `${name} and ${other} scored the same; ${name} has the better reputation.`;
  }
  const price = units(minus(winner.score.price, rival.score.price));
  const standing = units(minus(winner.score.reputation, rival.score.reputation));
  const points = (value: bigint) => decimal(value < 0n ? -value : value);
  const lead = `${name} leads ${other} by ${points(by)} points`;
  if (price >= 0n && standing >= 0n) return `${lead}: ${points(price)} for the lower price and ${points(standing)} for the better reputation.`;
  return price > 0n
    ? `${lead}: its lower price is worth ${points(price)}, more than the ${points(standing)} that it lacks in reputation.`
    : `${lead}: its reputation is worth ${points(standing)}, more than the ${points(price)} that its higher price costs.`;
}

const AWARD = graphql(`
  mutation Award($input: AwardAuctionInput!) { awardAuction(input: $input) { auction { id } userErrors { code message field } } }
`);

function Bids({ auction, bids, reload }: { auction: One; bids: readonly Bid[]; reload: () => void }) {
  const intent = useIntent();
  const mine = viewer.value?.id === auction.requester?.id && auction.awardMode === 'MANUAL' && auction.status === 'OPEN';
  const award = (bid: Bid) => intent.run({ bid: bid.id }, async (idempotencyKey) => {
    const { awardAuction } = await ask(AWARD, { input: { auctionId: auction.id, bidId: bid.id, idempotencyKey } });
    reload();
    say('Awarded');
    return awardAuction?.userErrors;
  });
  const sorted = [...bids].sort((a, b) => (a.rank ?? 1_000) - (b.rank ?? 1_000) || b.sequence - a.sequence);
  return (
    <Panel title="Bids" wide actions={<Source document={ONE} variables={{ id: auction.id }} of="Bids" />}>
      {intent.fault && <Trouble fault={intent.fault} />}
      <Refusals of={intent.refusals} />
      <div class="scroll" tabIndex={0} role="group" aria-label="Bids">
        <table>
          <thead><tr><th scope="col" class="right">Rank</th><th scope="col">Agent</th><th scope="col">Status</th><th scope="col" class="right">Price</th><th scope="col" class="right">Reputation</th><th scope="col" class="right">Price part</th><th scope="col" class="right">Reputation part</th><th scope="col" class="right">Score</th><th scope="col"><span class="sr">Score as a bar</span></th><th scope="col" class="right">Together</th><th scope="col">At</th>{mine && <th scope="col">Award</th>}</tr></thead>
          <tbody>
            {sorted.map((bid) => (
              <tr key={bid.id} class={standing(bid) ? '' : 'past'}>
                <td class="right num">{bid.rank ?? '–'}</td>
                <td>{bid.agent && <Id of={bid.agent.id} label={bid.agent.name} />}</td>
                <td><Badge>{bid.status}</Badge></td>
                <td class="right"><Credits of={bid.price} /></td>
                <td class="right num">{bid.reputation ?? bid.agent?.score}</td>
                <td class="right num">{bid.score?.price ?? '–'}</td>
                <td class="right num">{bid.score?.reputation ?? '–'}</td>
                <td class="right num"><b>{bid.score?.total ?? '–'}</b></td>
                <td>{bid.score && <Bar percent={place(bid.score.total)} tone={bid.status === 'WON' ? 'good' : 'plain'} />}</td>
                <td class="right num" title="Tasks that buyer and bidder had together before">{bid.tasksTogether ?? '–'}</td>
                <td><Time at={bid.createdAt} /></td>
                {mine && <td>{bid.status === 'ACTIVE' && <button type="button" disabled={intent.busy} onClick={() => void award(bid)}>Award at {amount(bid.price)}</button>}</td>}
              </tr>
            ))}
          </tbody>
        </table>
      </div>
      {(auction.bids?.totalCount ?? 0) > bids.length && <p class="note">{bids.length} of {auction.bids?.totalCount} bids; the others are in GraphiQL.</p>}
    </Panel>
  );
}
