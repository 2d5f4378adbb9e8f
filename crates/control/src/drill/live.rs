//! A drill never touches what is live. What counts as live: every component's path and what leads there, every
//! repository's folder, and a port or socket on which somebody answers.

use crate::probe;
use crate::service::PROBE_LIMIT;
use retoma_core::manifest::{Manifest, Source};
use retoma_core::{Error, ErrorKind, Result, error::codes};
use std::os::unix::fs::FileTypeExt as _;
use std::path::{Path, PathBuf};

/// Refuses to use `target` as a scratch folder when it is, holds or lies in anything live of `manifest`.
///
/// # Errors
/// `R0711` naming what is live there.
pub fn refuse_live(target: &Path, manifest: &Manifest) -> Result<()> {
    let target = real(target)?;
    if std::fs::symlink_metadata(&target).is_ok_and(|metadata| metadata.file_type().is_socket()) {
        return Err(live(&target, "it is a socket"));
    }
    for component in &manifest.components {
        let Some(path) = component.path() else { continue };
        let path = real(path)?;
        if target.starts_with(&path) || path.starts_with(&target) {
            return Err(live(&target, &format!("component `{}` is at `{}`", component.name, path.display())));
        }
    }
    for repository in &manifest.repositories {
        let Some(folder) = repository.folder() else { continue };
        let folder = real(folder)?;
        if target.starts_with(&folder) || folder.starts_with(&target) {
            let what = format!("repository `{}` is at `{}`", repository.name, folder.display());
            return Err(live(&target, &what));
        }
    }
    Ok(())
}

/// Refuses when somebody answers at `url`, where the scratch service is to listen.
///
/// # Errors
/// `R0711`.
pub fn refuse_answering(url: &str) -> Result<()> {
    let seen = probe::get(url, PROBE_LIMIT);
    if !seen.is_anybody_there() {
        return Ok(());
    }
    let message = format!("somebody answers at `{url}` already: {}", seen.outcome);
    Err(Error::new(ErrorKind::Conflict, codes::TARGET_IS_LIVE, message).with_hint(
        "give the port of `health` as an argument in `start`, so that a drill can choose a free one, or stop what listens",
    ))
}

/// Refuses a command that names live data: the scratch service would open them.
///
/// # Errors
/// `R0713` naming the argument.
pub fn refuse_live_arguments(manifest: &Manifest) -> Result<()> {
    let Some(command) = &manifest.service.start else { return Ok(()) };
    let paths = manifest.components.iter().filter_map(|component| match &component.source {
        Source::Sqlite { path } | Source::Files { path, .. } => Some(path.as_path()),
        Source::Postgres { .. } | Source::Redis { .. } => None,
    });
    let paths: Vec<&Path> = paths.chain([manifest.dir()]).filter(|path| *path != Path::new("/")).collect();
    for argument in &command.arguments {
        let names_it = |path: &&Path| path.to_str().is_some_and(|path| argument.contains(path));
        if let Some(path) = paths.iter().copied().find(|path| names_it(path)) {
            let message = format!("`start` names `{}`, which is live", path.display());
            return Err(Error::new(ErrorKind::Invalid, codes::DRILL_UNSUITED, message).with_hint(
                "use paths relative to the manifest, or below `$RETOMA_ROOT`, which a drill sets to its scratch folder",
            ));
        }
    }
    Ok(())
}

fn live(target: &Path, why: &str) -> Error {
    let message = format!("`{}` cannot be a drill's folder: {why}", target.display());
    Error::new(ErrorKind::Conflict, codes::TARGET_IS_LIVE, message)
        .with_hint("set `scratch_dir` in `[drill]` to a folder that is neither backed up nor a repository")
}

/// The path without links, as far as it exists.
fn real(path: &Path) -> Result<PathBuf> {
    let path = std::path::absolute(path).map_err(|error| Error::io(path.display(), error))?;
    for ancestor in path.ancestors() {
        if let Ok(real) = std::fs::canonicalize(ancestor) {
            let below = path.strip_prefix(ancestor).unwrap_or(Path::new(""));
            return Ok(if below.as_os_str().is_empty() { real } else { real.join(below) });
        }
    }
    Ok(path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use retoma_core::manifest::{Origin, parse};

    /// A service in `root/srv` with `models` and a repository beside it.
    fn manifest(root: &Path, start: &str) -> Manifest {
        let text = format!(
            "version = 1\n[service]\nname = \"s\"\nhealth = \"http://127.0.0.1:1/\"\nstart = [\"run\", \"{start}\"]\n\
             [[repository]]\nname = \"r\"\nurl = \"file://{0}/repository\"\npassword = \"env:P\"\n\
             [[component]]\nname = \"m\"\nkind = \"files\"\ntier = \"low\"\npath = \"models\"\n",
            root.display()
        );
        let origin = Origin { file_name: "retoma.toml".to_owned(), dir: root.join("srv") };
        parse(&text, &origin).unwrap_or_else(|problems| panic!("{problems:?}"))
    }

    #[test]
    fn what_is_live_holds_something_live_or_lies_in_it_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        std::fs::create_dir_all(root.join("srv/models")).unwrap();
        std::fs::create_dir_all(root.join("repository")).unwrap();
        std::os::unix::fs::symlink(root.join("srv/models"), root.join("link")).unwrap();
        let _listening = std::os::unix::net::UnixListener::bind(root.join("socket")).unwrap();
        let manifest = manifest(root, "x");
        for live in [
            ".",
            "srv",
            "srv/models",
            "srv/models/a/b",
            "link",
            "link/a",
            "srv/../link",
            "repository",
            "repository/a",
            "socket",
        ] {
            let refused = refuse_live(&root.join(live), &manifest).map_err(|error| error.code());
            assert_eq!(refused, Err(codes::TARGET_IS_LIVE), "{live}");
        }
        for free in ["scratch", "srv/other", "srv/models2", "repository2"] {
            assert!(refuse_live(&root.join(free), &manifest).is_ok(), "{free}");
        }
    }

    #[test]
    fn a_command_may_name_no_live_path_wherever_it_stands() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        let names = |argument: String| refuse_live_arguments(&manifest(root, &argument));
        for live in ["srv", "srv/models", "srv/retoma.toml", "srv/models/m"] {
            let argument = format!("--file={}", root.join(live).display());
            assert_eq!(names(argument).map_err(|error| error.code()), Err(codes::DRILL_UNSUITED), "{live}");
        }
        for free in ["models", "--port", "$RETOMA_ROOT/srv"] {
            assert!(names(free.to_owned()).is_ok(), "{free}");
        }
    }
}
