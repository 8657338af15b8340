//! What browsers are shown, in a build with the console and in one without.

use std::io::Read;

use reqwest::header::{ACCEPT_ENCODING, IF_NONE_MATCH};
use zerostate::transport::has_console;

use crate::world::World;

/// An answer as it came, not inflated.
struct Page {
    status: u16,
    headers: reqwest::header::HeaderMap,
    body: Vec<u8>,
}

impl Page {
    fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    fn text(&self) -> String {
        if self.header("content-encoding") != "gzip" {
            return String::from_utf8(self.body.clone()).unwrap();
        }
        let mut text = String::new();
        flate2::read::GzDecoder::new(self.body.as_slice()).read_to_string(&mut text).unwrap();
        text
    }
}

async fn sent(request: reqwest::RequestBuilder) -> Page {
    let response = request.send().await.unwrap();
    let (status, headers) = (response.status().as_u16(), response.headers().clone());
    Page { status, headers, body: response.bytes().await.unwrap().to_vec() }
}

async fn get(world: &World, path: &str) -> Page {
    sent(world.http().get(world.url(path))).await
}

/// The local names in a page after `before`, up to the quote.
fn links<'a>(page: &'a str, before: &str) -> Vec<&'a str> {
    page.split(before).skip(1).filter_map(|rest| rest.split('"').next()).collect()
}

#[tokio::test]
async fn every_build_has_pages_that_name_no_other_host() {
    let world = World::start().await;
    for path in ["/", "/graphiql", "/lite"] {
        let page = get(&world, path).await;
        assert_eq!((page.status, page.header("content-type")), (200, "text/html; charset=utf-8"), "{path}");
        assert_eq!(page.header("cache-control"), "no-cache", "{path}");
        assert_eq!(page.header("x-content-type-options"), "nosniff", "{path}");
        let policy = page.header("content-security-policy");
        for part in ["default-src 'none'", "script-src 'self'", "connect-src 'self'", "frame-ancestors 'none'"] {
            assert!(policy.split("; ").any(|it| it == part), "{path}: {policy}");
        }
        assert!(!policy.contains("unsafe-eval"), "{policy}");
        // The name of SVG is an address that nobody asks for anything.
        let text = page.text().replace("http://www.w3.org/2000/svg", "");
        assert!(!text.contains("://") && !text.contains("=\"/"), "{path} has a link that is not relative:\n{text}");

        // What a browser knows is not sent again.
        let tag = page.header("etag").to_owned();
        let again = sent(world.http().get(world.url(path)).header(IF_NONE_MATCH, &tag)).await;
        assert_eq!((again.status, again.body.len(), again.header("etag")), (304, 0, tag.as_str()), "{path}");
        let head = sent(world.http().head(world.url(path))).await;
        assert_eq!((head.status, head.body.len(), head.header("etag")), (200, 0, tag.as_str()), "{path}");
    }
    let script = get(&world, "/lite.js").await;
    assert_eq!((script.status, script.header("content-type")), (200, "text/javascript; charset=utf-8"));
    assert!(!script.text().contains("://"));
    let small = get(&world, "/lite").await.text();
    assert_eq!(get(&world, "/").await.text() == small, !has_console());
    assert_eq!(get(&world, "/graphiql").await.text() == small, !has_console());
    assert_eq!(get(&world, "/licences.md").await.status, if has_console() { 200 } else { 404 });
    for missing in ["/assets/nothing.js", "/assets/..%2findex.html", "/assets/", "/index.html"] {
        assert_eq!(get(&world, missing).await.status, 404, "{missing}");
    }
    let console = get(&world, "/console").await;
    assert_eq!(console.status, 200, "it leads to /");
    world.check().await;
}

#[tokio::test]
async fn what_is_built_is_sent_compressed_and_kept_for_ever() {
    let world = World::start().await;
    for path in ["/", "/graphiql"] {
        let page = get(&world, path).await.text();
        let named: Vec<&str> = ["src=\"./assets/", "href=\"./assets/"].iter().flat_map(|it| links(&page, it)).collect();
        // A build without the console has none.
        assert_eq!(named.is_empty(), !has_console(), "{path} names {named:?}");
        for name in named {
            let url = world.url(&format!("/assets/{name}"));
            let packed = sent(world.http().get(&url).header(ACCEPT_ENCODING, "gzip, deflate")).await;
            let plain = sent(world.http().get(&url)).await;
            assert_eq!((packed.header("content-encoding"), plain.header("content-encoding")), ("gzip", ""), "{name}");
            assert_eq!(packed.text(), plain.text(), "{name}");
            assert_ne!(packed.header("etag"), plain.header("etag"), "{name}");
            for each in [&packed, &plain] {
                assert_eq!(each.header("cache-control"), "public, max-age=31536000, immutable", "{name}");
                assert_eq!(
                    (each.header("vary"), each.header("x-content-type-options")),
                    ("accept-encoding", "nosniff")
                );
            }
        }
    }
    world.check().await;
}

#[tokio::test]
async fn a_service_below_a_path_ends_it_with_a_slash() {
    let world = World::with(|config| {
        config.http.public_url = Some("https://example.com/market".parse().unwrap());
    })
    .await;
    let asking = reqwest::Client::builder().no_proxy().redirect(reqwest::redirect::Policy::none()).build().unwrap();
    let at = async |path: &str| {
        let response = asking.get(world.url(path)).send().await.unwrap();
        let to = response.headers().get("location").map(|to| to.to_str().unwrap().to_owned());
        (response.status().as_u16(), to.unwrap_or_default())
    };
    assert_eq!(at("/market").await, (308, "/market/".to_owned()));
    assert_eq!(at("/market/").await, (200, String::new()));
    assert_eq!(at("/market/graphiql").await, (200, String::new()));
    assert_eq!(at("/market/console").await, (308, "./".to_owned()));
    assert_eq!(at("/market/lite.js").await, (200, String::new()));
    assert_eq!(at("/").await, (200, String::new()), "the proxy may have taken the path off");
    world.check().await;
}
