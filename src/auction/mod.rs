//! Auctions and bids.
