//! `zerostate config`: what the settings are, where they come from, and what they mean. Everything here is made of the one
//! declaration of the command line.

use std::{fmt::Write as _, io::Write as _};

use clap::{ArgMatches, Command, Subcommand};
use serde_json::json;

use super::{
    failure::Failure,
    layers::{Declared, Kind, Layers, Origin, declared},
    output::Output,
    production,
    serve::ServeCommand,
    settings::{Settings, redacted},
};
use crate::config::Config;

/// `zerostate config …`
#[derive(Debug, Subcommand)]
pub(super) enum ConfigCommand {
    /// Print the settings that a service would have, without secrets.
    Show {
        #[command(flatten)]
        serve: ServeCommand,
        /// Say where each comes from.
        #[arg(long)]
        origin: bool,
        /// Print a JSON document.
        #[arg(long)]
        json: bool,
    },
    /// Say whether a service would take the settings; exits with 3 when not.
    Check,
    /// Print a settings file with every setting, its default and its variable.
    Example,
    /// Print the reference of all settings as Markdown.
    #[command(hide = true)]
    Reference,
}

/// Runs `zerostate config …`.
pub(super) fn run(
    command: ConfigCommand,
    settings: &Settings,
    root: &Command,
    matches: Option<&ArgMatches>,
    layers: &Layers,
) -> Result<(), Failure> {
    let mut output = Output::new();
    match command {
        ConfigCommand::Show { serve, origin, json } => {
            let Some(matches) = matches else { return Ok(()) };
            let by_platform = serve.listen.is_by_platform(matches, layers);
            let address = serve.listen.address(by_platform);
            let config = settings.config();
            let listed: Vec<(Declared, String, Origin)> = declared(root)
                .into_iter()
                .filter(|setting| matches.try_contains_id(setting.arg.get_id().as_str()).is_ok())
                .map(|setting| {
                    let value = value(&setting, matches).unwrap_or_else(|| match setting.key.as_str() {
                        "host" => address.ip().to_string(),
                        "port" => address.port().to_string(),
                        key => derived(key, &config),
                    });
                    let origin = layers.origin(matches, &setting);
                    (setting, value, origin)
                })
                .collect();
            if json {
                let listed: serde_json::Map<String, serde_json::Value> = listed
                    .iter()
                    .map(|(setting, value, origin)| {
                        let shown =
                            json!({ "value": value, "variable": setting.variable, "origin": origin.to_string() });
                        (setting.key.clone(), shown)
                    })
                    .collect();
                output.json(&listed)?;
            } else {
                for (Declared { key, .. }, value, from) in &listed {
                    if origin {
                        writeln!(output, "{key:<26} {value:<40} {from}")?;
                    } else {
                        writeln!(output, "{key:<26} {value}")?;
                    }
                }
            }
        }
        ConfigCommand::Check => {
            let config = settings.config();
            settings.check()?;
            production::admit(&config)?;
            let file = layers.file.as_ref().map_or_else(|| "no file".to_owned(), |file| file.display().to_string());
            writeln!(output, "The settings can be used ({}, {file}).", config.profile)?;
        }
        ConfigCommand::Example => write!(output, "{}", example(root))?,
        ConfigCommand::Reference => write!(output, "{}", reference(root))?,
    }
    Ok(output.flush()?)
}

/// What the command line, the environment and the files say, without secrets.
fn value(setting: &Declared, matches: &ArgMatches) -> Option<String> {
    let raw = matches.try_get_raw(setting.arg.get_id().as_str()).ok().flatten()?;
    let parts: Vec<String> = raw.map(|part| part.to_string_lossy().into_owned()).collect();
    let value = parts.join(",");
    Some(if ["database-url", "replica-url"].contains(&setting.key.as_str()) {
        redacted(&value)
    } else if setting.is_secret() {
        "…".to_owned()
    } else {
        value
    })
}

/// What a setting comes to that nobody has said.
fn derived(key: &str, config: &Config) -> String {
    match key {
        "database-url" => redacted(&config.storage.url),
        "max-connections" => config.storage.max_connections.to_string(),
        "modules" => config.modules_url.clone(),
        "fee-bps" => config.terms.fee_bps.to_string(),
        "workers" => config.execution.concurrency.to_string(),
        "lease" => config.terms.lease.as_secs().to_string(),
        "issuer" => config.auth.issuer.clone(),
        "audience" => config.auth.audience.clone(),
        "status-profile" => config.http.status_profile.to_string(),
        _ => String::new(),
    }
}

/// What a setting is when nobody says, as the reference has it; nothing for what has no value then.
fn default_of(setting: &Declared, config: &Config) -> String {
    let declared: Vec<String> =
        setting.arg.get_default_values().iter().map(|value| value.to_string_lossy().into_owned()).collect();
    match setting.key.as_str() {
        _ if !declared.is_empty() => declared.join(","),
        _ if setting.kind() == Kind::Yes => "false".to_owned(),
        "host" => "127.0.0.1".to_owned(),
        "port" => super::settings::DEFAULT_PORT.to_string(),
        "database-url" | "modules" => String::new(),
        key => derived(key, config),
    }
}

fn help(setting: &Declared) -> String {
    let help = setting.arg.get_help().map(ToString::to_string).unwrap_or_default();
    let help = help.trim().trim_end_matches('.');
    format!("{help}.")
}

fn heading(setting: &Declared) -> String {
    let heading = setting.arg.get_help_heading().unwrap_or("Service");
    match heading {
        "Server" => "Commands against a running server".to_owned(),
        other => other.to_owned(),
    }
}

/// The settings by heading, in the order of the first of each.
fn by_heading(root: &Command) -> Vec<(String, Vec<Declared>)> {
    let mut groups: Vec<(String, Vec<Declared>)> = Vec::new();
    for setting in declared(root) {
        let heading = heading(&setting);
        match groups.iter_mut().find(|(known, _)| *known == heading) {
            Some((_, settings)) => settings.push(setting),
            None => groups.push((heading, vec![setting])),
        }
    }
    groups
}

/// A settings file in which everything is there and nothing is said.
pub(super) fn example(root: &Command) -> String {
    let config = Config::in_folder("./data");
    let mut text = "# Every setting of zerostate with its default. A flag beats a variable, which beats this file.\n\
         # `zerostate config show --origin` says what counts and why. Made by `zerostate config example`.\n"
        .to_owned();
    for (heading, settings) in by_heading(root) {
        put(&mut text, format_args!("\n# ---- {heading} ----\n"));
        for setting in settings.iter().filter(|setting| setting.key != "config") {
            let default = default_of(setting, &config);
            let value = match setting.kind() {
                Kind::Number if default.is_empty() => "0".to_owned(),
                Kind::Yes | Kind::Number => default,
                Kind::Text => serde_json::Value::String(default).to_string(),
                Kind::List => "[]".to_owned(),
            };
            let variable = match setting.in_file() {
                Some(in_file) => format!("{} or {in_file}, which is where a secret belongs", setting.variable),
                None => setting.variable.clone(),
            };
            put(&mut text, format_args!("\n# {}\n# Variable {variable}.\n#{} = {value}\n", help(setting), setting.key));
        }
    }
    text
}

/// Every setting as a table.
pub(super) fn reference(root: &Command) -> String {
    let config = Config::in_folder("./data");
    let mut text = include_str!("configuration.txt").to_owned();
    for (heading, settings) in by_heading(root) {
        put(
            &mut text,
            format_args!("\n## {heading}\n\n| key, flag | variable | default | meaning |\n|---|---|---|---|\n"),
        );
        for setting in &settings {
            let default = default_of(setting, &config);
            let default = if default.is_empty() { String::new() } else { format!("`{default}`") };
            let variable = match setting.in_file() {
                Some(in_file) => format!("`{}` or `{in_file}`", setting.variable),
                None => format!("`{}`", setting.variable),
            };
            let meaning = help(setting).replace('|', "\\|");
            put(&mut text, format_args!("| `{}` | {variable} | {default} | {meaning} |\n", setting.key));
        }
    }
    text
}

/// Appends to a text, which takes all that is written to it.
fn put(text: &mut String, what: std::fmt::Arguments<'_>) {
    if text.write_fmt(what).is_err() {
        tracing::error!("a text could not be written to memory");
    }
}
