//! Runs one command under `time` and reads what it cost: wall seconds, CPU seconds of all its processes, peak memory of
//! the largest of them.

use super::memory;
use crate::dist::target_dir;
use crate::sh::{self, Result};
use std::fmt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

/// What one run cost.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Measured {
    pub(super) wall_seconds: f64,
    /// User and system time.
    pub(super) cpu_seconds: f64,
    pub(super) peak_bytes: u64,
}

impl fmt::Display for Measured {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mebibytes = self.peak_bytes >> 20;
        write!(f, "{:8.2} s {:8.2} CPU-s {mebibytes:6} MiB", self.wall_seconds, self.cpu_seconds)
    }
}

/// The folders of one tool for one thing that it backs up, and what its scripts are told.
pub(super) struct Place {
    pub(super) folder: PathBuf,
    pub(super) repository: PathBuf,
    pub(super) out: PathBuf,
    /// What the manifest says of the component.
    component: String,
    /// What it says of repositories, where they are not `repository` alone.
    repositories: Option<String>,
    /// Further variables of the scripts.
    variables: Vec<(&'static str, PathBuf)>,
}

impl Place {
    /// Of the tool `tool` under `work`, for what is called `name`.
    pub(super) fn new(
        work: &Path,
        tool: &str,
        name: &str,
        component: String,
        variables: Vec<(&'static str, PathBuf)>,
    ) -> Self {
        let folder = work.join(tool).join(name);
        let (repository, out) = (folder.join("repository"), folder.join("out"));
        Self { folder, repository, out, component, repositories: None, variables }
    }

    /// For a tree of files.
    pub(super) fn of_files(work: &Path, tool: &str, tree: &Path, name: &str) -> Self {
        let component = format!(
            "[[component]]\nname = \"tree\"\nkind = \"files\"\ntier = \"low\"\npath = \"{}\"\n",
            tree.display()
        );
        Self::new(work, tool, name, component, vec![("TREE", tree.to_owned())])
    }

    /// With other repositories in the manifest, and further variables of the scripts.
    pub(super) fn with(mut self, repositories: String, variables: &[(&'static str, PathBuf)]) -> Self {
        self.repositories = Some(repositories);
        self.variables.extend_from_slice(variables);
        self
    }

    /// Makes the folders, the password and the manifest.
    pub(super) fn make(&self) -> Result {
        for folder in [&self.repository, &self.out, &self.folder.join("cache")] {
            sh::make_dir(folder)?;
        }
        let password = self.folder.join("password");
        sh::write(&password, "correct horse battery staple\n")?;
        // A secret that others may read is refused.
        std::fs::set_permissions(&password, std::fs::Permissions::from_mode(0o600))
            .map_err(|error| format!("cannot protect `{}`: {error}", password.display()))?;
        sh::write(&self.folder.join("retoma.toml"), self.manifest())
    }

    fn manifest(&self) -> String {
        let repositories = self.repositories.clone().unwrap_or_else(|| {
            format!(
                "[[repository]]\nname = \"local\"\nurl = \"file://{}\"\npassword = \"file:{}\"\n\n",
                self.repository.display(),
                self.folder.join("password").display(),
            )
        });
        format!("version = 1\n\n[service]\nname = \"bench\"\n\n{repositories}{}", self.component)
    }

    /// A shell with the variables that scripts may use.
    fn shell(&self, command: &mut Command, script: &str, step: &str) -> Result {
        command
            .args(["-c", &format!("set -eu\n{script}")])
            .env("REPO", &self.repository)
            .env("OUT", &self.out)
            .env("CACHE", self.folder.join("cache"))
            .env("PASSWORD", self.folder.join("password"))
            .env("MANIFEST", self.folder.join("retoma.toml"))
            .env("RETOMA", our_binary()?)
            .env("STEP", step)
            .envs(self.variables.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null());
        Ok(())
    }
}

fn our_binary() -> Result<PathBuf> {
    Ok(Path::new(&target_dir()?).join("release/retoma"))
}

/// Runs a script that is not measured.
pub(super) fn prepare(place: &Place, script: &str) -> Result {
    let mut shell = Command::new("bash");
    place.shell(&mut shell, script, "init")?;
    sh::output(&mut shell).map(|_| ())
}

/// What a script prints that needs no more than our binary.
fn asked(script: &str) -> Result<String> {
    sh::output(Command::new("bash").args(["-c", script]).env("RETOMA", our_binary()?).stdin(Stdio::null()))
}

/// Whether a script succeeds.
pub(super) fn succeeds(script: &str) -> bool {
    asked(script).is_ok()
}

/// The line with which a tool names its version.
pub(super) fn version(script: &str) -> String {
    asked(script).map_or_else(|_| "unknown".to_owned(), |text| text.trim().to_owned())
}

/// Runs `script`, which reads `input` or the repository, and measures it. What other runs left unwritten is written first, the memory
/// that they left free is filled, and what will be read is in memory.
pub(super) fn run(place: &Place, step: &str, script: &str, input: &Path) -> Result<Measured> {
    sh::run(&mut Command::new("sync"))?;
    memory::fill()?;
    memory::warm(&place.repository)?;
    memory::warm(input)?;
    run_now(place, step, script)
}

/// As [`run`], at once: while something else runs.
pub(super) fn run_now(place: &Place, step: &str, script: &str) -> Result<Measured> {
    let (costs, log) = (place.folder.join("costs"), place.folder.join("log"));
    let mut time = Command::new("/usr/bin/time");
    time.args(["-f", "%U %S %M", "-o"]).arg(&costs).args(["bash", "-o", "pipefail"]);
    place.shell(&mut time, script, step)?;
    let file =
        std::fs::File::create(&log).map_err(|error| format!("cannot write `{}`: {error}", log.display()))?;
    let other = file.try_clone().map_err(|error| error.to_string())?;
    let start = Instant::now();
    let code = sh::status(time.stdout(file).stderr(other))?;
    let wall_seconds = start.elapsed().as_secs_f64();
    if code != 0 {
        let text = sh::read(&log).unwrap_or_default();
        return Err(format!("`{script}` ended with exit code {code}:\n{}", text.trim()));
    }
    let (cpu_seconds, peak_bytes) = parse(&sh::read(&costs)?)?;
    Ok(Measured { wall_seconds, cpu_seconds, peak_bytes })
}

/// Reads `user system peak-KiB` from the last line.
fn parse(text: &str) -> Result<(f64, u64)> {
    let numbers: Option<Vec<f64>> =
        text.lines().last().map(|line| line.split(' ').map_while(|word| word.parse().ok()).collect());
    match numbers.as_deref() {
        // A float holds KiB exactly up to 2^53.
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
        Some([user, system, peak]) => Ok((user + system, (*peak as u64) << 10)),
        _ => Err(format!("`time` printed {text:?}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_costs_are_read_from_the_last_line() {
        assert_eq!(parse("1.50 0.25 2048\n"), Ok((1.75, 2 << 20)));
        assert_eq!(parse("Command exited\n0.00 0.01 4\n"), Ok((0.01, 4096)));
        for bad in ["", "1.0 2.0\n", "a b c\n"] {
            assert!(parse(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_measured_command_uses_its_folders_and_its_failure_is_told() {
        if !Path::new("/usr/bin/time").is_file() {
            assert!(std::env::var_os("REQUIRE_SERVICES").is_none(), "`time` is missing");
            return println!("skipped: `time` is missing");
        }
        let dir = tempfile::tempdir().unwrap();
        let place = Place::of_files(dir.path(), "tool", dir.path(), "x");
        place.make().unwrap();
        let measured = run_now(&place, "big", r#"echo "$STEP" > "$REPO/step""#).unwrap();
        assert_eq!(std::fs::read_to_string(place.repository.join("step")).unwrap(), "big\n");
        assert!(measured.peak_bytes > 0);
        let error = run_now(&place, "big", "echo no room >&2; false | true").unwrap_err();
        assert!(error.contains("exit code 1") && error.contains("no room"), "{error}");
    }
}
