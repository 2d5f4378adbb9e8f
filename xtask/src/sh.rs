//! Runs other programs, and knows where the workspace is.
//!
//! Every failure is one sentence that names the command. Nothing here has a time limit: the programs are builds and
//! benchmarks, which CI bounds as a whole.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// What a task returns: nothing, or one sentence for the person who ran it.
pub(crate) type Result<T = ()> = std::result::Result<T, String>;

/// The root of the workspace.
pub(crate) fn root() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent().unwrap_or(here).to_path_buf()
}

/// The `cargo` that runs us, so that the same toolchain is used throughout.
pub(crate) fn cargo() -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(root());
    command
}

/// The path of `program` on the search path.
pub(crate) fn find(program: &str) -> Option<PathBuf> {
    if program.contains('/') {
        return Some(PathBuf::from(program)).filter(|path| path.is_file());
    }
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|folder| folder.join(program)).find(|file| file.is_file())
}

/// The command as a person would type it.
pub(crate) fn shown(command: &Command) -> String {
    let mut text = Path::new(command.get_program()).file_name().map_or_else(
        || command.get_program().to_string_lossy().into_owned(),
        |name| name.to_string_lossy().into_owned(),
    );
    for arg in command.get_args() {
        text.push(' ');
        text.push_str(&arg.to_string_lossy());
    }
    text
}

/// Runs to the end with our own stdout and stderr; anything but success is an error.
pub(crate) fn run(command: &mut Command) -> Result {
    match status(command)? {
        0 => Ok(()),
        code => Err(format!("`{}` ended with exit code {code}", shown(command))),
    }
}

/// Like [`run`], printing the command first.
pub(crate) fn run_shown(command: &mut Command) -> Result {
    println!("$ {}", shown(command));
    run(command)
}

/// Runs to the end and returns the exit code (128 + signal when a signal ended it).
pub(crate) fn status(command: &mut Command) -> Result<i32> {
    use std::os::unix::process::ExitStatusExt;
    let status = command.status().map_err(|error| format!("cannot run `{}`: {error}", shown(command)))?;
    Ok(status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0)))
}

/// Runs to the end and returns stdout as text; stderr is shown in the error only.
pub(crate) fn output(command: &mut Command) -> Result<String> {
    let out = command
        .stdin(Stdio::null())
        .output()
        .map_err(|error| format!("cannot run `{}`: {error}", shown(command)))?;
    if !out.status.success() {
        let stderr = String::from_utf8_lossy(&out.stderr);
        return Err(format!("`{}` failed: {}", shown(command), stderr.trim()));
    }
    String::from_utf8(out.stdout).map_err(|_| format!("`{}` printed text that is not UTF-8", shown(command)))
}

/// Reads a text file; the error names it.
pub(crate) fn read(path: &Path) -> Result<String> {
    std::fs::read_to_string(path).map_err(|error| format!("cannot read `{}`: {error}", path.display()))
}

/// Writes a file, with its folders; the error names it.
pub(crate) fn write(path: &Path, text: impl AsRef<[u8]>) -> Result {
    if let Some(folder) = path.parent() {
        make_dir(folder)?;
    }
    std::fs::write(path, text).map_err(|error| format!("cannot write `{}`: {error}", path.display()))
}

/// Makes a folder and those above it.
pub(crate) fn make_dir(path: &Path) -> Result {
    std::fs::create_dir_all(path).map_err(|error| format!("cannot make `{}`: {error}", path.display()))
}

/// What is in a folder, with its path; nothing where there is none.
pub(crate) fn entries(path: &Path) -> Result<Vec<PathBuf>> {
    let failed = |error| format!("read the folder {}: {error}", path.display());
    match std::fs::read_dir(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Vec::new()),
        found => found.map_err(failed)?.map(|entry| Ok(entry.map_err(failed)?.path())).collect(),
    }
}

/// Removes a folder with all that is in it; not being there is fine.
pub(crate) fn remove_dir(path: &Path) -> Result {
    match std::fs::remove_dir_all(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(format!("cannot remove `{}`: {error}", path.display()))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exit_codes_and_signals_are_told_apart() {
        assert_eq!(status(Command::new("sh").args(["-c", "exit 7"])), Ok(7));
        assert_eq!(status(Command::new("sh").args(["-c", "kill -9 $$"])), Ok(137));
    }

    #[test]
    fn a_failed_command_is_named_with_its_own_words() {
        let error = output(Command::new("sh").args(["-c", "echo no luck >&2; exit 1"])).unwrap_err();
        assert!(error.contains("no luck") && error.contains("`sh -c"), "{error}");
        let error = run(&mut Command::new("no-such-program-here")).unwrap_err();
        assert!(error.contains("no-such-program-here"), "{error}");
    }

    #[test]
    fn programs_are_found_on_the_search_path_only() {
        assert!(find("sh").is_some());
        assert!(find("no-such-program-here").is_none());
    }
}
