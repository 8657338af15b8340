//! Passwords are kept as argon2id (RFC 9106) in PHC strings. A hash costs tens of milliseconds and megabytes on purpose, so it
//! is made away from the async threads, no more at a time than there are cores, and only so many may wait.

use std::{sync::Arc, thread};

use argon2::{Algorithm, Argon2, Params, PasswordHash, PasswordHasher, PasswordVerifier, Version};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    task::spawn_blocking,
};

use crate::{
    error::{Error, Result},
    store::Entropy,
};

/// Hashes that may run or wait, for each core. At the default parameters the last of them waits for about a second.
const PLACES_PER_CORE: usize = 32;

/// What a password is worth against a stored hash.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Verdict {
    /// It is the password.
    pub right: bool,
    /// The hash was made with other parameters than those of today.
    pub outdated: bool,
}

/// Makes and checks hashes.
pub(super) struct Hasher {
    argon2: Argon2<'static>,
    entropy: Entropy,
    /// One permit for each hash that runs.
    cores: Arc<Semaphore>,
    /// One permit for each hash that runs or waits.
    places: Arc<Semaphore>,
    /// A hash of nobody's password, so that an unknown user costs what a known one costs.
    nobody: String,
}

impl Hasher {
    /// A hasher with memory in KiB, passes and lanes.
    pub(super) fn new((memory, passes, lanes): (u32, u32, u32), entropy: Entropy) -> Result<Self> {
        let params = Params::new(memory, passes, lanes, None)
            .map_err(|error| Error::invalid("argon2", format!("must be memory in KiB, passes and lanes: {error}")))?;
        let argon2 = Argon2::new(Algorithm::Argon2id, Version::V0x13, params);
        let nobody = hash(&argon2, &entropy.bytes::<16>(), &entropy.bytes())?;
        let cores = thread::available_parallelism().map_or(1, usize::from);
        Ok(Self {
            argon2,
            entropy,
            cores: Arc::new(Semaphore::new(cores)),
            places: Arc::new(Semaphore::new(cores.saturating_mul(PLACES_PER_CORE))),
            nobody,
        })
    }

    /// The PHC string of a password under a fresh salt.
    pub(super) async fn hash(&self, password: &str) -> Result<String> {
        let (argon2, password, salt) = (self.argon2.clone(), password.to_owned(), self.entropy.bytes());
        self.run(move || hash(&argon2, password.as_bytes(), &salt)).await?
    }

    /// Tries a password. Without a stored hash, or with one that cannot be read, the answer is no and the work is the same.
    pub(super) async fn verify(&self, password: &str, stored: Option<&str>) -> Result<Verdict> {
        let stored = stored.filter(|stored| is_hash(stored));
        let known = stored.is_some();
        let (argon2, password) = (self.argon2.clone(), password.to_owned());
        let stored = stored.unwrap_or(&self.nobody).to_owned();
        self.run(move || {
            let hash = PasswordHash::new(&stored).map_err(Error::internal)?;
            let matches = argon2.verify_password(password.as_bytes(), &hash).is_ok();
            Ok(Verdict { right: matches && known, outdated: !is_current(&argon2, &hash) })
        })
        .await?
    }

    /// Runs heavy work when it is its turn. The permits go with the work, because it goes on when its caller has gone.
    async fn run<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> Result<T> {
        let place = Arc::clone(&self.places)
            .try_acquire_owned()
            .map_err(|_| Error::Unavailable("Too many people sign in at this moment; try again."))?;
        let core = Arc::clone(&self.cores).acquire_owned().await.map_err(Error::internal)?;
        let permits: [OwnedSemaphorePermit; 2] = [place, core];
        spawn_blocking(move || {
            let result = work();
            drop(permits);
            result
        })
        .await
        .map_err(Error::internal)
    }
}

/// Whether a text is a hash that [`Hasher::verify`] can check.
pub(super) fn is_hash(text: &str) -> bool {
    PasswordHash::new(text).is_ok_and(|hash| {
        Algorithm::try_from(hash.algorithm.as_str()).is_ok()
            && hash.salt.is_some()
            && hash.hash.is_some()
            && Params::try_from(&hash).is_ok()
    })
}

fn is_current(argon2: &Argon2<'_>, hash: &PasswordHash) -> bool {
    let today = argon2.params();
    hash.algorithm.as_str() == Algorithm::Argon2id.as_str()
        && hash.version == Some(Version::V0x13.into())
        && Params::try_from(hash).is_ok_and(|params| {
            (params.m_cost(), params.t_cost(), params.p_cost()) == (today.m_cost(), today.t_cost(), today.p_cost())
        })
}

fn hash(argon2: &Argon2<'_>, password: &[u8], salt: &[u8; 16]) -> Result<String> {
    Ok(argon2.hash_password_with_salt(password, salt).map_err(Error::internal)?.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    const CHEAP: (u32, u32, u32) = (8, 1, 1);

    fn hasher(params: (u32, u32, u32)) -> Hasher {
        Hasher::new(params, Entropy::seeded(1)).unwrap()
    }

    #[tokio::test]
    async fn a_password_is_known_again_and_another_is_not() {
        let hasher = hasher(CHEAP);
        let stored = hasher.hash("correct horse").await.unwrap();
        assert!(stored.starts_with("$argon2id$v=19$m=8,t=1,p=1$"), "{stored}");
        let verdict = |password: &'static str| hasher.verify(password, Some(&stored));
        assert_eq!(verdict("correct horse").await.unwrap(), Verdict { right: true, outdated: false });
        assert_eq!(verdict("Correct horse").await.unwrap(), Verdict { right: false, outdated: false });
        assert_ne!(hasher.hash("correct horse").await.unwrap(), stored, "every hash has its own salt");
    }

    #[tokio::test]
    async fn nobodys_password_is_never_right() {
        let hasher = hasher(CHEAP);
        assert!(!hasher.verify("", None).await.unwrap().right);
        assert!(!hasher.verify("x", Some("not a hash")).await.unwrap().right);
        let plain = "$argon2id$v=19$m=8,t=1,p=1$AAAAAAAAAAAAAAAAAAAAAA";
        assert!(!hasher.verify("x", Some(plain)).await.unwrap().right, "a hash without an output matches nothing");
    }

    #[tokio::test]
    async fn a_hash_of_other_parameters_is_right_and_outdated() {
        let old = hasher(CHEAP).hash("correct horse").await.unwrap();
        let verdict = hasher((16, 2, 1)).verify("correct horse", Some(&old)).await.unwrap();
        assert_eq!(verdict, Verdict { right: true, outdated: true });
    }

    #[tokio::test]
    async fn hashes_wait_their_turn_and_only_so_many_may_wait() {
        let hasher = hasher(CHEAP);
        let held =
            Arc::clone(&hasher.places).acquire_many_owned(u32::try_from(hasher.places.available_permits()).unwrap());
        let held = held.await.unwrap();
        assert!(matches!(hasher.hash("correct horse").await, Err(Error::Unavailable(_))));
        drop(held);
        assert!(hasher.hash("correct horse").await.is_ok());
        assert_eq!(hasher.cores.available_permits(), thread::available_parallelism().unwrap().get());
    }

    #[test]
    fn parameters_that_argon2_does_not_know_are_refused() {
        assert!(matches!(Hasher::new((1, 1, 1), Entropy::seeded(1)), Err(Error::Invalid { .. })));
    }
}
