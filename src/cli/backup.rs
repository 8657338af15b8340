//! `zerostate backup` and `zerostate restore`: everything that a market on the embedded database is, in one file.
//!
//! The file is a tar archive of the data folder: `zerostate.db`, the folders `keys` and `modules`, and `backup.json`, which says what
//! it is. So `tar xf` in an empty folder brings it back too.

use std::{
    fs::{self, File},
    io,
    path::{Component, Path, PathBuf},
};

use clap::Args;
use serde::{Deserialize, Serialize};
use tar::{Archive, Builder, EntryType, Header};

use super::{
    database::connect,
    failure::{Exit, Failure},
    output::tell,
    production,
    settings::{Settings, redacted},
};
use crate::{
    config::Config,
    store::{
        copy_embedded, examine_embedded,
        keys::{FOLDER, make_private_folder},
    },
};

const DATABASE: &str = "zerostate.db";
const MODULES: &str = "modules";
const MANIFEST: &str = "backup.json";
/// The layout of the archive.
const FORMAT: u32 = 1;

/// `zerostate backup`
#[derive(Args, Clone, Debug)]
pub(super) struct BackupCommand {
    /// The file to write; it must not be there yet.
    file: PathBuf,
}

/// `zerostate restore`
#[derive(Args, Clone, Debug)]
pub(super) struct RestoreCommand {
    /// A file that `zerostate backup` wrote. It is brought back into the data folder, which must be empty.
    file: PathBuf,
}

/// What a backup is of.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Manifest {
    format: u32,
    version: String,
    made_at: String,
    keys: usize,
    modules: usize,
}

/// Runs `zerostate backup`.
pub(super) async fn backup(command: &BackupCommand, settings: &Settings) -> Result<(), Failure> {
    let config = settings.config();
    let file = &command.file;
    let shown = file.display();
    let Some(database) = config.storage.url.strip_prefix("sqlite:").map(|path| path.trim_start_matches("//")) else {
        return Err(of_postgres(&config, file));
    };
    let database = Path::new(database);
    if !database.is_file() {
        let what = format!("There is no database at {}.", database.display());
        return Err(Failure::configuration(what, "Say where the data folder is by --data or ZEROSTATE_DATA."));
    }
    if file.exists() {
        return Err(there_already(file));
    }
    let cannot = |error: io::Error| {
        Failure::failed(format!("The backup cannot be written to {shown}: {error}."), "Name another file, with room.")
    };
    let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    // Beside the file, where there must be room anyway, and readable by nobody else, because it has the keys in it.
    let scratch = tempfile::Builder::new().prefix(".zerostate-backup-").tempdir_in(folder).map_err(cannot)?;
    let copy = scratch.path().join(DATABASE);
    copy_embedded(database, &copy).await?;

    // The database first: a module is stored before a row names it and is never taken away, so all that it names are there.
    let keys =
        files(&config.data.join(FOLDER), &|path| path.extension().is_some_and(|it| it == "key")).map_err(cannot)?;
    let modules = match local(&config.modules_url) {
        Some(folder) => files(&folder, &|path| path.extension().is_some_and(|it| it == "wasm")).map_err(cannot)?,
        None => Vec::new(),
    };
    let now = connect(&config).await?.clock().now();
    let manifest = Manifest {
        format: FORMAT,
        version: env!("CARGO_PKG_VERSION").to_owned(),
        made_at: now.to_string(),
        keys: keys.len(),
        modules: modules.len(),
    };
    let mut archive = Builder::new(tempfile::NamedTempFile::new_in(folder).map_err(cannot)?);
    let write = |archive: &mut Builder<tempfile::NamedTempFile>| -> io::Result<()> {
        let text = serde_json::to_vec_pretty(&manifest)?;
        let mut header = Header::new_gnu();
        header.set_entry_type(EntryType::Regular);
        header.set_mode(0o600);
        header.set_size(u64::try_from(text.len()).unwrap_or(u64::MAX));
        header.set_cksum();
        archive.append_data(&mut header, MANIFEST, text.as_slice())?;
        archive.append_path_with_name(&copy, DATABASE)?;
        for (below, path) in &keys {
            archive.append_path_with_name(path, Path::new(FOLDER).join(below))?;
        }
        for (below, path) in &modules {
            archive.append_path_with_name(path, Path::new(MODULES).join(below))?;
        }
        archive.finish()
    };
    write(&mut archive).map_err(cannot)?;
    let written = archive.into_inner().map_err(cannot)?;
    written.as_file().sync_all().map_err(cannot)?;
    written.persist_noclobber(file).map_err(|lost| {
        if lost.error.kind() == io::ErrorKind::AlreadyExists { there_already(file) } else { cannot(lost.error) }
    })?;
    tell(&format!("{shown}: the database, {} keys and {} modules of {now}.", keys.len(), modules.len()));
    let given = production::keys(&config).into_iter().filter(|(.., given)| given.is_some()).count();
    if given > 0 {
        tell(&format!("{given} keys came from the settings and are not in it; keep them elsewhere."));
    }
    if local(&config.modules_url).is_none() {
        tell(&format!("The modules in {} are not in it; they are never changed there.", config.modules_url));
    }
    Ok(())
}

fn there_already(file: &Path) -> Failure {
    Failure::failed(format!("{} is there already.", file.display()), "Name a file that is not; none is written over.")
}

/// How a PostgreSQL database is backed up: by its own programs, which do it better than we could.
fn of_postgres(config: &Config, file: &Path) -> Failure {
    let keys = config.data.join(FOLDER);
    Failure::new(
        Exit::Configuration,
        "The database is PostgreSQL, which has programs of its own for this.",
        format!(
            "Run `pg_dump --format=custom --file={} '{}'`, and keep {} and the modules in {} with it; \
             docs/how-to/backup.md says how to bring them back.",
            file.display(),
            redacted(&config.storage.url),
            keys.display(),
            config.modules_url
        ),
    )
}

/// The folder on this machine that modules are kept in, if it is one.
fn local(modules: &str) -> Option<PathBuf> {
    match url::Url::parse(modules).ok().filter(|_| modules.contains("://")) {
        None => Some(PathBuf::from(modules)),
        Some(url) if url.scheme() == "file" => url.to_file_path().ok(),
        Some(_) => None,
    }
}

/// The files below a folder that are wanted, by their paths below it. A folder that is not there has none.
fn files(folder: &Path, wanted: &dyn Fn(&Path) -> bool) -> io::Result<Vec<(PathBuf, PathBuf)>> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(next) = folders.pop() {
        let entries = match fs::read_dir(&next) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(error),
        };
        for entry in entries {
            let path = entry?.path();
            if path.is_dir() {
                folders.push(path);
            } else if wanted(&path) {
                let below = path.strip_prefix(folder).map_err(io::Error::other)?.to_owned();
                found.push((below, path));
            }
        }
    }
    found.sort();
    Ok(found)
}

/// Runs `zerostate restore`.
pub(super) async fn restore(command: &RestoreCommand, settings: &Settings) -> Result<(), Failure> {
    let (data, file) = (&settings.data, &command.file);
    let shown = file.display();
    if settings.database_url.is_some() {
        let what = "A backup is brought back into the data folder, and a database URL is set.";
        return Err(Failure::configuration(
            what,
            "Unset DATABASE_URL; for PostgreSQL docs/how-to/backup.md says what to do.",
        ));
    }
    let cannot = |error: io::Error| {
        Failure::failed(
            format!("{shown} cannot be brought back into {}: {error}.", data.display()),
            "Empty the data folder again, and name a file that `zerostate backup` wrote.",
        )
    };
    let occupied = match fs::read_dir(data) {
        Ok(mut entries) => entries.next().is_some(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => false,
        Err(error) => return Err(cannot(error)),
    };
    if occupied {
        let what = format!("The data folder {} is not empty.", data.display());
        return Err(Failure::failed(what, "Name one that is not there yet by --data or ZEROSTATE_DATA."));
    }
    let archive = File::open(file).map_err(cannot)?;
    make_private_folder(data).map_err(cannot)?;
    let manifest = unpack(archive, data).map_err(cannot)?;
    let database = data.join(DATABASE);
    if !database.is_file() {
        return Err(cannot(io::Error::other("there is no database in it")));
    }
    let found = examine_embedded(&database).await?;
    if found != "ok" {
        return Err(cannot(io::Error::other(format!("its database is damaged: {found}"))));
    }
    let Manifest { made_at, keys, modules, .. } = manifest;
    tell(&format!("{}: the database, {keys} keys and {modules} modules of {made_at}.", data.display()));
    tell("`zerostate audit` checks the books.");
    Ok(())
}

/// Unpacks what a backup consists of, and nothing else.
fn unpack(archive: File, into: &Path) -> io::Result<Manifest> {
    let mut manifest = None;
    for entry in Archive::new(archive).entries()? {
        let mut entry = entry?;
        let path = entry.path()?.into_owned();
        let plain = path.components().all(|part| matches!(part, Component::Normal(_)));
        let top = path.components().next().map(|part| part.as_os_str().to_owned()).unwrap_or_default();
        let known = [MANIFEST, DATABASE, FOLDER, MODULES].iter().any(|name| top == *name);
        if !plain || !known || entry.header().entry_type() != EntryType::Regular {
            return Err(io::Error::other(format!("{} does not belong in a backup", path.display())));
        }
        if path == Path::new(MANIFEST) {
            let read: Manifest = serde_json::from_reader(&mut entry)?;
            if read.format != FORMAT {
                return Err(io::Error::other(format!(
                    "it has the format {}, and this program reads {FORMAT}",
                    read.format
                )));
            }
            manifest = Some(read);
            continue;
        }
        if manifest.is_none() {
            return Err(io::Error::other("it does not begin as a backup does"));
        }
        let to = into.join(&path);
        if let Some(folder) = to.parent() {
            make_private_folder(folder)?;
        }
        entry.unpack(&to)?;
    }
    manifest.ok_or_else(|| io::Error::other("it is empty"))
}
