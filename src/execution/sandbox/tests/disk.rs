//! Compiled code that one process leaves to the next.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use super::super::disk;
use super::*;

const ANSWER: &str =
    r#"(data (i32.const 16) "42") (func (export "_start") (call $print (i32.const 1) (i32.const 16) (i32.const 2)))"#;

/// What a new process does: runs a module once. Answers how the module was found.
async fn process(folder: &Path, wasm: &Bytes) -> Asked {
    process_with(folder, wasm, SandboxConfig::default()).await
}

async fn process_with(folder: &Path, wasm: &Bytes, config: SandboxConfig) -> Asked {
    let sandbox = Sandbox::keeping(config, folder).unwrap();
    let asked = Arc::new(Mutex::new(Vec::new()));
    let told = Arc::clone(&asked);
    sandbox.on_asked(move |how| told.lock().unwrap().push(how)).unwrap();
    let ran = run_in(&sandbox, wasm, b"", short()).await;
    assert_eq!(ran.outcome, Ok(Bytes::from_static(b"42")));
    let asked = asked.lock().unwrap();
    let [asked] = asked.as_slice() else { panic!("{asked:?}") };
    *asked
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    entries.filter(|path| path.is_file()).collect()
}

#[tokio::test]
async fn what_one_process_compiled_the_next_does_not() {
    let temporary = tempfile::tempdir().unwrap();
    let folder = temporary.path().join("compiled");
    let wasm = command(ANSWER);
    assert_eq!(process(&folder, &wasm).await, Asked::Compiled);
    assert_eq!(process(&folder, &wasm).await, Asked::Read);
    assert_eq!(process(&folder, &wasm).await, Asked::Read);
    assert_eq!(files(&folder).len(), 1);
    // Nothing lies on a bench when nobody compiles.
    assert_eq!(fs::read_dir(&folder).unwrap().count(), files(&folder).len());
}

#[tokio::test]
async fn components_are_kept_as_well() {
    let temporary = tempfile::tempdir().unwrap();
    let wasm = Bytes::from_static(include_bytes!("../../../../agents/component/text-stats-lite.wasm"));
    for expected in [Asked::Compiled, Asked::Read] {
        let sandbox = Sandbox::keeping(SandboxConfig::default(), temporary.path()).unwrap();
        let asked = Arc::new(OnceLock::new());
        let told = Arc::clone(&asked);
        sandbox.on_asked(move |how| told.set(how).unwrap()).unwrap();
        let ran = run_in(&sandbox, &wasm, br#""one two""#, Limits::default()).await;
        assert!(ran.outcome.is_ok(), "{ran:?}");
        assert_eq!(asked.get(), Some(&expected));
    }
}

#[tokio::test]
async fn damaged_code_is_compiled_again() {
    let temporary = tempfile::tempdir().unwrap();
    let folder = temporary.path();
    let wasm = command(ANSWER);
    assert_eq!(process(folder, &wasm).await, Asked::Compiled);
    let file = files(folder).pop().unwrap();
    let whole = fs::read(&file).unwrap();
    let mut damaged = vec![Vec::new(), b"no code".to_vec(), whole[..whole.len() / 2].to_vec()];
    // A single bit anywhere, in the seal, the name, or the code.
    for at in [0, 33, 40, whole.len() / 2, whole.len() - 1] {
        let mut bit = whole.clone();
        bit[at] ^= 1;
        damaged.push(bit);
    }
    // A whole file that names a place outside.
    damaged.push(disk::seal(Path::new("../escaped"), b"code").unwrap());
    // A whole file of something that is no code at all.
    let (name, _) = disk::open(&whole).unwrap();
    damaged.push(disk::seal(name, b"code").unwrap());
    for bytes in damaged {
        fs::write(&file, &bytes).unwrap();
        assert_eq!(process(folder, &wasm).await, Asked::Compiled);
        // It was kept anew, and whole.
        assert_eq!(process(folder, &wasm).await, Asked::Read);
        assert!(!folder.join("escaped").exists());
    }
}

#[tokio::test]
async fn the_oldest_code_makes_room() {
    let temporary = tempfile::tempdir().unwrap();
    let folder = temporary.path();
    let [old, new] = [1, 2].map(|number| command(&format!("(global i32 (i32.const {number})) {ANSWER}")));
    process(folder, &old).await;
    let size = fs::metadata(files(folder).pop().unwrap()).unwrap().len();
    let small = SandboxConfig { cache_bytes: size * 3 / 2, ..SandboxConfig::default() };
    assert_eq!(process_with(folder, &new, small).await, Asked::Compiled);
    assert_eq!(files(folder).len(), 1);
    assert_eq!(process_with(folder, &new, small).await, Asked::Read);
    assert_eq!(process_with(folder, &old, small).await, Asked::Compiled);
}

#[cfg(unix)]
#[tokio::test]
async fn a_folder_that_others_can_write_to_is_not_used() {
    use std::os::unix::fs::PermissionsExt;

    let temporary = tempfile::tempdir().unwrap();
    let folder = temporary.path().join("compiled");
    let wasm = command(ANSWER);
    assert_eq!(process(&folder, &wasm).await, Asked::Compiled);
    assert_eq!(fs::metadata(&folder).unwrap().permissions().mode() & 0o777, 0o700);
    for mode in [0o770, 0o702] {
        fs::set_permissions(&folder, fs::Permissions::from_mode(mode)).unwrap();
        assert_eq!(process(&folder, &wasm).await, Asked::Compiled);
        assert!(disk::Disk::open(&folder, 1 << 20).is_err());
    }
    fs::set_permissions(&folder, fs::Permissions::from_mode(0o700)).unwrap();
    assert_eq!(process(&folder, &wasm).await, Asked::Read);
}

#[tokio::test]
async fn a_bench_that_was_left_behind_is_cleared_away() {
    let temporary = tempfile::tempdir().unwrap();
    let left = temporary.path().join(".bench-left");
    fs::create_dir_all(left.join("modules")).unwrap();
    assert_eq!(process(temporary.path(), &command(ANSWER)).await, Asked::Compiled);
    assert!(!left.exists());
}

#[tokio::test]
async fn a_process_whose_bench_was_cleared_away_goes_on() {
    let temporary = tempfile::tempdir().unwrap();
    let living = Sandbox::keeping(SandboxConfig::default(), temporary.path()).unwrap();
    let wasm = command(ANSWER);
    assert_eq!(process(temporary.path(), &command(LOOP_FREE)).await, Asked::Compiled);
    assert!(run_in(&living, &wasm, b"", short()).await.outcome.is_ok());
    drop(living);
    assert_eq!(process(temporary.path(), &wasm).await, Asked::Read);
}

/// Another module with the same answer.
const LOOP_FREE: &str = r#"(data (i32.const 16) "42") (func (export "_start") (nop) (call $print (i32.const 1) (i32.const 16) (i32.const 2)))"#;
