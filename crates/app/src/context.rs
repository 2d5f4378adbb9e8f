//! What every command needs: the manifest, the repositories, the printer, the way to be stopped.

use crate::output::Printer;
use crate::signals::Interrupt;
use retoma_core::manifest::{self, Component, Manifest, Origin};
use retoma_core::{Error, ErrorKind, Result, error::codes};
use retoma_repo::Repository;
use retoma_repo::index::Index;
use std::path::{Path, PathBuf};

/// One run of the program.
#[derive(Debug)]
pub(crate) struct Context {
    /// Where the manifest is.
    pub(crate) manifest_path: PathBuf,
    /// Yes to every question.
    pub(crate) yes: bool,
    /// Which repository, by name; the first when none is named.
    pub(crate) repository: Option<String>,
    pub(crate) printer: Printer,
    pub(crate) interrupt: Interrupt,
}

/// A manifest with the text that it was read from.
#[derive(Debug)]
pub(crate) struct Loaded {
    pub(crate) manifest: Manifest,
    pub(crate) text: String,
}

/// The repository as it was.
#[derive(Debug, clap::Args)]
pub(crate) struct AsOfArgs {
    /// Read the repository as it was at this moment, before somebody changed or deleted objects: needs a bucket that keeps
    /// versions. Nothing is written
    #[arg(long, value_name = "TIME")]
    as_of: Option<String>,
}

impl AsOfArgs {
    /// The moment.
    pub(crate) fn time(&self) -> Result<Option<jiff::Timestamp>> {
        self.as_of.as_deref().map(timestamp).transpose()
    }
}

impl Context {
    /// Reads the manifest; problems are printed with file, line and caret.
    pub(crate) fn manifest(&self) -> Result<Loaded> {
        let path = &self.manifest_path;
        let text = std::fs::read_to_string(path).map_err(|error| {
            let error = Error::io(path.display(), error);
            if error.kind() == ErrorKind::NotFound {
                error.with_hint("write one with `retoma init`, or name another with `--manifest FILE`")
            } else {
                error
            }
        })?;
        let file_name = path.display().to_string();
        let origin = Origin { file_name: file_name.clone(), dir: folder_of(path)? };
        match manifest::parse(&text, &origin) {
            Ok(manifest) => {
                if !manifest.warnings.is_empty() && !self.printer.quiet {
                    self.printer.block(&manifest::render(&manifest.warnings, &file_name));
                }
                Ok(Loaded { manifest, text })
            }
            Err(problems) => {
                self.printer.block(&manifest::render(&problems, &file_name));
                Err(manifest::summary(&problems, &file_name))
            }
        }
    }

    /// The repository that `--repository` names, or the manifest's first.
    pub(crate) fn chosen<'a>(&self, manifest: &'a Manifest) -> Result<&'a manifest::Repository> {
        match self.repository.as_deref() {
            Some(name) => repository(manifest, name),
            None => manifest.repositories.first().ok_or_else(|| no_repository(manifest, "")),
        }
    }

    /// Opens the chosen repository.
    pub(crate) fn open(&self, manifest: &Manifest) -> Result<Repository> {
        Ok(retoma_control::open::open_repository(self.chosen(manifest)?, false)?.repository)
    }

    /// Opens the chosen repository for who lists what is in it: what never changes may come from this host's cache.
    pub(crate) fn open_cached(&self, manifest: &Manifest) -> Result<Repository> {
        Ok(retoma_control::open::open_cached(self.chosen(manifest)?, false)?.repository)
    }

    /// Opens the chosen repository; read-only and as it was, where a moment is given.
    pub(crate) fn open_as_of(&self, manifest: &Manifest, as_of: &AsOfArgs) -> Result<Repository> {
        match as_of.time()? {
            Some(time) => retoma_control::open::open_as_of(self.chosen(manifest)?, time),
            None => self.open(manifest),
        }
    }

    /// The index without the files that cannot be read, each of which is told: for who only looks.
    pub(crate) fn readable_index(&self, repository: &Repository) -> Result<Index> {
        let index = repository.load_readable_index()?;
        index.unreadable().iter().for_each(|error| self.printer.explain_warning(error));
        Ok(index)
    }

    /// The name of the repository that is used, where nobody chose it: then others may be asked too.
    pub(crate) fn not_alone(&self, manifest: &Manifest) -> Result<Option<String>> {
        let name = self.repository.is_none().then(|| self.chosen(manifest)).transpose()?;
        Ok(name.map(|chosen| chosen.name.clone()))
    }

    /// Asks before something destructive; without a terminal `--yes` is needed.
    pub(crate) fn confirm(&self, question: &str) -> Result<bool> {
        use std::io::{BufRead, IsTerminal};
        if self.yes {
            return Ok(true);
        }
        if !std::io::stdin().is_terminal() {
            return Err(Error::new(
                ErrorKind::Invalid,
                codes::USAGE,
                format!("this needs a yes: {question}"),
            )
            .with_hint("look at the plan above, then run it again with `--yes`"));
        }
        self.printer.block(&format!("{question} [y/N]"));
        let mut answer = String::new();
        std::io::stdin().lock().read_line(&mut answer).map_err(|error| Error::io("the answer", error))?;
        Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
    }
}

/// The repository of this name.
pub(crate) fn repository<'a>(manifest: &'a Manifest, name: &str) -> Result<&'a manifest::Repository> {
    manifest.repository(name).ok_or_else(|| no_repository(manifest, name))
}

fn no_repository(manifest: &Manifest, name: &str) -> Error {
    let known: Vec<&str> = manifest.repositories.iter().map(|repository| repository.name.as_str()).collect();
    let message = format!("the manifest has no repository `{name}`");
    Error::new(ErrorKind::Invalid, codes::USAGE, message)
        .with_hint(format!("its repositories are: {}", known.join(", ")))
}

/// The absolute folder of a file.
pub(crate) fn folder_of(path: &Path) -> Result<PathBuf> {
    Ok(retoma_control::paths::absolute(path)?.parent().unwrap_or(Path::new("/")).to_owned())
}

/// The component of this name.
pub(crate) fn component<'a>(manifest: &'a Manifest, name: &str) -> Result<&'a Component> {
    manifest.component(name).ok_or_else(|| {
        let known: Vec<&str> = manifest.components.iter().map(|component| component.name.as_str()).collect();
        Error::new(ErrorKind::Invalid, codes::USAGE, format!("the manifest has no component `{name}`"))
            .with_hint(format!("its components are: {}", known.join(", ")))
    })
}

/// Reads a point in time from the command line.
pub(crate) fn timestamp(text: &str) -> Result<jiff::Timestamp> {
    let local = || {
        let civil = text.parse::<jiff::civil::DateTime>().ok()?;
        civil.to_zoned(jiff::tz::TimeZone::system()).ok().map(|zoned| zoned.timestamp())
    };
    text.parse().ok().or_else(local).ok_or_else(|| {
        Error::new(
            ErrorKind::Invalid,
            codes::USAGE,
            format!("`{}` is not a point in time", text.escape_debug()),
        )
        .with_hint("write it as 2026-01-31T12:00:00Z, or without Z for local time")
    })
}
