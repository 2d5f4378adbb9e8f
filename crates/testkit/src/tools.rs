//! Programs that a test needs and a machine may lack.

use std::env;
use std::path::PathBuf;

/// Where the program `name` lies, by `PATH`.
///
/// A missing one is a skip with a printed reason: `let Some(restic) = require_tool("restic") else { return };`.
///
/// # Panics
/// When it is missing and `REQUIRE_SERVICES` is `1`, as in CI, where a skipped test would look like a passed one.
pub fn require_tool(name: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let found = env::split_paths(&path).map(|folder| folder.join(name)).find(|program| program.is_file());
    found.or_else(|| skip(name, MISSING))
}

/// Where the program `name` lies that `cargo xtask setup` installs into the project's own `target/tools`. `path` is below
/// that folder. Otherwise as [`require_tool`].
///
/// # Panics
/// As [`require_tool`].
pub fn require_local_tool(name: &str, path: &str) -> Option<PathBuf> {
    let found = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../target/tools")).join(path);
    if found.is_file() { Some(found) } else { skip(name, MISSING) }
}

const MISSING: &str = "it is not installed; `cargo xtask setup --for test` installs it";

/// Says that a test is skipped, since `what` is not to be had.
#[allow(clippy::print_stderr)]
pub(crate) fn skip<T>(what: &str, why: &str) -> Option<T> {
    assert!(
        env::var_os("REQUIRE_SERVICES").is_none_or(|value| value != "1"),
        "no `{what}`, and REQUIRE_SERVICES=1 forbids to skip: {why}"
    );
    eprintln!("skipped: no `{what}`: {why}");
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_that_every_system_has_is_found() {
        assert!(require_tool("sh").unwrap().is_absolute());
    }
}
