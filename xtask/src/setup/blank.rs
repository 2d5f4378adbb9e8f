//! The blank machine of the tests: Debian's base system with the servers that a service needs, none of them configured,
//! below `target/tools/blank`. A test starts it in namespaces of its own and changes a layer above it, never the folder.

use crate::sh::{self, Result};
use std::path::Path;
use std::process::Command;

/// What is on it beside the base system.
const PACKAGES: &str = "postgresql-15,redis-server,openssh-server,ca-certificates";
/// Changes when an existing one is to be made anew.
const VERSION: &str = "1";

/// Makes it, unless it is there. Needs root, as every `debootstrap` does.
pub(super) fn ensure(am_root: bool) -> Result {
    let tools = sh::root().join("target/tools");
    let note = tools.join("blank.version");
    if std::fs::read_to_string(&note).is_ok_and(|version| version == VERSION) {
        return Ok(());
    }
    let (suite, mirror) = (suite()?, mirror()?);
    println!(
        "setup: making a blank machine of Debian {suite} in target/tools/blank; this takes a minute or two"
    );
    std::fs::create_dir_all(&tools).map_err(|error| format!("make {}: {error}", tools.display()))?;
    let folder = tools.join("blank");
    let run = |words: &[&str]| {
        let mut command = Command::new(if am_root { "env" } else { "sudo" });
        sh::run_shown(command.args(words).arg(&folder))
    };
    run(&["rm", "-rf", "--one-file-system"])?;
    let log = tools.join("blank.log");
    let script = format!(
        "debootstrap --variant=minbase --include={PACKAGES} {suite} \"$1\" {mirror} > \"$2\" 2>&1 || \
         {{ tail -n 20 \"$2\"; exit 1; }}; rm -rf \"$1\"/var/cache/apt \"$1\"/var/lib/apt/lists"
    );
    let mut command = Command::new(if am_root { "env" } else { "sudo" });
    sh::run_shown(command.args(["sh", "-c", &script, "setup"]).arg(&folder).arg(&log))?;
    std::fs::write(&note, VERSION).map_err(|error| format!("write {}: {error}", note.display()))
}

/// The release of this machine: its programs' libraries are those that our own program was linked against.
fn suite() -> Result<String> {
    let text = read(Path::new("/etc/os-release"))?;
    let found = text.lines().find_map(|line| line.strip_prefix("VERSION_CODENAME="));
    let name = found.map(|name| name.trim_matches('"').to_owned());
    name.filter(|name| is_word(name))
        .ok_or_else(|| "this system does not say which release of Debian it is".to_owned())
}

/// Where this machine's own packages come from.
fn mirror() -> Result<String> {
    let mut sources = vec![Path::new("/etc/apt/sources.list").to_owned()];
    if let Ok(entries) = std::fs::read_dir("/etc/apt/sources.list.d") {
        sources.extend(entries.flatten().map(|entry| entry.path()));
    }
    sources.sort();
    let mut texts = sources.iter().filter_map(|path| std::fs::read_to_string(path).ok());
    let found = texts.find_map(|text| mirror_in(&text));
    found.ok_or_else(|| "no mirror of Debian is named in /etc/apt".to_owned())
}

/// The first address in a file of `apt`'s, in either of its forms, that is not the security archive.
fn mirror_in(text: &str) -> Option<String> {
    let lines =
        text.lines().map(str::trim).filter(|line| line.starts_with("URIs:") || line.starts_with("deb "));
    let mut words = lines.flat_map(str::split_whitespace);
    words.find(|word| word.starts_with("http") && !word.contains("security")).map(str::to_owned)
}

fn is_word(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric())
}

fn read(path: &Path) -> Result<String> {
    std::fs::read_to_string(path).map_err(|error| format!("read {}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mirror_is_found_in_both_forms() {
        let new = "Types: deb\n# http://old.example\nURIs: http://deb.example/debian\nSuites: bookworm\n";
        assert_eq!(mirror_in(new).as_deref(), Some("http://deb.example/debian"));
        let old = "# deb http://no.example x\ndeb [signed-by=/k] http://deb.example/debian bookworm main\n";
        assert_eq!(mirror_in(old).as_deref(), Some("http://deb.example/debian"));
        assert_eq!(mirror_in("URIs: http://deb.example/debian-security\n"), None);
        assert_eq!(mirror_in("deb-src http://deb.example/debian x\n"), None);
    }

    #[test]
    fn a_release_that_is_no_word_is_not_run() {
        assert!(is_word("bookworm") && !is_word("") && !is_word("a;b"));
    }
}
