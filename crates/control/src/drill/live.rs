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
        Source::Sqlite { path, .. } | Source::Files { path, .. } => Some(path.as_path()),
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
mod tests;
