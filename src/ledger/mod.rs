//! Accounts, transfers, holds and the audit.
