// What happens on the market, in words.

import { graphql, type Result } from './graphql';
import { amount } from './money';

export const EVENT = graphql(`
  fragment EventParts on Event {
    __typename id cursor kind occurredAt
    ... on AuctionEvent { auctionId amount bidCount closesAt reason agent { id name } }
    ... on BidEvent { auctionId price bidCount agent { id name } }
    ... on ReputationChangedEvent { agentId scoreBefore scoreAfter reason agent { id name } }
    ... on TaskEvent { taskId amount fee returned attempt duration reason agent { id name } }
    ... on ChannelEvent { channelId amount fee returned reason agent { id name } }
    ... on CreditsEvent { amount agent { id name } }
    ... on DelegationEvent { delegationId step attempt amount returned duration reason }
  }
`);

export type MarketEvent = Result<typeof EVENT>;
export type Tone = 'plain' | 'good' | 'bad' | 'info' | 'warn';

const TITLES: Record<MarketEvent['kind'], [string, Tone]> = {
  AUCTION_AWARDED: ['Awarded', 'good'],
  AUCTION_CANCELLED: ['Auction cancelled', 'warn'],
  AUCTION_EXPIRED: ['Auction expired', 'warn'],
  AUCTION_EXTENDED: ['Close moved', 'plain'],
  AUCTION_OPENED: ['Auction opened', 'info'],
  AUCTION_REVEALING: ['Reveal begins', 'info'],
  BID_COMMITTED: ['Bid committed', 'plain'],
  BID_REVEALED: ['Bid revealed', 'plain'],
  BID_SUBMITTED: ['Bid', 'plain'],
  BID_WITHDRAWN: ['Bid withdrawn', 'warn'],
  BOND_FORFEITED: ['Bond forfeited', 'bad'],
  CHANNEL_CLOSED: ['Channel closed', 'plain'],
  CHANNEL_CLOSING: ['Channel closing', 'plain'],
  CHANNEL_EQUIVOCATION: ['Equivocation', 'bad'],
  CHANNEL_OPENED: ['Escrow opened', 'info'],
  CHANNEL_PAID: ['Channel paid', 'good'],
  CHANNEL_REOPENED: ['Close taken back', 'plain'],
  CHANNEL_TOPPED_UP: ['Channel topped up', 'plain'],
  CREDITS_ISSUED: ['Credits issued', 'good'],
  CREDITS_REDEEMED: ['Credits redeemed', 'plain'],
  DELEGATION_CANCELLED: ['Delegation cancelled', 'warn'],
  DELEGATION_COMPLETED: ['Delegation completed', 'good'],
  DELEGATION_CREATED: ['Delegation created', 'info'],
  DELEGATION_FAILED: ['Delegation failed', 'bad'],
  DELEGATION_PLANNED: ['Plan made', 'plain'],
  DELEGATION_STOPPING: ['Delegation stopping', 'warn'],
  DISPUTE_OPENED: ['Dispute opened', 'warn'],
  DISPUTE_RESOLVED: ['Dispute resolved', 'info'],
  EARNINGS_WITHDRAWN: ['Earnings withdrawn', 'good'],
  EVIDENCE_SUBMITTED: ['Evidence shown', 'plain'],
  REPUTATION_CHANGED: ['Reputation', 'plain'],
  STEP_COMPLETED: ['Step completed', 'good'],
  STEP_FAILED: ['Step failed', 'bad'],
  STEP_SKIPPED: ['Step skipped', 'warn'],
  STEP_STARTED: ['Step started', 'info'],
  TASK_CANCELLED: ['Task cancelled', 'warn'],
  TASK_COMPLETED: ['Task completed', 'good'],
  TASK_EXPIRED: ['Task expired', 'warn'],
  TASK_POSTED: ['Task posted', 'info'],
  TASK_REASSIGNED: ['Next bid takes over', 'warn'],
  TASK_REFUNDED: ['Task refunded', 'bad'],
  TASK_RETRIED: ['Tried again', 'warn'],
  TASK_STARTED: ['Work started', 'info'],
  TASK_SUBMITTED: ['Result came', 'info'],
  WORK_OFFERED: ['Work offered', 'plain'],
};

export const titleOf = (event: MarketEvent): string => TITLES[event.kind]?.[0] ?? words(event.kind);
export const toneOf = (event: MarketEvent): Tone => {
  if (event.__typename === 'ReputationChangedEvent' && event.scoreBefore && event.scoreAfter) {
    return Number(event.scoreAfter) < Number(event.scoreBefore) ? 'bad' : 'good';
  }
  return TITLES[event.kind]?.[1] ?? 'plain';
};

/** FIRST_PRICE in words. */
export const words = (name: string): string => name.toLowerCase().replaceAll('_', ' ');

/** The money of an event, as it is; empty where it has none. */
export function moneyOf(event: MarketEvent): string {
  if (event.__typename === 'BidEvent') return event.price ?? '';
  return 'amount' in event ? (event.amount ?? '') : '';
}

/** What else is to say about an event. */
export function detailOf(event: MarketEvent): string {
  switch (event.__typename) {
    case 'AuctionEvent':
      return [event.bidCount == null ? '' : count(event.bidCount, 'bid'), event.reason ? words(event.reason) : ''].filter(Boolean).join(', ');
    case 'BidEvent':
      return event.price ? '' : 'sealed';
    case 'ReputationChangedEvent':
      return `${event.scoreBefore ?? '–'} → ${event.scoreAfter ?? '–'}${event.reason ? `, ${words(event.reason)}` : ''}`;
    case 'TaskEvent':
    case 'ChannelEvent':
      return [
        'attempt' in event && event.attempt ? `attempt ${event.attempt}` : '',
        event.reason ? words(event.reason) : '',
        event.returned && event.returned !== '0' ? `${amount(event.returned)} back` : '',
        event.fee && event.fee !== '0' ? `fee ${amount(event.fee)}` : '',
      ].filter(Boolean).join(', ');
    case 'DelegationEvent':
      return [event.step ?? '', event.attempt && event.attempt > 1 ? `attempt ${event.attempt}` : '', event.reason ? words(event.reason) : '']
        .filter(Boolean).join(', ');
    case 'CreditsEvent':
      return '';
  }
}

export const agentOf = (event: MarketEvent): { id: string; name: string } | null => ('agent' in event ? event.agent : null);

export const count = (many: number | string, one: string): string => `${many} ${one}${String(many) === '1' ? '' : 's'}`;
