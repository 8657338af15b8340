//! Lists what `web/` was built into, so that the binary can carry it. It needs no network and no Node, and a list of nothing is a
//! list too: the service then shows its own small page instead of the console and GraphiQL.

use std::{
    collections::BTreeMap,
    env,
    fmt::Write as _,
    fs,
    io::{self, Write as _},
    path::{Path, PathBuf},
    process::Command,
};

/// What Vite writes, below the root of the package. The folder itself is part of every checkout: cargo would take a folder that is
/// not there for a change, and build again every time.
const BUILT: &str = "web/dist";
/// The two pages. Without both of them there is nothing worth carrying.
const PAGES: [&str; 2] = ["graphiql.html", "index.html"];

fn main() -> io::Result<()> {
    writeln!(io::stdout(), "cargo::rerun-if-changed=build.rs\ncargo::rerun-if-changed={BUILT}")?;
    tell_how()?;
    let root = env::var_os("CARGO_MANIFEST_DIR").map(PathBuf::from).unwrap_or_default();
    let mut found = BTreeMap::new();
    find(&root.join(BUILT), "", &mut found);
    if PAGES.iter().any(|page| !found.contains_key(*page)) {
        found.clear();
    }
    let mut table = format!("[Asset; {}] = [\n", found.len());
    for (name, file) in &found {
        // A `String` takes all that is written to it.
        writeln!(table, "    Asset::new({name:?}, include_bytes!({:?}), true),", file.display().to_string())
            .map_err(io::Error::other)?;
    }
    let into = env::var_os("OUT_DIR").map(PathBuf::from).unwrap_or_default();
    fs::write(into.join("assets.rs"), format!("static ASSETS: {table}];\n"))
}

/// Tells the program what it is built for and by what; `zerostate version` says so. Cargo also sets these variables for what it runs,
/// so they must not look like settings of ours.
fn tell_how() -> io::Result<()> {
    let target = env::var("TARGET").unwrap_or_default();
    let compiler = env::var_os("RUSTC").and_then(|rustc| Command::new(rustc).arg("--version").output().ok());
    let compiler = compiler.and_then(|output| String::from_utf8(output.stdout).ok()).unwrap_or_default();
    writeln!(io::stdout(), "cargo::rustc-env=BUILD_TARGET={target}")?;
    writeln!(io::stdout(), "cargo::rustc-env=BUILD_RUSTC={}", compiler.trim())
}

/// The compressed files of a folder and those below it, by the names of what they hold. A folder that cannot be read has none.
fn find(folder: &Path, name: &str, found: &mut BTreeMap<String, PathBuf>) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let (path, part) = (entry.path(), entry.file_name());
        let Some(part) = part.to_str() else { continue };
        if path.is_dir() {
            find(&path, &format!("{name}{part}/"), found);
        } else if let Some(part) = part.strip_suffix(".gz") {
            found.insert(format!("{name}{part}"), path);
        }
    }
}
