//! Where settings come from. A flag beats the environment, which beats `.env` (in development only, and never over a variable that
//! is set), which beats the settings file, which beats the default. One declaration, the flag, gives the variable and the key of
//! the file. Each secret may be named by a file instead: the variable with `_FILE` behind its name.
//!
//! What stands in files is put under the command line as its defaults before that is parsed.

use std::{
    collections::{BTreeMap, BTreeSet},
    env,
    ffi::OsString,
    fmt, fs,
    path::{Path, PathBuf},
};

use clap::{Arg, ArgAction, ArgMatches, Command, builder::Resettable, parser::ValueSource};
use toml::Value;

use super::{failure::Failure, settings::IN_PRODUCTION};
use crate::config::Profile;

/// The prefix of our environment variables.
pub(super) const PREFIX: &str = "ZEROSTATE_";
/// Variables with our prefix that are read by others: the test suite.
const FOREIGN: [&str; 1] = ["ZEROSTATE_TEST_"];
/// What follows the name of a secret's variable to name a file that has it.
const IN_FILE: &str = "_FILE";
/// The settings file that is read when none is named.
const USUAL_FILE: &str = "zerostate.toml";
/// The file of variables that is read in development.
const DOT_ENV: &str = ".env";
/// Settings that say where settings are, and so can stand in no file.
const FIRST: [&str; 2] = ["config", "profile"];
/// Values of these names are numbers.
const NUMBERS: [&str; 6] = ["BYTES", "COUNT", "POINTS", "PORT", "SECONDS", "SPEED"];

/// Where a value came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Origin {
    Flag,
    Variable(String),
    /// A variable in the file `.env`.
    DotEnv(String),
    /// A file with a secret, and the variable that named it.
    Secret(String, PathBuf),
    File(PathBuf),
    Default,
}

impl fmt::Display for Origin {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Flag => out.write_str("flag"),
            Self::Variable(name) => write!(out, "variable {name}"),
            Self::DotEnv(name) => write!(out, "variable {name} in {DOT_ENV}"),
            Self::Secret(name, file) => write!(out, "file {}, by {name}", file.display()),
            Self::File(file) => write!(out, "file {}", file.display()),
            Self::Default => out.write_str("default"),
        }
    }
}

/// A setting as it is declared: an argument with a long flag and a variable.
#[derive(Clone, Debug)]
pub(super) struct Declared {
    pub(super) key: String,
    pub(super) variable: String,
    pub(super) arg: Arg,
}

impl Declared {
    /// Whether nobody may see the value.
    pub(super) fn is_secret(&self) -> bool {
        self.arg.is_hide_env_values_set()
    }

    /// The variable that names a file with the value.
    pub(super) fn in_file(&self) -> Option<String> {
        self.is_secret().then(|| format!("{}{IN_FILE}", self.variable))
    }

    /// What the value is in a settings file.
    pub(super) fn kind(&self) -> Kind {
        if matches!(self.arg.get_action(), ArgAction::SetTrue) || self.names().any(|name| name == "BOOLEAN") {
            return Kind::Yes;
        }
        if self.arg.get_value_delimiter().is_some() {
            return Kind::List;
        }
        if self.names().any(|name| NUMBERS.contains(&name)) { Kind::Number } else { Kind::Text }
    }

    fn names(&self) -> impl Iterator<Item = &str> {
        self.arg.get_value_names().unwrap_or_default().iter().map(clap::builder::Str::as_str)
    }

    /// Whether the parser of the flag takes a value; what it says if not.
    fn accepts(&self, value: &str) -> Result<(), String> {
        if matches!(self.arg.get_action(), ArgAction::SetTrue) {
            return Ok(());
        }
        let mut alone = Arg::new("value").long(self.key.clone()).value_parser(self.arg.get_value_parser().clone());
        if let Some(delimiter) = self.arg.get_value_delimiter() {
            alone = alone.value_delimiter(delimiter);
        }
        if let Some(name) = self.names().next() {
            alone = alone.value_name(name.to_owned());
        }
        let command = Command::new("zerostate").no_binary_name(true).arg(alone);
        command.try_get_matches_from([format!("--{}={value}", self.key)]).map(|_| ()).map_err(|error| {
            let text = error.to_string();
            text.lines().next().unwrap_or_default().trim_start_matches("error: ").to_owned()
        })
    }
}

/// The kinds of values in a settings file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Yes,
    Number,
    Text,
    List,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Self::Yes => "true or false",
            Self::Number => "a whole number",
            Self::Text => "a text in quotes",
            Self::List => "a list of texts",
        }
    }

    /// The value as a flag would have it.
    fn spell(self, value: &Value) -> Option<String> {
        match (self, value) {
            (Self::Yes, Value::Boolean(value)) => Some(value.to_string()),
            (Self::Number, Value::Integer(value)) => Some(value.to_string()),
            (Self::Text | Self::List, Value::String(value)) => Some(value.clone()),
            (Self::List, Value::Array(values)) => {
                let texts: Option<Vec<&str>> = values.iter().map(Value::as_str).collect();
                texts.map(|texts| texts.join(","))
            }
            (Self::Yes | Self::Number | Self::Text | Self::List, _) => None,
        }
    }
}

/// Every setting of a command and of those inside it, in the order in which they are declared.
pub(super) fn declared(command: &Command) -> Vec<Declared> {
    let mut found: Vec<Declared> = Vec::new();
    collect(command, &mut found);
    found
}

fn collect(command: &Command, found: &mut Vec<Declared>) {
    for arg in command.get_arguments() {
        let (Some(key), Some(variable)) = (arg.get_long(), arg.get_env()) else { continue };
        if found.iter().all(|known| known.key != key) {
            let variable = variable.to_string_lossy().into_owned();
            found.push(Declared { key: key.to_owned(), variable, arg: arg.clone() });
        }
    }
    for inner in command.get_subcommands() {
        collect(inner, found);
    }
}

/// What stands under the environment.
#[derive(Debug, Default)]
pub(super) struct Layers {
    /// Values by key.
    below: BTreeMap<String, (String, Origin)>,
    /// Variables that `.env` set.
    dotted: BTreeSet<String>,
    /// The settings file that was read.
    pub(super) file: Option<PathBuf>,
}

impl Layers {
    /// Reads the settings file, `.env` and the files of secrets.
    pub(super) fn read(command: &Command, arguments: &[OsString]) -> Result<Self, Failure> {
        let settings = declared(command);
        let mut layers = Self::default();
        let named = early(arguments, "--config").or_else(|| variable("ZEROSTATE_CONFIG"));
        let file = named.clone().map_or_else(|| PathBuf::from(USUAL_FILE), PathBuf::from);
        let mut profile_in_file = None;
        match fs::read_to_string(&file) {
            Ok(text) => {
                let values = parse(&file, &text, &settings)?;
                profile_in_file = values.iter().find(|(key, _)| key == "profile").map(|(_, value)| value.clone());
                layers.below.extend(values.into_iter().map(|(key, value)| (key, (value, Origin::File(file.clone())))));
                layers.file = Some(file);
            }
            Err(error) if named.is_none() && error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => {
                let what = format!("The settings file {} cannot be read: {error}.", file.display());
                return Err(Failure::configuration(what, "Name a file that is there by --config or ZEROSTATE_CONFIG."));
            }
        }
        let profile = early(arguments, "--profile")
            .or_else(|| variable("ZEROSTATE_PROFILE"))
            .or(profile_in_file.map(OsString::from));
        if profile.as_ref().is_none_or(|profile| profile == Profile::Development.to_string().as_str()) {
            layers.read_dot_env(Path::new(DOT_ENV), &settings)?;
        }
        if profile.is_some_and(|profile| profile == Profile::Production.to_string().as_str()) {
            for (key, value) in IN_PRODUCTION {
                layers.below.entry(key.to_owned()).or_insert((value.to_owned(), Origin::Default));
            }
        }
        layers.read_secrets(&settings)?;
        Ok(layers)
    }

    /// Puts the variables of a file into the environment, where they are not set.
    fn read_dot_env(&mut self, path: &Path, settings: &[Declared]) -> Result<(), Failure> {
        if !path.is_file() {
            return Ok(());
        }
        let wrong = |what: String| {
            let advice = format!("Correct {}, or take it away.", path.display());
            Failure::configuration(what, advice)
        };
        let lines = dotenvy::from_path_iter(path)
            .map_err(|error| wrong(format!("{} cannot be read: {error}.", path.display())))?;
        let known = names(settings);
        for line in lines {
            let (name, value) = line.map_err(|error| wrong(format!("{} cannot be read: {error}.", path.display())))?;
            if FIRST.iter().any(|key| name == format!("{PREFIX}{}", key.to_uppercase())) {
                return Err(wrong(format!("{} sets {name}, which has to be known before it is read.", path.display())));
            }
            refuse_unknown(&path.display().to_string(), std::iter::once(name.clone()), &known)?;
            let setting = settings.iter().find(|setting| setting.variable == name && !value.is_empty());
            if let Some(Err(said)) = setting.map(|setting| setting.accepts(&value)) {
                return Err(wrong(format!("{} sets {name} wrongly: {said}.", path.display())));
            }
            if env::var_os(&name).is_none() {
                self.dotted.insert(name);
            }
        }
        dotenvy::from_path(path).map_err(|error| wrong(format!("{} cannot be read: {error}.", path.display())))
    }

    /// Reads the files that variables of secrets name.
    fn read_secrets(&mut self, settings: &[Declared]) -> Result<(), Failure> {
        for setting in settings {
            let Some(name) = setting.in_file() else { continue };
            // Where a flag of its own names the file, that flag's command reads it.
            if settings.iter().any(|other| other.variable == name) {
                continue;
            }
            let Some(file) = variable(&name).map(PathBuf::from) else { continue };
            if variable(&setting.variable).is_some() {
                let what = format!("Both {} and {name} are set.", setting.variable);
                return Err(Failure::configuration(what, "Unset one of them."));
            }
            let text = fs::read_to_string(&file).map_err(|error| {
                let what = format!("The file {} that {name} names cannot be read: {error}.", file.display());
                Failure::configuration(what, "Name a file that this user may read.")
            })?;
            let value = text.trim_end_matches(['\r', '\n']).to_owned();
            if setting.accepts(&value).is_err() {
                let what = format!("What is in {} cannot be {}.", file.display(), setting.variable);
                return Err(Failure::configuration(what, "Put the right value there."));
            }
            self.below.insert(setting.key.clone(), (value, Origin::Secret(name, file)));
        }
        Ok(())
    }

    /// The command line with what the files say as its defaults, and without the variables that are set to nothing.
    pub(super) fn under(&self, command: Command) -> Command {
        let below = self.below.clone();
        let command = command.mut_args(|arg| {
            let Some(name) = arg.get_env().map(|name| name.to_string_lossy().into_owned()) else { return arg };
            // Said again, because `.env` may have set the variable since it was looked at.
            let arg = if is_empty(&name) { arg.env(Resettable::Reset) } else { arg.env(name) };
            let Some((value, _)) = arg.get_long().and_then(|key| below.get(key)) else { return arg };
            // Help prints defaults, and no secret.
            let hidden = arg.is_hide_env_values_set();
            let arg = if hidden { arg.hide_default_value(true) } else { arg };
            match arg.get_value_delimiter() {
                Some(delimiter) => {
                    let parts: Vec<String> = value.split(delimiter).map(str::to_owned).collect();
                    arg.default_values(parts)
                }
                None => arg.default_value(value.clone()),
            }
        });
        command.mut_subcommands(|inner| self.under(inner))
    }

    /// Where the value of a setting came from.
    pub(super) fn origin(&self, matches: &ArgMatches, setting: &Declared) -> Origin {
        let id = setting.arg.get_id().as_str();
        match matches.value_source(id) {
            Some(ValueSource::CommandLine) => Origin::Flag,
            Some(ValueSource::EnvVariable) if self.dotted.contains(&setting.variable) => {
                Origin::DotEnv(setting.variable.clone())
            }
            Some(ValueSource::EnvVariable) => Origin::Variable(setting.variable.clone()),
            Some(_) | None => self.below.get(&setting.key).map_or(Origin::Default, |(_, origin)| origin.clone()),
        }
    }

    /// Whether `.env` set a variable.
    pub(super) fn is_dotted(&self, variable: &str) -> bool {
        self.dotted.contains(variable)
    }
}

/// The names of variables that may be set.
pub(super) fn names(settings: &[Declared]) -> Vec<String> {
    let own = settings.iter().map(|setting| setting.variable.clone());
    let mut all: Vec<String> = own.chain(settings.iter().filter_map(Declared::in_file)).collect();
    all.sort();
    all.dedup();
    all
}

/// A variable that is set to something. Set to nothing counts as not set, because that is what compose files do.
fn variable(name: &str) -> Option<OsString> {
    env::var_os(name).filter(|value| !value.is_empty())
}

fn is_empty(name: &str) -> bool {
    env::var_os(name).is_some_and(|value| value.is_empty())
}

/// The value of a flag that has to be known before the command line is parsed.
fn early(arguments: &[OsString], flag: &str) -> Option<OsString> {
    let mut found = None;
    let mut rest = arguments.iter().take_while(|argument| *argument != "--");
    while let Some(argument) = rest.next() {
        if argument == flag {
            found = rest.next().cloned();
        } else if let Some(value) = argument.to_str().and_then(|text| text.strip_prefix(flag)?.strip_prefix('=')) {
            found = Some(value.into());
        }
    }
    found
}

/// The keys of a settings file with their values as flags would have them.
fn parse(file: &Path, text: &str, settings: &[Declared]) -> Result<Vec<(String, String)>, Failure> {
    let shown = file.display();
    let table: toml::Table = text.parse().map_err(|error: toml::de::Error| {
        let what = format!("The settings file {shown} cannot be read: {}.", error.to_string().trim_end());
        Failure::configuration(what, "Correct it; `zerostate config example` prints one.")
    })?;
    let keys: Vec<&str> = settings.iter().map(|setting| setting.key.as_str()).collect();
    let mut values = Vec::new();
    for (key, value) in table {
        let Some(setting) = settings.iter().find(|setting| setting.key == key && key != "config") else {
            let advice = match nearest(&key, keys.iter().copied()) {
                Some(nearest) => format!("Did you mean {nearest}? Otherwise take it out."),
                None => "Take it out; `zerostate config example` prints every setting.".to_owned(),
            };
            return Err(Failure::configuration(format!("{shown} sets {key}, which is no setting."), advice));
        };
        let kind = setting.kind();
        let Some(spelt) = kind.spell(&value) else {
            let what = format!("{shown} sets {key} to {}.", a_kind(&value));
            return Err(Failure::configuration(what, format!("Make it {}.", kind.name())));
        };
        if let Err(said) = setting.accepts(&spelt) {
            let said = if setting.is_secret() { "the value is not one".to_owned() } else { said };
            let what = format!("{shown} sets {key} wrongly: {said}.");
            return Err(Failure::configuration(what, "Correct it; `zerostate config example` says what it means."));
        }
        values.push((key, spelt));
    }
    Ok(values)
}

fn a_kind(value: &Value) -> &'static str {
    match value {
        Value::String(_) => "a text",
        Value::Integer(_) => "a whole number",
        Value::Float(_) => "a number with a fraction",
        Value::Boolean(_) => "true or false",
        Value::Datetime(_) => "an instant",
        Value::Array(_) => "a list that is not of texts",
        Value::Table(_) => "a section",
    }
}

/// The word that somebody who wrote `word` most likely meant.
fn nearest<'a>(word: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let near = known.map(|known| (strsim::levenshtein(known, word), known)).min();
    near.filter(|(distance, _)| *distance <= 4).map(|(_, known)| known)
}

/// Refuses variables with our prefix that nothing reads, because a misspelled setting that is silently ignored costs an evening.
pub(super) fn refuse_unknown(place: &str, set: impl Iterator<Item = String>, known: &[String]) -> Result<(), Failure> {
    let ours = |name: &String| name.starts_with(PREFIX) && !FOREIGN.iter().any(|foreign| name.starts_with(foreign));
    let Some(name) = set.filter(ours).find(|name| !known.contains(name)) else { return Ok(()) };
    let bare = |name: &str| name.strip_prefix(PREFIX).unwrap_or(name).to_owned();
    let near = nearest(&bare(&name), known.iter().map(|known| known.strip_prefix(PREFIX).unwrap_or(known)));
    let meant = near.and_then(|near| known.iter().find(|known| bare(known) == near));
    let advice = match meant {
        Some(meant) => format!("Did you mean {meant}? Otherwise unset it."),
        None => "Unset it; `zerostate config example` lists the settings.".to_owned(),
    };
    Err(Failure::configuration(format!("{place} sets {name}, which is no setting."), advice))
}

/// The variables of this process that are set to something.
pub(super) fn set_variables() -> impl Iterator<Item = String> {
    env::vars_os().filter(|(_, value)| !value.is_empty()).map(|(name, _)| name.to_string_lossy().into_owned())
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::{super::settings::Settings, *};

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        settings: Settings,
    }

    fn settings() -> Vec<Declared> {
        declared(&<Line as clap::CommandFactory>::command())
    }

    fn of(text: &str) -> Result<Vec<(String, String)>, String> {
        parse(Path::new("z.toml"), text, &settings()).map_err(|failure| failure.to_string())
    }

    #[test]
    fn a_settings_file_has_the_flags_as_its_keys() {
        let text = "fee-bps = 250\nallow-private-webhooks = true\ncors-origins = [\"https://a\", \"https://b\"]\nkeep-events = \"90d\"";
        let mut read = of(text).unwrap();
        read.sort();
        let expected = [
            ("allow-private-webhooks", "true"),
            ("cors-origins", "https://a,https://b"),
            ("fee-bps", "250"),
            ("keep-events", "90d"),
        ];
        assert_eq!(read, expected.map(|(key, value)| (key.to_owned(), value.to_owned())));
    }

    #[test]
    fn a_settings_file_with_a_mistake_is_refused_and_says_what_was_meant() {
        for (text, says) in [
            ("fee_bps = 1", "Did you mean fee-bps?"),
            ("fee-pbs = 1", "Did you mean fee-bps?"),
            ("something-else-entirely = 1", "config example"),
            ("fee-bps = \"1\"", "to a text. Make it a whole number."),
            ("fee-bps = 1.5", "with a fraction"),
            ("fee-bps = 20000", "20000 is not in 0..=10000"),
            ("data = 5", "Make it a text in quotes."),
            ("allow-private-webhooks = 1", "Make it true or false."),
            ("cors-origins = [1]", "Make it a list of texts."),
            ("keep-events = \"1m\"", "must be from 1h"),
            ("config = \"x\"", "which is no setting"),
            ("[limits]\nsockets = 1", "limits, which is no setting"),
            ("fee-bps = ", "cannot be read"),
        ] {
            let said = of(text).unwrap_err();
            assert!(said.contains(says) && said.contains("z.toml"), "{text}: {said}");
        }
        let said = of("refresh-key = \"my-password\"").unwrap_err();
        assert!(!said.contains("my-password"), "{said}");
    }

    #[test]
    fn a_misspelled_variable_is_refused_with_the_nearest_one() {
        let known = names(&settings());
        let refuse = |name: &str| {
            refuse_unknown("The environment", std::iter::once(name.to_owned()), &known).map_err(|no| no.to_string())
        };
        for fine in ["ZEROSTATE_DATA", "PATH", "ZEROSTATE_TEST_DATABASE_URL", "ZEROSTATE_INSTANCE_KEY_FILE"] {
            assert_eq!(refuse(fine), Ok(()), "{fine}");
        }
        assert!(refuse("ZEROSTATE_DATABASE_URL").unwrap_err().contains("Did you mean DATABASE_URL?"));
        assert!(refuse("ZEROSTATE_FEE_BP").unwrap_err().contains("Did you mean ZEROSTATE_FEE_BPS?"));
        assert!(refuse("ZEROSTATE_SOMETHING_ELSE").unwrap_err().contains("lists the settings"));
    }

    #[test]
    fn the_place_of_the_file_is_known_before_the_rest() {
        let of = |words: &[&str]| {
            let words: Vec<OsString> = words.iter().map(OsString::from).collect();
            early(&words, "--config").map(|value| value.into_string().unwrap())
        };
        assert_eq!(of(&["zerostate", "--config", "a", "serve"]).as_deref(), Some("a"));
        assert_eq!(of(&["zerostate", "serve", "--config=b"]).as_deref(), Some("b"));
        assert_eq!(of(&["zerostate", "serve", "--", "--config", "c"]), None);
    }
}
