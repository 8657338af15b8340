//! Small questions: is a server healthy, what is the schema, which version is this.

use std::{io::Write as _, net::SocketAddr, path::Path, time::Duration};

use serde_json::json;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};
use url::Url;

use super::{
    failure::{Exit, Failure},
    output::Output,
    settings::DEFAULT_PORT,
};
use crate::{graphql, metrics, transport};

/// How long a healthy server takes to say so, at most.
const PATIENCE: Duration = Duration::from_secs(3);

/// Runs `zerostate healthcheck`: exits with 5 unless the server answers 200. It speaks HTTP by itself, because a probe that runs
/// every few seconds should cost nothing.
pub(super) async fn health(url: Option<Url>, port: Option<u16>) -> Result<(), Failure> {
    let default = format!("http://127.0.0.1:{}/health", port.unwrap_or(DEFAULT_PORT));
    let url = match url {
        Some(url) => url,
        None => Url::parse(&default).map_err(|error| Failure::failed(format!("{error}."), "Report this as a bug."))?,
    };
    if url.scheme() != "http" {
        let advice = format!("Ask the server itself, for example {default}.");
        return Err(Failure::new(Exit::Usage, format!("{url} is not http."), advice));
    }
    let unhealthy = |what: String| {
        Failure::new(Exit::Unhealthy, format!("{url} is not healthy: {what}."), "Look at the log of the server.")
    };
    match timeout(PATIENCE, status(&url)).await {
        Err(_) => Err(unhealthy(format!("no answer in {} s", PATIENCE.as_secs()))),
        Ok(Err(error)) => Err(unhealthy(error.to_string())),
        Ok(Ok(line)) if is_success(&line) => Ok(()),
        Ok(Ok(line)) => Err(unhealthy(line)),
    }
}

/// The status line that the server answers.
async fn status(url: &Url) -> std::io::Result<String> {
    let host = url.host_str().unwrap_or("127.0.0.1");
    let port = url.port_or_known_default().unwrap_or(DEFAULT_PORT);
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    let mut stream = TcpStream::connect((bare, port)).await?;
    let path = url.path();
    let query = url.query().map_or_else(String::new, |query| format!("?{query}"));
    let request =
        format!("GET {path}{query} HTTP/1.1\r\nHost: {host}:{port}\r\nConnection: close\r\nAccept: */*\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut head = Vec::new();
    while !head.contains(&b'\n') && head.len() < 1_024 {
        if stream.read_buf(&mut head).await? == 0 {
            break;
        }
    }
    let line = head.split(|byte| *byte == b'\n').next().unwrap_or_default();
    Ok(String::from_utf8_lossy(line).trim().to_owned())
}

fn is_success(status_line: &str) -> bool {
    let mut words = status_line.split(' ');
    words.next().is_some_and(|version| version.starts_with("HTTP/1.")) && words.next() == Some("200")
}

/// Runs `zerostate schema`: prints the schema, or exits with 1 when a file is not it.
pub(super) fn schema(check: Option<&Path>) -> Result<(), Failure> {
    let sdl = graphql::sdl();
    let Some(file) = check else {
        let mut output = Output::new();
        write!(output, "{sdl}")?;
        if !sdl.ends_with('\n') {
            writeln!(output)?;
        }
        return Ok(output.flush()?);
    };
    let stored = std::fs::read_to_string(file).map_err(|error| {
        Failure::failed(format!("{} cannot be read: {error}.", file.display()), "Name the file of the schema.")
    })?;
    match first_difference(&stored, &sdl) {
        None => Ok(()),
        Some((line, stored, now)) => {
            let shown =
                |line: Option<&str>| line.map_or_else(|| "the end of the file".to_owned(), |line| format!("`{line}`"));
            let what = format!(
                "{} is not the schema. Line {line} is {} and should be {}.",
                file.display(),
                shown(stored),
                shown(now)
            );
            Err(Failure::failed(what, format!("Run `zerostate schema > {}`.", file.display())))
        }
    }
}

/// Runs `zerostate metrics`: prints the reference of the metrics.
pub(super) fn metrics() -> Result<(), Failure> {
    let mut output = Output::new();
    write!(output, "{}", metrics::reference())?;
    Ok(output.flush()?)
}

/// The number of the first line in which two texts differ, and the two lines.
fn first_difference<'a>(left: &'a str, right: &'a str) -> Option<(usize, Option<&'a str>, Option<&'a str>)> {
    let (mut left, mut right) = (left.lines(), right.lines());
    let mut number = 0;
    loop {
        number += 1;
        match (left.next(), right.next()) {
            (None, None) => return None,
            (one, other) if one == other => {}
            (one, other) => return Some((number, one, other)),
        }
    }
}

/// The commit that this was built from, where the build said it.
const COMMIT: Option<&str> = option_env!("GIT_SHA");

/// The version in one line: `zerostate 0.1.0 (3f2c1ab)`.
pub(super) fn version_line() -> String {
    let commit = COMMIT.filter(|commit| !commit.is_empty());
    let commit = commit.map_or_else(String::new, |commit| format!(" ({})", commit.get(..7).unwrap_or(commit)));
    format!("zerostate {}{commit}", env!("CARGO_PKG_VERSION"))
}

/// Runs `zerostate version`.
pub(super) fn version(as_json: bool) -> Result<(), Failure> {
    let mut output = Output::new();
    let platform = format!("{}-{}", std::env::consts::ARCH, std::env::consts::OS);
    if as_json {
        output.json(&json!({
            "name": "zerostate",
            "version": env!("CARGO_PKG_VERSION"),
            "commit": COMMIT.filter(|commit| !commit.is_empty()),
            "platform": platform,
            "target": env!("BUILD_TARGET"),
            "rustc": env!("BUILD_RUSTC"),
            "features": ["tls", "http2", "s3", "wasm"],
            "webAssets": if transport::has_console() { "full" } else { "lite" },
            "profile": if cfg!(debug_assertions) { "debug" } else { "release" },
            "databases": ["sqlite", "postgres"],
        }))?;
    } else {
        writeln!(output, "{} {platform}", version_line())?;
    }
    Ok(())
}

/// Why a server cannot listen on an address, and what to do about it.
pub(super) fn taken(address: SocketAddr, error: &std::io::Error) -> Failure {
    let kind = error.kind();
    let advice = if kind == std::io::ErrorKind::AddrInUse {
        "Stop the other server, or choose another port by --port or PORT."
    } else if kind == std::io::ErrorKind::PermissionDenied {
        "Choose a port above 1023 by --port or PORT."
    } else {
        "Choose another address by --host and --port, or HOST and PORT."
    };
    Failure::configuration(format!("The server cannot listen on {address}: {error}."), advice)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_differing_line_is_found() {
        assert_eq!(first_difference("a\nb\n", "a\nb\n"), None);
        assert_eq!(first_difference("a\nb\n", "a\nc\n"), Some((2, Some("b"), Some("c"))));
        assert_eq!(first_difference("a\n", "a\nb\n"), Some((2, None, Some("b"))));
    }

    #[test]
    fn only_200_is_healthy() {
        assert!(is_success("HTTP/1.1 200 OK"));
        for line in ["HTTP/1.1 503 Service Unavailable", "HTTP/1.1 2000 x", "", "SSH-2.0-OpenSSH 200"] {
            assert!(!is_success(line), "{line}");
        }
    }

    #[tokio::test]
    async fn a_server_that_is_not_there_is_unhealthy() {
        let url = Url::parse("http://127.0.0.1:1/health").unwrap();
        assert_eq!(health(Some(url), None).await.unwrap_err().exit, Exit::Unhealthy);
    }

    #[tokio::test]
    async fn a_server_is_asked_for_its_health() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let served = async {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = vec![0; 1_024];
            let read = stream.read(&mut request).await.unwrap();
            stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await.unwrap();
            String::from_utf8_lossy(&request[..read]).into_owned()
        };
        let (request, healthy) = tokio::join!(served, health(None, Some(port)));
        assert!(healthy.is_ok());
        assert!(request.starts_with("GET /health HTTP/1.1\r\n"), "{request}");
    }
}
