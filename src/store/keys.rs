//! Key files: how secrets lie in the data folder. A file is made when it is not there, complete or not at all, readable by its
//! owner alone; processes that share the folder use the same keys.

use std::{fs, io, io::Write, path::Path};

use base64::{Engine, engine::general_purpose::STANDARD};
use ed25519_dalek::{
    SigningKey,
    pkcs8::{DecodePrivateKey, EncodePrivateKey, KeypairBytes},
};

use crate::{
    config::{Profile, Secret},
    error::{Error, Result},
};

/// The folder below the data folder.
pub(crate) const FOLDER: &str = "keys";
/// The file of the key that signs access tokens.
pub(crate) const SIGNING: &str = "signing.key";
/// The file of the key that makes refresh tokens.
pub(crate) const REFRESH: &str = "refresh.key";
const PEM_HEAD: &str = "-----BEGIN PRIVATE KEY-----";
const PEM_FOOT: &str = "-----END PRIVATE KEY-----";

/// A private key as PKCS#8 in DER.
pub(crate) fn der(seed: &[u8; 32]) -> Result<Vec<u8>> {
    let pair = KeypairBytes { secret_key: *seed, public_key: None };
    Ok(pair.to_pkcs8_der().map_err(Error::internal)?.as_bytes().to_vec())
}

/// A private key as `openssl genpkey -algorithm ed25519` writes it.
pub(crate) fn spell_pem(seed: &[u8; 32]) -> Result<String> {
    // An Ed25519 key has 48 bytes, which are one line of PEM.
    Ok(format!("{PEM_HEAD}\n{}\n{PEM_FOOT}\n", STANDARD.encode(der(seed)?)))
}

/// Reads what [`spell_pem`] wrote.
pub(crate) fn read_pem(path: &Path, text: &str) -> Result<SigningKey> {
    let body = text.trim().strip_prefix(PEM_HEAD).and_then(|rest| rest.strip_suffix(PEM_FOOT));
    let der = body.and_then(|body| STANDARD.decode(body.split_whitespace().collect::<String>()).ok());
    der.and_then(|der| SigningKey::from_pkcs8_der(&der).ok())
        .ok_or_else(|| unusable(path, "an Ed25519 private key in PKCS#8 PEM"))
}

/// What is wrong with a key file; never what is in it.
pub(crate) fn unusable(path: &Path, expected: &str) -> Error {
    Error::internal(format!("{} is not {expected}", path.display()))
}

/// Makes a folder that only its owner may enter.
pub(crate) fn make_private_folder(folder: &Path) -> io::Result<()> {
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(folder)
}

/// A key file that is not there, and that nobody makes in production: who loses its key without noticing would begin a new market.
#[derive(Debug, thiserror::Error)]
#[error("{file} is not there")]
pub struct MissingKey {
    pub file: String,
}

/// A key of the program: what was given from outside, or the content of its file, which development makes where it is not there.
/// The text is that of the file, or 32 bytes in hex.
pub(crate) fn obtain(
    path: &Path,
    given: Option<&Secret>,
    profile: Profile,
    make: impl FnOnce() -> Result<String>,
) -> Result<String> {
    if let Some(given) = given {
        return Ok(given.expose().to_owned());
    }
    match profile {
        Profile::Production if !path.exists() => Err(Error::internal(MissingKey { file: path.display().to_string() })),
        Profile::Production | Profile::Development => read_or_make(path, make),
    }
}

/// The 32 bytes of a key in hex.
pub(crate) fn read_hex(text: &str) -> Option<[u8; 32]> {
    let mut bytes = [0_u8; 32];
    hex::decode_to_slice(text.trim(), &mut bytes).ok().map(|()| bytes)
}

/// Reads what [`spell_pem`] wrote, or the 32 bytes of the key in hex.
pub(crate) fn read_signing(path: &Path, text: &str) -> Result<SigningKey> {
    match read_hex(text) {
        Some(seed) => Ok(SigningKey::from_bytes(&seed)),
        None => read_pem(path, text),
    }
}

/// The content of a key file, which is made first if it is not there. The file appears under its name complete or not at all,
/// and if somebody else was faster, theirs is the key.
fn read_or_make(path: &Path, make: impl FnOnce() -> Result<String>) -> Result<String> {
    match fs::read_to_string(path) {
        Ok(text) => {
            warn_if_others_can_read(path);
            return Ok(text);
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(Error::internal(error)),
    }
    let folder = path.parent().unwrap_or(Path::new("."));
    tracing::info!(file = %path.display(), "made a key that was not there; whoever has this file can speak for this service");
    // Temporary files are readable by their owner alone.
    let mut file = tempfile::NamedTempFile::new_in(folder).map_err(Error::internal)?;
    file.write_all(make()?.as_bytes()).map_err(Error::internal)?;
    file.as_file().sync_all().map_err(Error::internal)?;
    match file.persist_noclobber(path) {
        Ok(_) => sync_folder(folder).map_err(Error::internal)?,
        Err(lost) if lost.error.kind() == io::ErrorKind::AlreadyExists => {}
        Err(lost) => return Err(Error::internal(lost.error)),
    }
    fs::read_to_string(path).map_err(Error::internal)
}

/// Makes the name of a new file as durable as its content.
fn sync_folder(folder: &Path) -> io::Result<()> {
    if cfg!(unix) { fs::File::open(folder)?.sync_all() } else { Ok(()) }
}

/// Secrets that an orchestrator mounts often have wider modes than ours, so this is no reason to refuse to start.
fn warn_if_others_can_read(path: &Path) {
    #[cfg(unix)]
    if fs::metadata(path).is_ok_and(|meta| std::os::unix::fs::PermissionsExt::mode(&meta.permissions()) & 0o077 != 0) {
        tracing::warn!(file = %path.display(), "a key file is readable by others than its owner");
    }
    #[cfg(not(unix))]
    let _ = path;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_file_is_the_private_key_of_rfc_8410() {
        // RFC 8410 §10.1 and §10.3.
        let pem = format!("{PEM_HEAD}\nMC4CAQAwBQYDK2VwBCIEINTuctv5E1hK1bbY8fdp+K06/nwoy/HU++CXqI9EdVhC\n{PEM_FOOT}\n");
        let signing = read_pem(Path::new("signing.key"), &pem).unwrap();
        assert_eq!(STANDARD.encode(signing.verifying_key()), "Gb9ECWmEzf6FQbrBZ9w7lshQhqowtrbLDFw4rXAxZuE=");
        assert_eq!(spell_pem(&signing.to_bytes()).unwrap(), pem);
    }
}
