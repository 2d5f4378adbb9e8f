//! `xtask test`: what a developer and CI run to know that all is well.
//!
//! With `CI=true`, `REQUIRE_SERVICES=1` is set, so that a test which lacks its server fails instead of being skipped.

use crate::args::Args;
use crate::setup;
use crate::sh::{self, Result};

/// `xtask test [--profile P] [-- ARGS…]`.
pub(crate) fn run(mut args: Args) -> Result {
    let profile = args.value("--profile")?;
    let filters = args.rest();
    args.finish()?;
    if let Err(reason) = setup::ensure("test") {
        if in_ci() {
            return Err(reason);
        }
        eprintln!("setup is incomplete: {reason}");
    }
    // First, so that the last lines are those of the suite.
    if filters.is_empty() {
        with_services(sh::cargo().args(["test", "--quiet", "--workspace", "--doc"]))?;
    }
    if setup::has_nextest() {
        let mut nextest = sh::cargo();
        nextest.args(["nextest", "run", "--workspace"]);
        nextest.args(profile.iter().flat_map(|name| ["--profile", name]));
        with_services(nextest.args(&filters))?;
    } else {
        eprintln!("cargo-nextest cannot be had: using `cargo test`, without time limits");
        with_services(sh::cargo().args(["test", "--workspace"]).args(&filters))?;
    }
    Ok(())
}

fn with_services(command: &mut std::process::Command) -> Result {
    if in_ci() {
        command.env("REQUIRE_SERVICES", "1");
    }
    sh::run_shown(command)
}

fn in_ci() -> bool {
    std::env::var("CI").is_ok_and(|value| value == "true" || value == "1")
}
