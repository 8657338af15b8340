//! Every metric, fed from committed events.
