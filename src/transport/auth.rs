//! From a bearer token to a [`Caller`], and for how long.

use std::time::Duration;

use axum::http::{HeaderMap, header::AUTHORIZATION};
use entity::time::Timestamp;
use tokio::time::sleep;

use crate::{
    app::App,
    caller::Caller,
    error::{Error, Result},
    store::Clock,
    user,
};

/// How often a clock that is turned by hand is looked at.
const MANUAL_CLOCK_EVERY: Duration = Duration::from_millis(20);

/// The bearer token of a request, if it has one.
pub(super) fn bearer(headers: &HeaderMap) -> Result<Option<String>> {
    let mut values = headers.get_all(AUTHORIZATION).iter();
    let Some(value) = values.next() else { return Ok(None) };
    if values.next().is_some() {
        return Err(Error::Unauthenticated("Send one Authorization header."));
    }
    let token = value.to_str().ok().and_then(strip_scheme);
    token.map(|token| Some(token.to_owned())).ok_or(Error::Unauthenticated("Authorization must be \"Bearer <token>\"."))
}

/// The token of `Bearer <token>`; the scheme is read without regard to case.
pub(super) fn strip_scheme(value: &str) -> Option<&str> {
    let (scheme, token) = value.trim().split_once(' ')?;
    let token = token.trim();
    (scheme.eq_ignore_ascii_case("bearer") && !token.is_empty()).then_some(token)
}

/// Who the bearer of a token is; nobody in particular without one. A token that is not valid is an error and never anonymity:
/// a client that believes to be signed in must learn that it is not.
pub(super) async fn caller(app: &App, bearer: Option<&str>) -> Result<Caller> {
    match bearer {
        None => Ok(Caller::Anonymous),
        Some(token) => user::authenticate(app.store(), app.auth(), token).await,
    }
}

/// When the credentials of a caller end.
pub(super) fn end(caller: &Caller) -> Option<Timestamp> {
    caller.identity().ok().and_then(|identity| identity.expires_at)
}

/// Waits until less than `warning` is left of credentials, or until they have ended; tells how long they still are.
pub(super) async fn approaching(clock: Clock, end: Option<Timestamp>, warning: Duration) -> Duration {
    let Some(end) = end else { return std::future::pending().await };
    loop {
        let left = end.since(clock.now());
        if left <= warning {
            return left;
        }
        let pause = match clock {
            Clock::System => left.saturating_sub(warning),
            Clock::Manual(_) => MANUAL_CLOCK_EVERY,
        };
        sleep(pause).await;
    }
}

/// Asks again who the bearer of a token is. `None` when nobody can say so now: a database that does not answer proves nothing.
pub(super) async fn again(app: &App, token: &str) -> Result<Option<Caller>> {
    match caller(app, Some(token)).await {
        Ok(caller) => Ok(Some(caller)),
        Err(error @ Error::Unauthenticated(_)) => Err(error),
        Err(error) => {
            tracing::warn!(%error, "the credentials of a stream could not be checked");
            Ok(None)
        }
    }
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;
    use tokio::time::timeout;

    use super::*;

    fn of(values: &[&'static str]) -> Result<Option<String>> {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(AUTHORIZATION, HeaderValue::from_static(value));
        }
        bearer(&headers)
    }

    #[test]
    fn only_one_bearer_token_counts() {
        assert_eq!(of(&[]).unwrap(), None);
        assert_eq!(of(&["Bearer abc"]).unwrap().as_deref(), Some("abc"));
        assert_eq!(of(&["bearer  abc "]).unwrap().as_deref(), Some("abc"));
        for wrong in [&["Basic abc"][..], &["abc"], &["Bearer "], &[""], &["Bearer a", "Bearer b"]] {
            assert!(matches!(of(wrong), Err(Error::Unauthenticated(_))), "{wrong:?}");
        }
    }

    #[tokio::test]
    async fn the_end_of_a_token_is_told_before_it_comes() {
        let clock = Clock::manual(Timestamp::from_micros(0));
        let at = Some(Timestamp::from_micros(0).after(Duration::from_secs(100)));
        let waiting = approaching(clock.clone(), at, Duration::from_mins(1));
        clock.advance(Duration::from_secs(50));
        assert_eq!(waiting.await, Duration::from_secs(50));
        assert!(timeout(Duration::from_millis(60), approaching(clock.clone(), at, Duration::ZERO)).await.is_err());
        clock.advance(Duration::from_secs(50));
        assert_eq!(approaching(clock.clone(), at, Duration::ZERO).await, Duration::ZERO);
        assert!(timeout(Duration::from_millis(60), approaching(clock, None, Duration::ZERO)).await.is_err());
    }
}
