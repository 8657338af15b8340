//! From a bearer token to a [`Caller`].

use axum::http::{HeaderMap, header::AUTHORIZATION};

use crate::{
    app::App,
    caller::Caller,
    error::{Error, Result},
    user,
};

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

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

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
}
