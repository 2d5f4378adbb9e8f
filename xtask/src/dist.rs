//! `xtask dist`: the binary that users get, static, so that it starts on any Linux machine, blank ones too.

mod elf;

use crate::args::Args;
use crate::setup::{self, MUSL};
use crate::sh::{self, Result};
use std::path::Path;
use std::process::Command;

/// `xtask dist`: builds, checks and describes `target/dist/retoma`.
pub(crate) fn run(args: Args) -> Result {
    args.finish()?;
    setup::ensure("dist")?;
    sh::run_shown(sh::cargo().args([
        "build",
        "--locked",
        "--profile",
        "dist",
        "--target",
        MUSL,
        "-p",
        "retoma",
    ]))?;
    let target = target_dir()?;
    let built = Path::new(&target).join(MUSL).join("dist/retoma");
    let bytes =
        std::fs::read(&built).map_err(|error| format!("cannot read `{}`: {error}", built.display()))?;
    check_static(&bytes)?;

    let folder = Path::new(&target).join("dist");
    let binary = folder.join("retoma");
    sh::make_dir(&folder)?;
    std::fs::copy(&built, &binary)
        .map_err(|error| format!("cannot copy to `{}`: {error}", binary.display()))?;
    let version = sh::output(Command::new(&binary).arg("--version"))
        .map_err(|error| format!("the binary does not start: {error}"))?;
    let sum = sh::output(Command::new("sha256sum").arg("retoma").current_dir(&folder))?;
    sh::write(&folder.join("retoma.sha256"), &sum)?;
    println!("{}  {}", binary.display(), version.trim());
    println!("static, {} bytes ({} MiB)", bytes.len(), bytes.len() >> 20);
    print!("sha256 {sum}");
    Ok(())
}

/// The folder that cargo builds into.
pub(crate) fn target_dir() -> Result<String> {
    let text = sh::output(sh::cargo().args(["metadata", "--no-deps", "--format-version", "1"]))?;
    let metadata: serde_json::Value =
        serde_json::from_str(&text).map_err(|error| format!("`cargo metadata`: {error}"))?;
    match metadata["target_directory"].as_str() {
        Some(folder) => Ok(folder.to_owned()),
        None => Err("`cargo metadata` names no target directory".to_owned()),
    }
}

fn check_static(bytes: &[u8]) -> Result {
    let linkage = elf::linkage(bytes)?;
    if let Some(interpreter) = linkage.interpreter {
        return Err(format!("the binary is not static: it asks for the loader `{interpreter}`"));
    }
    match linkage.needed {
        0 => Ok(()),
        count => Err(format!("the binary is not static: it needs {count} shared libraries")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_test_program_is_seen_as_dynamic() {
        let bytes = std::fs::read(std::env::current_exe().unwrap()).unwrap();
        let error = check_static(&bytes).unwrap_err();
        assert!(error.contains("not static"), "{error}");
    }
}
