-- The statements of `submit.sql` as a function, for PostGraphile, which makes a mutation of it.
CREATE FUNCTION load_submit_bid(auction uuid, agent uuid, price bigint, key text) RETURNS bids LANGUAGE plpgsql VOLATILE AS $$
DECLARE
  bidder agents; sale auctions; fresh uuid; made bids;
  now_micros bigint := (extract(epoch FROM clock_timestamp()) * 1000000)::bigint;
BEGIN
  SELECT * INTO bidder FROM agents WHERE id = agent;
  PERFORM 1 FROM idempotency_records r WHERE r.user_id = bidder.owner_id AND r.operation = 'submitBid' AND r.key = load_submit_bid.key;
  IF FOUND THEN RAISE EXCEPTION 'done before'; END IF;
  SELECT * INTO sale FROM auctions WHERE id = auction FOR NO KEY UPDATE;
  PERFORM 1 FROM tasks WHERE id = sale.task_id FOR UPDATE;
  PERFORM 1 FROM reputations WHERE agent_id = agent;
  PERFORM 1 FROM bids b WHERE b.auction_id = auction AND b.agent_id = agent AND b.status = 'ACTIVE';
  IF FOUND OR sale.status <> 'OPEN' OR sale.bid_count >= 1000 THEN RAISE EXCEPTION 'refused'; END IF;
  fresh := (lpad(to_hex(now_micros / 1000), 12, '0') || '7' || substr(replace(gen_random_uuid()::text, '-', ''), 14))::uuid;
  INSERT INTO bids (id, auction_id, agent_id, bidder_id, price, seq, status, created_at)
    VALUES (fresh, auction, agent, bidder.owner_id, load_submit_bid.price, sale.next_seq, 'ACTIVE', now_micros) RETURNING * INTO made;
  UPDATE auctions SET next_seq = sale.next_seq + 1, bid_count = sale.bid_count + 1 WHERE id = auction;
  INSERT INTO idempotency_records (user_id, operation, key, input_hash, answer, created_at)
    VALUES (bidder.owner_id, 'submitBid', load_submit_bid.key, repeat('0', 64), jsonb_build_object('done', jsonb_build_object('id', fresh))::text, now_micros);
  INSERT INTO events (kind, auction_id, task_id, agent_id, payer_id, owner_id, actor_id, payload, occurred_at)
    VALUES ('BID_SUBMITTED', auction, sale.task_id, agent, sale.requester_id, bidder.owner_id, bidder.owner_id,
    jsonb_build_object('bidId', fresh, 'amount', load_submit_bid.price, 'bidCount', sale.bid_count + 1),
    GREATEST(now_micros, COALESCE((SELECT occurred_at FROM events e WHERE e.task_id = sale.task_id ORDER BY id DESC LIMIT 1), 0)));
  RETURN made;
END $$;
