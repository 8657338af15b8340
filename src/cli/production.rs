//! What a service for others must have, and must not do.

use std::{net::Ipv4Addr, path::Path};

use url::{Host, Url};

use super::failure::Failure;
use crate::{
    config::{Config, Profile, Secret},
    store::{
        Entropy, INSTANCE,
        keys::{FOLDER, REFRESH, SIGNING},
    },
};

/// The keys of a service: the file of each, its variable, and what was given in its place.
pub(super) fn keys(config: &Config) -> [(&'static str, &'static str, Option<&Secret>); 3] {
    let keys = &config.keys;
    [
        (INSTANCE, "ZEROSTATE_INSTANCE_KEY", keys.instance.as_ref()),
        (SIGNING, "ZEROSTATE_SIGNING_KEY", keys.signing.as_ref()),
        (REFRESH, "ZEROSTATE_REFRESH_KEY", keys.refresh.as_ref()),
    ]
}

/// The variable of a key, with a fresh value.
pub(super) fn fresh(variable: &str) -> String {
    format!("{variable}={}", hex::encode(Entropy::system().bytes::<32>()))
}

/// Refuses to serve others with what only development may do without, and warns of what is doubtful.
pub(super) fn admit(config: &Config) -> Result<(), Failure> {
    if config.profile == Profile::Development {
        return Ok(());
    }
    if let Some((what, mend)) = refusals(config).into_iter().next() {
        return Err(Failure::configuration(what, mend));
    }
    if let Some((what, mend)) = plain_database(config) {
        tracing::warn!("{what} {mend}");
    }
    Ok(())
}

/// What keeps a service from starting in production, each with what mends it.
pub(super) fn refusals(config: &Config) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let folder = config.data.join(FOLDER);
    let missing: Vec<&str> = keys(config)
        .into_iter()
        .filter(|(file, _, given)| given.is_none() && !folder.join(file).exists())
        .map(|(_, variable, _)| variable)
        .collect();
    if !missing.is_empty() {
        let lines: Vec<String> = missing.iter().map(|variable| fresh(variable)).collect();
        found.push((
            format!(
                "Production makes no keys, and {} of 3 are neither set nor in {}.",
                missing.len(),
                folder.display()
            ),
            format!(
                "For a new market set these:\n\n{}\n\nand keep them; for one that exists bring its keys.",
                lines.join("\n")
            ),
        ));
    }
    if config.cors_origins.iter().any(|origin| origin == "*") {
        let mend = "Name the origins in cors-origins, ZEROSTATE_CORS_ORIGINS.";
        found.push(("Production does not let the pages of every origin call.".to_owned(), mend.to_owned()));
    }
    if config.terms.allow_private_webhooks {
        let mend = "Unset allow-private-webhooks, ZEROSTATE_ALLOW_PRIVATE_WEBHOOKS.";
        found.push(("Production does not let webhooks lead into its own network.".to_owned(), mend.to_owned()));
    }
    if let Some(mode) = config.storage.url.starts_with("sqlite:").then(|| open_to_others(&config.data)).flatten() {
        let folder = config.data.display();
        found.push((
            format!("Others may enter the data folder {folder}, which has the mode {mode:o}."),
            format!("Run `chmod 700 {folder}`, or name a folder in it that is not there yet by ZEROSTATE_DATA."),
        ));
    }
    found
}

/// The mode of a file or folder that others than its owner may open.
#[cfg(unix)]
pub(super) fn open_to_others(path: &Path) -> Option<u32> {
    let mode = std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(path).ok()?.permissions()) & 0o7777;
    (mode & 0o077 != 0).then_some(mode)
}

#[cfg(not(unix))]
pub(super) fn open_to_others(_: &Path) -> Option<u32> {
    None
}

/// Whether the database is spoken to over a network in the clear.
pub(super) fn plain_database(config: &Config) -> Option<(String, String)> {
    let url = Url::parse(&config.storage.url).ok().filter(|url| url.scheme().starts_with("postgres"))?;
    let here = match url.host() {
        None => true,
        // The scheme is none of the web's, so an address of version 4 is a name to the parser.
        Some(Host::Domain(name)) => name == "localhost" || name.parse().is_ok_and(|ip: Ipv4Addr| ip.is_loopback()),
        Some(Host::Ipv4(ip)) => ip.is_loopback(),
        Some(Host::Ipv6(ip)) => ip.is_loopback(),
    };
    let secure = url.query_pairs().any(|(name, value)| {
        matches!(name.as_ref(), "sslmode" | "ssl-mode")
            && matches!(value.as_ref(), "require" | "verify-ca" | "verify-full")
    });
    (!here && !secure).then(|| {
        let what = "The database is on another machine, and its address does not ask for TLS.".to_owned();
        (what, "Add sslmode=verify-full, or at least sslmode=require, to DATABASE_URL.".to_owned())
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Storage;

    fn production(folder: &Path) -> Config {
        let mut config = Config::in_folder(folder.join("data"));
        config.profile = Profile::Production;
        let key = || Some(Secret::new("00".repeat(32)));
        (config.keys.instance, config.keys.signing, config.keys.refresh) = (key(), key(), key());
        config
    }

    #[test]
    fn production_needs_its_keys_and_prints_fresh_ones() {
        let folder = tempfile::tempdir().unwrap();
        let mut config = production(folder.path());
        assert!(admit(&config).is_ok());
        config.keys.signing = None;
        let refused = admit(&config).unwrap_err().to_string();
        let line = refused.lines().find(|line| line.starts_with("ZEROSTATE_SIGNING_KEY=")).unwrap();
        assert_eq!(line.len(), "ZEROSTATE_SIGNING_KEY=".len() + 64, "{refused}");
        assert!(!refused.contains("ZEROSTATE_REFRESH_KEY"), "{refused}");
        config.profile = Profile::Development;
        assert!(admit(&config).is_ok());
    }

    #[test]
    fn production_is_open_to_nobody_by_chance() {
        let folder = tempfile::tempdir().unwrap();
        let said = |change: &dyn Fn(&mut Config)| {
            let mut config = production(folder.path());
            change(&mut config);
            admit(&config).unwrap_err().to_string()
        };
        assert!(said(&|config| config.cors_origins = vec!["*".to_owned()]).contains("ZEROSTATE_CORS_ORIGINS"));
        assert!(said(&|config| config.terms.allow_private_webhooks = true).contains("PRIVATE_WEBHOOKS"));
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            std::fs::create_dir(folder.path().join("data")).unwrap();
            std::fs::set_permissions(folder.path().join("data"), std::fs::Permissions::from_mode(0o755)).unwrap();
            assert!(said(&|_| {}).contains("chmod 700"));
            let mut config = production(folder.path());
            config.storage = Storage::at("postgres://localhost/db");
            assert!(admit(&config).is_ok());
        }
    }

    #[test]
    fn a_database_elsewhere_is_spoken_to_in_private() {
        let plain = |url: &str| {
            let mut config = Config::in_folder("data");
            config.storage = Storage::at(url);
            plain_database(&config).is_some()
        };
        assert!(plain("postgres://u:p@db.example/m") && plain("postgres://10.0.0.7/m?sslmode=prefer"));
        for fine in [
            "postgres://db.example/m?sslmode=verify-full",
            "postgres://127.0.0.1/m",
            "postgres://[::1]/m",
            "sqlite:m.db",
        ] {
            assert!(!plain(fine), "{fine}");
        }
    }
}
