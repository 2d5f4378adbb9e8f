//! Programs that a test needs and a machine may lack.

use std::env;
use std::path::PathBuf;

/// Where the program `name` lies, by `PATH`.
///
/// A missing one is a skip with a printed reason: `let Some(restic) = require_tool("restic") else { return };`.
///
/// # Panics
/// When it is missing and `REQUIRE_SERVICES` is `1`, as in CI, where a skipped test would look like a passed one.
#[allow(clippy::panic, clippy::print_stderr)]
pub fn require_tool(name: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let found = env::split_paths(&path).map(|folder| folder.join(name)).find(|program| program.is_file());
    if found.is_none() {
        assert!(
            env::var_os("REQUIRE_SERVICES").is_none_or(|value| value != "1"),
            "`{name}` is not installed, and REQUIRE_SERVICES=1 forbids to skip"
        );
        eprintln!("skipped: `{name}` is not installed");
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_that_every_system_has_is_found() {
        assert!(require_tool("sh").unwrap().is_absolute());
    }
}
