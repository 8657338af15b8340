//! What a payer signs and an agent checks, without a server: the bytes of vouchers and of cooperative closes.

use sha2::{Digest, Sha256};

/// What signed messages name a market by, so that none is good in another: `SHA256("ZSPC-INSTANCE-v1\0" ‖ public key)`.
#[must_use]
pub fn instance_id(public_key: &[u8; 32]) -> [u8; 32] {
    Sha256::new().chain_update(b"ZSPC-INSTANCE-v1\0").chain_update(public_key).finalize().into()
}
