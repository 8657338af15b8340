-- A history for a market on PostgreSQL, by statements over whole sets. psql gives the variables: `payer` and `owner`, users that exist,
-- `agents`, `past` tasks that were called off after `past_bids` bids each, `pages` open auctions with 20 bids each, and `open` ones without
-- bids. The nth agent, task and auction have n in the last 12 digits of their ids, so that scripts can name them.
--
-- The books have to balance afterwards: the payer's wallet pays for each task into its escrow, and gets it back where the task is over.

\set ON_ERROR_STOP on
SET synchronous_commit = off;
-- The ids of accounts are SHA-1, which the server has only with this extension of its own distribution.
CREATE SCHEMA load_seed;
CREATE EXTENSION pgcrypto SCHEMA load_seed;
BEGIN;
SET LOCAL work_mem = '256MB';

-- Ids of version 7 that sort by their number: `kind` keeps the nouns apart.
CREATE FUNCTION pg_temp.numbered(kind int, n bigint) RETURNS uuid LANGUAGE sql IMMUTABLE AS
$$ SELECT ('01900000-0000-7' || lpad(to_hex(kind), 3, '0') || '-8000-' || lpad(to_hex(n), 12, '0'))::uuid $$;
-- The same with the present instant: the journal takes up what is younger than its newest head.
CREATE FUNCTION pg_temp.fresh(kind int, n bigint) RETURNS uuid LANGUAGE sql STABLE AS
$$ SELECT (lpad(to_hex((extract(epoch FROM now()) * 1000)::bigint), 12, '0') || '7' || lpad(to_hex(kind), 3, '0') || '8000' ||
   lpad(to_hex(n), 12, '0'))::uuid $$;
-- The id of the account in which a task's budget waits, as the ledger derives it: version 5 under its namespace.
CREATE FUNCTION pg_temp.escrow(task uuid) RETURNS uuid LANGUAGE sql IMMUTABLE AS
$$ SELECT encode(set_byte(set_byte(hash, 6, (get_byte(hash, 6) & 15) | 80), 8, (get_byte(hash, 8) & 63) | 128), 'hex')::uuid
   FROM (SELECT substring(load_seed.digest('\x6f1d2f0a52c44d6e9b777a65726f7374' || '\x0000000000000007'::bytea || 'account'::bytea ||
   '\x000000000000000b'::bytea || 'ESCROW_TASK'::bytea || '\x0000000000000010'::bytea || uuid_send(task) ||
   '\x000000000000000100'::bytea, 'sha1') FOR 16) AS hash) h $$;

CREATE TEMP TABLE clock AS SELECT (extract(epoch FROM now()) * 1000000)::bigint AS at,
  (extract(epoch FROM now() + interval '29 days') * 1000000)::bigint AS ends;

INSERT INTO agents (id, owner_id, name, description, capabilities, runtime, status, price, min_price, score, version, created_at, updated_at, capacity)
SELECT pg_temp.numbered(1, n), :'owner', 'seeded-' || n, '', '["load.bid"]', 'EXTERNAL', 'ACTIVE', 1000000, 1000000, 42500, 1, at, at, 10
FROM generate_series(1, :agents) n, clock;
INSERT INTO agent_capabilities SELECT 'load.bid', pg_temp.numbered(1, n) FROM generate_series(1, :agents) n;

-- What each task is: first those that are over, then the pages, then the open ones.
CREATE TEMP TABLE plan AS
SELECT n, pg_temp.numbered(2, n) AS task, pg_temp.numbered(3, n) AS auction, pg_temp.fresh(4, n) AS hold,
  pg_temp.escrow(pg_temp.numbered(2, n)) AS escrow, n <= :past AS over,
  CASE WHEN n <= :past THEN :past_bids WHEN n <= :past + :pages THEN 20 ELSE 0 END AS bids
FROM generate_series(1, (:past + :pages + :open)::bigint) n;
CREATE TEMP TABLE purse AS SELECT id, balance, version FROM accounts WHERE owner_id = :'payer' AND kind = 'USER' FOR UPDATE;

INSERT INTO accounts (id, kind, owner_id, shard, balance, version, created_at)
SELECT escrow, 'ESCROW_TASK', task, 0, CASE WHEN over THEN 0 ELSE 5000000 END, CASE WHEN over THEN 2 ELSE 1 END, at FROM plan, clock;
INSERT INTO holds (id, escrow_id, payer_account_id, task_id, amount, status, created_at)
SELECT hold, escrow, purse.id, task, 5000000, CASE WHEN over THEN 'VOIDED' ELSE 'HELD' END, at FROM plan, purse, clock;
INSERT INTO tasks (id, requester_id, title, capabilities, input, input_sha256, budget, status, timeout_ms, max_attempts, start_timeout_ms,
  hold_id, deadline_at, failure_code, created_at, finished_at)
SELECT task, :'payer', 'Seeded ' || n, '["load.bid"]', '"x"', 'ba2df4903a2c14e86dc3bcca58911b44ac1d2514b7227bf6eb08cfb978f55a1b', 5000000,
  CASE WHEN over THEN 'CANCELLED' ELSE 'OPEN' END, 10000, 3, 60000, hold, CASE WHEN over THEN NULL ELSE ends END, NULL, at,
  CASE WHEN over THEN at END FROM plan, clock;
INSERT INTO auctions (id, task_id, requester_id, status, kind, visibility, award_mode, budget, max_price, min_reputation, price_weight,
  reputation_weight, capabilities, closes_at, soft_close_ms, extensions, next_seq, bid_count, deadline_at, created_at, closed_at)
SELECT auction, task, :'payer', CASE WHEN over THEN 'CANCELLED' ELSE 'OPEN' END, 'FIRST_PRICE', 'OPEN', 'AUTOMATIC', 5000000, 5000000, 0,
  4000, 6000, '["load.bid"]', ends, 0, 0, bids + 1, bids, CASE WHEN over THEN NULL ELSE ends END, at, CASE WHEN over THEN at END
FROM plan, clock;

-- Agents bid in turn. No agent twice in one auction: there are more agents than bids in it.
INSERT INTO bids (id, auction_id, agent_id, bidder_id, price, seq, status, created_at)
SELECT pg_temp.numbered(5, p.n * 1000 + s), p.auction, pg_temp.numbered(1, (p.n * 7 + s) % :agents + 1), :'owner', 2000000 + s * 1000, s,
  CASE WHEN over THEN 'CANCELLED' ELSE 'ACTIVE' END, at
FROM plan p CROSS JOIN LATERAL generate_series(1, p.bids) s, clock;

-- The first of these bids in the event log, where it has its place already.
INSERT INTO events (kind, auction_id, task_id, agent_id, payer_id, owner_id, actor_id, payload, occurred_at, place)
SELECT 'BID_SUBMITTED', p.auction, p.task, pg_temp.numbered(1, (p.n * 7 + s) % :agents + 1), :'payer', :'owner', :'owner',
  jsonb_build_object('bidId', pg_temp.numbered(5, p.n * 1000 + s), 'amount', 2000000 + s * 1000, 'bidCount', s), at,
  newest + ROW_NUMBER() OVER ()
FROM plan p CROSS JOIN LATERAL generate_series(1, p.bids) s, clock, (SELECT COALESCE(MAX(place), 0) AS newest FROM events) l LIMIT :events;

-- One transfer into the escrow of each task, and one back where the task is over. The payer's entries alternate, first for the tasks that
-- are over and then for the open ones, so that each balance follows from its number.
INSERT INTO transfers (id, batch_id, kind, debit_id, credit_id, amount, task_id, created_at)
SELECT pg_temp.fresh(6, n * 2), pg_temp.fresh(7, n * 2), 'HOLD', purse.id, escrow, 5000000, task, at FROM plan, purse, clock
UNION ALL
SELECT pg_temp.fresh(6, n * 2 + 1), pg_temp.fresh(7, n * 2 + 1), 'REFUND', escrow, purse.id, 5000000, task, at FROM plan, purse, clock WHERE over;
INSERT INTO hold_resolutions (hold_id, kind, posted, returned, batch_id, created_at)
SELECT hold, 'VOID', 0, 5000000, pg_temp.fresh(7, n * 2 + 1), at FROM plan, clock WHERE over;
INSERT INTO entries (account_id, version, transfer_id, amount, previous, current, created_at)
SELECT purse.id, purse.version + CASE WHEN over THEN n * 2 - 1 ELSE :past + n END, pg_temp.fresh(6, n * 2), -5000000,
  balance - CASE WHEN over THEN 0 ELSE (n - :past - 1) * 5000000 END, balance - CASE WHEN over THEN 1 ELSE n - :past END * 5000000, at
FROM plan, purse, clock
UNION ALL
SELECT purse.id, purse.version + n * 2, pg_temp.fresh(6, n * 2 + 1), 5000000, balance - 5000000, balance, at FROM plan, purse, clock WHERE over
UNION ALL
SELECT escrow, 1, pg_temp.fresh(6, n * 2), 5000000, 0, 5000000, at FROM plan, clock
UNION ALL
SELECT escrow, 2, pg_temp.fresh(6, n * 2 + 1), -5000000, 5000000, 0, at FROM plan, clock WHERE over;
UPDATE accounts SET balance = purse.balance - (:pages + :open)::bigint * 5000000, version = purse.version + :past * 2::bigint + :pages + :open
FROM purse WHERE accounts.id = purse.id;
COMMIT;
\set QUIET on
SET client_min_messages = warning;
DROP SCHEMA load_seed CASCADE;
VACUUM ANALYZE;
