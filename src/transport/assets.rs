//! What browsers are shown: the console and GraphiQL where `web/` was built before the binary, and always a small page of our own
//! that asks a question and follows a subscription. No page names another host, and none may run what is not ours.
//!
//! The built files are carried compressed, as Vite's build wrote them. Clients that do not take that get them inflated, which is
//! done once.

use std::{
    io::Read,
    sync::{Arc, OnceLock},
};

use axum::{
    body::Bytes,
    extract::{Path, Request},
    http::{
        HeaderMap, HeaderName, HeaderValue, StatusCode,
        header::{
            ACCEPT_ENCODING, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_SECURITY_POLICY, CONTENT_TYPE, ETAG,
            IF_NONE_MATCH, LOCATION, VARY,
        },
    },
    response::{IntoResponse, Response},
};
use flate2::read::GzDecoder;
use sha2::{Digest, Sha256};

use super::answer::{Fault, code};

include!(concat!(env!("OUT_DIR"), "/assets.rs"));

static SMALL_PAGE: Asset = Asset::new("lite.html", include_bytes!("lite.html"), false);
static SMALL_SCRIPT: Asset = Asset::new("lite.js", include_bytes!("lite.js"), false);

/// Scripts, workers and connections are ours alone. Monaco, the editor of GraphiQL, sets styles by itself and brings a font and
/// images as data.
const POLICY: &str = "default-src 'none'; script-src 'self'; worker-src 'self'; style-src 'self' 'unsafe-inline'; \
    font-src 'self' data:; img-src 'self' data:; connect-src 'self'; object-src 'none'; base-uri 'none'; \
    form-action 'none'; frame-ancestors 'none'";
/// For files that have another name when they have another content.
const FOR_EVER: &str = "public, max-age=31536000, immutable";
/// For files that keep their names: asked for again each time, and sent again only when they are others.
const ASK_AGAIN: &str = "no-cache";

/// A file that browsers may have.
struct Asset {
    /// Below the root of the service, as links have it.
    name: &'static str,
    bytes: &'static [u8],
    compressed: bool,
    inflated: OnceLock<Option<Bytes>>,
    sum: OnceLock<String>,
}

impl Asset {
    const fn new(name: &'static str, bytes: &'static [u8], compressed: bool) -> Self {
        Self { name, bytes, compressed, inflated: OnceLock::new(), sum: OnceLock::new() }
    }

    fn built(name: &str) -> Option<&'static Self> {
        ASSETS.iter().find(|asset| asset.name == name)
    }

    fn media_type(&self) -> &'static str {
        match self.name.rsplit('.').next().unwrap_or_default() {
            "css" => "text/css; charset=utf-8",
            "html" => "text/html; charset=utf-8",
            "js" => "text/javascript; charset=utf-8",
            "json" | "map" => "application/json",
            "md" | "txt" => "text/plain; charset=utf-8",
            "svg" => "image/svg+xml",
            "ttf" => "font/ttf",
            "woff2" => "font/woff2",
            _ => "application/octet-stream",
        }
    }

    /// The file as it was before it was compressed.
    fn inflated(&'static self) -> Option<Bytes> {
        let inflate = || {
            let mut plain = Vec::new();
            let read = GzDecoder::new(self.bytes).read_to_end(&mut plain);
            read.inspect_err(|error| tracing::error!(%error, name = self.name, "a built file cannot be inflated"))
                .ok()?;
            Some(Bytes::from(plain))
        };
        self.inflated.get_or_init(inflate).clone()
    }

    /// The answer to a request with these headers.
    fn answer(&'static self, asked: &HeaderMap, caching: &'static str) -> Response {
        let packed = self.compressed && takes_gzip(asked);
        // Two encodings are two representations, and a strong tag names one.
        let sum = self.sum.get_or_init(|| hex::encode(Sha256::digest(self.bytes)).chars().take(32).collect());
        let tag = format!("\"{sum}{}\"", if packed { "-gz" } else { "" });
        let mut headers = vec![
            (CACHE_CONTROL, caching.to_owned()),
            (CONTENT_SECURITY_POLICY, POLICY.to_owned()),
            (ETAG, tag.clone()),
            (VARY, ACCEPT_ENCODING.to_string()),
        ];
        if is_known(asked, &tag) {
            return answered(StatusCode::NOT_MODIFIED, headers, Bytes::new());
        }
        headers.push((CONTENT_TYPE, self.media_type().to_owned()));
        if packed {
            headers.push((CONTENT_ENCODING, "gzip".to_owned()));
        }
        if packed || !self.compressed {
            return answered(StatusCode::OK, headers, Bytes::from_static(self.bytes));
        }
        match self.inflated() {
            Some(plain) => answered(StatusCode::OK, headers, plain),
            None => Fault::internal("a built file cannot be inflated").into_response(),
        }
    }
}

fn answered(status: StatusCode, headers: Vec<(HeaderName, String)>, body: Bytes) -> Response {
    let mut response = Response::new(body.into());
    *response.status_mut() = status;
    for (name, value) in headers {
        if let Ok(value) = HeaderValue::from_str(&value) {
            response.headers_mut().insert(name, value);
        }
    }
    response
}

/// Whether the binary carries the console and GraphiQL.
pub fn has_console() -> bool {
    !ASSETS.is_empty()
}

/// The path at which the whole service stands, asked for without the slash at its end.
#[derive(Clone)]
pub(super) struct Bare(pub(super) Arc<str>);

/// `GET /`: the console, or the small page.
pub(super) async fn index(request: Request) -> Response {
    // Links on the page are relative to the slash at its end.
    if let Some(Bare(base)) = request.extensions().get() {
        return moved(&format!("{base}/"));
    }
    Asset::built("index.html").unwrap_or(&SMALL_PAGE).answer(request.headers(), ASK_AGAIN)
}

/// `GET /console`: where people look for it.
pub(super) async fn console() -> Response {
    moved("./")
}

/// `GET /graphiql`: GraphiQL, or the small page.
pub(super) async fn graphiql(headers: HeaderMap) -> Response {
    Asset::built("graphiql.html").unwrap_or(&SMALL_PAGE).answer(&headers, ASK_AGAIN)
}

/// `GET /lite`: the small page, whatever else there is.
pub(super) async fn small_page(headers: HeaderMap) -> Response {
    SMALL_PAGE.answer(&headers, ASK_AGAIN)
}

/// `GET /lite.js`.
pub(super) async fn small_script(headers: HeaderMap) -> Response {
    SMALL_SCRIPT.answer(&headers, ASK_AGAIN)
}

/// `GET /assets/…`: what the console and GraphiQL consist of.
pub(super) async fn part(Path(name): Path<String>, headers: HeaderMap) -> Result<Response, Fault> {
    let asset = Asset::built(&format!("assets/{name}"));
    let missing = || Fault::new(StatusCode::NOT_FOUND, code::NOT_FOUND, "There is no such file.");
    asset.map(|asset| asset.answer(&headers, FOR_EVER)).ok_or_else(missing)
}

/// `GET /licences.md`: of the packages that the console and GraphiQL are made of.
pub(super) async fn licences(headers: HeaderMap) -> Result<Response, Fault> {
    let missing = || Fault::new(StatusCode::NOT_FOUND, code::NOT_FOUND, "This build carries no packages for browsers.");
    Asset::built("licences.md").map(|asset| asset.answer(&headers, ASK_AGAIN)).ok_or_else(missing)
}

fn moved(to: &str) -> Response {
    let mut response = StatusCode::PERMANENT_REDIRECT.into_response();
    if let Ok(to) = HeaderValue::from_str(to) {
        response.headers_mut().insert(LOCATION, to);
    }
    response
}

/// Whether the client takes gzip: it says so, by name or by taking anything, and not with a quality of nothing.
fn takes_gzip(headers: &HeaderMap) -> bool {
    let said = headers.get_all(ACCEPT_ENCODING).iter().filter_map(|value| value.to_str().ok());
    let mut anything = false;
    for coding in said.flat_map(|value| value.split(',')) {
        let mut parts = coding.split(';').map(str::trim);
        let name = parts.next().unwrap_or_default().to_ascii_lowercase();
        let quality = parts.find_map(|part| part.strip_prefix("q=")).unwrap_or("1");
        let taken = quality.chars().any(|digit| ('1'..='9').contains(&digit));
        match name.as_str() {
            "gzip" | "x-gzip" => return taken,
            "*" => anything = taken,
            _ => {}
        }
    }
    anything
}

/// Whether the client has the representation with this tag.
fn is_known(headers: &HeaderMap, tag: &str) -> bool {
    let said = headers.get_all(IF_NONE_MATCH).iter().filter_map(|value| value.to_str().ok());
    let mut tags = said.flat_map(|value| value.split(',')).map(|tag| tag.trim().trim_start_matches("W/"));
    tags.any(|known| known == tag || known == "*")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_says_whether_it_takes_gzip() {
        let takes = |value: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(ACCEPT_ENCODING, HeaderValue::from_static(value));
            takes_gzip(&headers)
        };
        for value in ["gzip", "gzip, deflate, br", "br;q=1.0, GZIP;q=0.001", "*", "br, *;q=0.1", "x-gzip"] {
            assert!(takes(value), "{value}");
        }
        for value in ["", "br", "gzip;q=0", "gzip; q=0.000, *", "identity", "*;q=0", "gzipped"] {
            assert!(!takes(value), "{value}");
        }
        assert!(!takes_gzip(&HeaderMap::new()));
    }

    #[test]
    fn a_tag_is_found_among_those_that_a_client_knows() {
        let knows = |value: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(IF_NONE_MATCH, HeaderValue::from_static(value));
            is_known(&headers, "\"a\"")
        };
        for value in ["\"a\"", "W/\"a\"", "\"b\", \"a\"", "*"] {
            assert!(knows(value), "{value}");
        }
        for value in ["", "a", "\"a-gz\"", "\"b\""] {
            assert!(!knows(value), "{value}");
        }
    }

    #[test]
    fn what_is_compressed_can_be_inflated() {
        // The four bytes `mark`, compressed.
        static PACKED: Asset = Asset::new(
            "mark.txt",
            &[31, 139, 8, 0, 0, 0, 0, 0, 2, 3, 203, 77, 44, 202, 6, 0, 113, 242, 116, 102, 4, 0, 0, 0],
            true,
        );
        static BROKEN: Asset = Asset::new("broken.js", &[31, 139, 8], true);
        assert_eq!(PACKED.inflated().unwrap(), "mark");
        let plain = PACKED.answer(&HeaderMap::new(), FOR_EVER);
        assert!(plain.headers().get(CONTENT_ENCODING).is_none());
        let mut asked = HeaderMap::new();
        asked.insert(ACCEPT_ENCODING, HeaderValue::from_static("gzip"));
        let packed = PACKED.answer(&asked, FOR_EVER);
        assert_eq!(packed.headers().get(CONTENT_ENCODING).unwrap(), "gzip");
        assert_ne!(plain.headers().get(ETAG), packed.headers().get(ETAG));
        assert_eq!(BROKEN.answer(&HeaderMap::new(), FOR_EVER).status(), StatusCode::INTERNAL_SERVER_ERROR);
        assert_eq!(BROKEN.answer(&asked, FOR_EVER).status(), StatusCode::OK);
    }
}
