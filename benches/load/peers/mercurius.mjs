// The same questions over the same tables through mercurius: resolvers by hand, a transaction of pg, loaders for what belongs to a row.
// It asks nobody who they are and checks less than the market does.

import Fastify from 'fastify';
import mercurius from 'mercurius';
import pg from 'pg';
import { randomBytes } from 'node:crypto';

const pool = new pg.Pool({ connectionString: process.env.DATABASE_URL, max: Number(process.env.POOL ?? 12) });
const app = Fastify({ logger: false });

// A UUID of version 7, so that the indexes see ids in the order of time as they do from the market.
const fresh = () => {
  const bytes = randomBytes(16);
  bytes.writeUIntBE(Date.now(), 0, 6);
  bytes[6] = (bytes[6] & 0x0f) | 0x70;
  bytes[8] = (bytes[8] & 0x3f) | 0x80;
  const hex = bytes.toString('hex');
  return `${hex.slice(0, 8)}-${hex.slice(8, 12)}-${hex.slice(12, 16)}-${hex.slice(16, 20)}-${hex.slice(20)}`;
};

const schema = `
  type Agent { id: ID! name: String! price: String! }
  type Bid { id: ID! price: String! sequence: Int! status: String! agentId: ID! agent: Agent }
  type Auction { id: ID! status: String! budget: String! bidCount: Int! closesAt: String! bids(first: Int!): [Bid!]! }
  type Query { auction(id: ID!): Auction }
  type Mutation { submitBid(auctionId: ID!, agentId: ID!, price: String!, key: String!): Bid }
`;

// pg prepares a statement that has a name, once on each connection.
const one = async (client, name, text, values) => (await client.query({ name, text, values })).rows[0];

async function submit(client, { auctionId, agentId, price, key }) {
  const now = Date.now() * 1000;
  const agent = await one(client, 'agent', 'SELECT * FROM agents WHERE id = $1', [agentId]);
  if (await one(client, 'record', "SELECT * FROM idempotency_records WHERE user_id = $1 AND operation = 'submitBid' AND key = $2", [agent.owner_id, key])) {
    throw new Error('done before');
  }
  const auction = await one(client, 'auction', 'SELECT * FROM auctions WHERE id = $1 FOR NO KEY UPDATE', [auctionId]);
  await one(client, 'task', 'SELECT * FROM tasks WHERE id = $1 FOR UPDATE', [auction.task_id]);
  await one(client, 'reputation', 'SELECT * FROM reputations WHERE agent_id = $1', [agentId]);
  const earlier = await one(client, 'earlier', "SELECT * FROM bids WHERE auction_id = $1 AND agent_id = $2 AND status = 'ACTIVE'", [auctionId, agentId]);
  if (auction.status !== 'OPEN' || earlier || auction.bid_count >= 1000) throw new Error('refused');
  const bid = { id: fresh(), price, seq: auction.next_seq, status: 'ACTIVE', agent_id: agentId };
  await one(client, 'bid', "INSERT INTO bids (id, auction_id, agent_id, bidder_id, price, seq, status, created_at) VALUES ($1, $2, $3, $4, $5, $6, 'ACTIVE', $7)",
    [bid.id, auctionId, agentId, agent.owner_id, price, bid.seq, now]);
  await one(client, 'count', 'UPDATE auctions SET next_seq = $2, bid_count = $3 WHERE id = $1', [auctionId, auction.next_seq + 1, auction.bid_count + 1]);
  await one(client, 'once', "INSERT INTO idempotency_records (user_id, operation, key, input_hash, answer, created_at) VALUES ($1, 'submitBid', $2, $3, $4, $5)",
    [agent.owner_id, key, '0'.repeat(64), JSON.stringify({ done: bid }), now]);
  await one(client, 'event', "INSERT INTO events (kind, auction_id, task_id, agent_id, payer_id, owner_id, actor_id, payload, occurred_at) VALUES ('BID_SUBMITTED', $1, $2, $3, $4, $5, $5, $6, GREATEST($7::bigint, COALESCE((SELECT occurred_at FROM events WHERE task_id = $2 ORDER BY id DESC LIMIT 1), 0))) RETURNING *",
    [auctionId, auction.task_id, agentId, auction.requester_id, agent.owner_id, JSON.stringify({ bidId: bid.id, amount: Number(price), bidCount: auction.bid_count + 1 }), now]);
  return bid;
}

const resolvers = {
  Query: {
    auction: (_, { id }) => one(pool, 'read', 'SELECT id, status, budget, bid_count, closes_at FROM auctions WHERE id = $1', [id]),
  },
  Mutation: {
    submitBid: async (_, given) => {
      const client = await pool.connect();
      try {
        await client.query('BEGIN');
        const bid = await submit(client, given);
        await client.query('COMMIT');
        return bid;
      } catch (error) {
        await client.query('ROLLBACK');
        throw error;
      } finally {
        client.release();
      }
    },
  },
  Auction: { bidCount: (auction) => auction.bid_count, closesAt: (auction) => auction.closes_at },
  Bid: { sequence: (bid) => bid.seq, agentId: (bid) => bid.agent_id },
};

const loaders = {
  Auction: {
    bids: (queries) => Promise.all(queries.map(async ({ obj, params }) =>
      (await pool.query({ name: 'bids', text: 'SELECT id, agent_id, price, seq, status FROM bids WHERE auction_id = $1 ORDER BY id LIMIT $2', values: [obj.id, params.first] })).rows)),
  },
  Bid: {
    agent: async (queries) => {
      const ids = [...new Set(queries.map(({ obj }) => obj.agent_id))];
      const { rows } = await pool.query({ name: 'agents', text: 'SELECT id, name, price FROM agents WHERE id = ANY($1)', values: [ids] });
      const found = new Map(rows.map((row) => [row.id, row]));
      return queries.map(({ obj }) => found.get(obj.agent_id));
    },
  },
};

app.register(mercurius, { schema, resolvers, loaders, jit: 1 });
await app.listen({ host: '127.0.0.1', port: Number(process.env.PORT) });
