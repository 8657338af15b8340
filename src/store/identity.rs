//! Who a market is: the key that signs its receipts, certificates and journal, and that vouchers are bound to.
//!
//! The key lies in `keys/instance.key` of the data folder, as PKCS#8 in PEM. Unlike the keys of tokens it is never rotated: its
//! public half is the identity of the market, and the database remembers it.

use std::{fmt, path::Path};

use ed25519_dalek::{Signer, SigningKey};
use hmac::{Hmac, Mac};
use sha2::Sha256;

use super::{
    Entropy,
    keys::{FOLDER, make_private_folder, obtain, read_signing, spell_pem},
};
use crate::{
    config::{Keys, Profile},
    error::{Error, Result},
    voucher,
};

/// The file of the key.
pub(crate) const INSTANCE: &str = "instance.key";

/// A market that this process may sign for.
pub struct Instance {
    key: SigningKey,
    id: [u8; 32],
}

impl fmt::Debug for Instance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Instance").field("id", &hex::encode(self.id)).finish_non_exhaustive()
    }
}

impl Instance {
    /// Takes the key that was given, or reads it from the data folder, where development makes it if it is not there.
    pub fn open(keys: &Keys, profile: Profile, data: &Path, entropy: &Entropy) -> Result<Self> {
        let folder = data.join(FOLDER);
        make_private_folder(&folder).map_err(Error::internal)?;
        let path = folder.join(INSTANCE);
        let text = obtain(&path, keys.instance.as_ref(), profile, || spell_pem(&entropy.bytes()))?;
        let key = read_signing(&path, &text)?;
        let id = voucher::instance_id(key.verifying_key().as_bytes());
        Ok(Self { key, id })
    }

    /// The Ed25519 public key.
    #[must_use]
    pub fn public_key(&self) -> [u8; 32] {
        self.key.verifying_key().to_bytes()
    }

    /// What signed messages name this market by; see [`voucher::instance_id`].
    #[must_use]
    pub fn id(&self) -> [u8; 32] {
        self.id
    }

    /// A secret that follows from the key, a label that no other use has, and what it is for. It says nothing about the key.
    pub fn derive(&self, label: &str, parts: &[&[u8]]) -> Result<[u8; 32]> {
        let mut tag = Hmac::<Sha256>::new_from_slice(self.key.as_bytes()).map_err(Error::internal)?;
        for part in std::iter::once(label.as_bytes()).chain(parts.iter().copied()) {
            // Each part begins with its length, so that no two lists of parts are the same bytes.
            tag.update(&u64::try_from(part.len()).unwrap_or(u64::MAX).to_be_bytes());
            tag.update(part);
        }
        Ok(tag.finalize().into_bytes().into())
    }

    /// The Ed25519 signature over exactly these bytes. The caller puts a tag of its own before what it signs, so that no message
    /// can be taken for one of another kind.
    #[must_use]
    pub fn sign(&self, message: &[u8]) -> [u8; 64] {
        self.key.sign(message).to_bytes()
    }
}
