//! `retoma key add` and `retoma key rotate`.

use crate::cli::drill::language;
use crate::context::Context;
use retoma_control::keys::{About, Made, Wanted, make};
use retoma_control::open;
use retoma_core::manifest::{self, Manifest, SecretRef, TransitKey};
use retoma_core::render::Language;
use retoma_core::{Error, ErrorKind, Result, error::codes};
use retoma_repo::Repository;
use serde_json::json;
use std::path::PathBuf;

#[derive(Debug, clap::Args)]
#[command(group(clap::ArgGroup::new("way").required(true).args(["new_password", "shares", "key_file", "transit"])))]
pub(super) struct Args {
    /// A password; where the new one is: `file:PATH` or `env:NAME`
    #[arg(long, value_name = "REFERENCE")]
    new_password: Option<String>,
    /// A key that is split into so many shares, each a file and a page to print
    #[arg(long, value_name = "N", requires = "threshold", requires = "output")]
    shares: Option<u8>,
    /// How many of the shares open
    #[arg(long, value_name = "K", requires = "shares")]
    threshold: Option<u8>,
    /// A random key in a file
    #[arg(long, requires = "output")]
    key_file: bool,
    /// A random key, wrapped by a transit engine: `https://host:8200/v1/transit/keys/NAME`; the token is in `VAULT_TOKEN`
    #[arg(long, value_name = "URL")]
    transit: Option<String>,
    /// Where the key file, or the folder with the shares, is written
    #[arg(long, short = 'o', value_name = "PATH")]
    output: Option<PathBuf>,
    /// The language of the pages
    #[arg(long, value_name = "LANGUAGE", default_value = "en", value_parser = language)]
    language: Language,
}

impl Args {
    fn wanted(&self) -> Result<Wanted> {
        if let Some(reference) = &self.new_password {
            let reference = SecretRef::parse(reference).map_err(|reason| {
                Error::new(ErrorKind::Invalid, codes::SECRET_MISSING, reason)
                    .with_hint("name where the new password is: `file:PATH` or `env:NAME`")
            })?;
            return open::secret(&reference).map(Wanted::Password);
        }
        if let Some(url) = &self.transit {
            return key_of_engine(url).map(Wanted::Transit);
        }
        let Some(output) = self.output.clone() else {
            return Err(Error::internal("the command line let a key without a place through"));
        };
        Ok(match (self.shares, self.threshold) {
            (Some(total), Some(threshold)) => {
                Wanted::Shares { threshold, total, folder: output, language: self.language }
            }
            _ => Wanted::KeyFile(output),
        })
    }
}

/// Reads the address of a transit engine's key.
///
/// # Errors
/// `R0304`, which does not repeat the address.
pub(in crate::cli) fn key_of_engine(url: &str) -> Result<TransitKey> {
    TransitKey::parse(url).map_err(|reason| {
        Error::new(
            ErrorKind::Invalid,
            codes::STORE_ADDRESS,
            format!("the address of the transit key cannot be used: {reason}"),
        )
        .with_hint("write it as `https://bao.example:8200/v1/transit/keys/NAME`")
    })
}

fn about<'a>(manifest: &'a Manifest, described: &'a manifest::Repository) -> About<'a> {
    About { manifest, described, version: env!("CARGO_PKG_VERSION") }
}

/// Adds a key.
pub(super) fn add(
    context: &Context,
    args: &Args,
    repository: &Repository,
    manifest: &Manifest,
    described: &manifest::Repository,
) -> Result<()> {
    let wanted = args.wanted()?;
    let made = make(repository, &wanted, None, about(manifest, described))?;
    context.printer.data(&format!("key {} added", made.id.short()));
    say(context, &wanted, &made);
    context.printer.json("retoma.key/1", json!({ "added": made.id.to_hex(), "files": made.files }));
    Ok(())
}

/// Puts a key in the place of another.
pub(super) fn rotate(
    context: &Context,
    args: &Args,
    repository: &Repository,
    id: &str,
    manifest: &Manifest,
    described: &manifest::Repository,
) -> Result<()> {
    let wanted = args.wanted()?;
    let before = repository.list(retoma_repo::repository::Folder::Keys)?;
    let made = make(repository, &wanted, Some(id), about(manifest, described))?;
    let after = made.repository.list(retoma_repo::repository::Folder::Keys)?;
    let is_left = |id: &[u8; 32]| after.iter().any(|(left, _)| left == id);
    let gone = before.iter().map(|(id, _)| retoma_repo::id::KeyId(*id)).find(|id| !is_left(&id.0));
    let replaced = gone.map_or_else(|| id.to_owned(), retoma_repo::KeyId::short);
    context.printer.data(&format!("key {} is in the place of {replaced}", made.id.short()));
    say(context, &wanted, &made);
    if gone == Some(repository.key_id()) {
        context.printer.warning(
            "the key that opened the repository just now is gone: whatever names it (the manifest's `password`) must name another now",
        );
    }
    let removed = gone.map(retoma_repo::KeyId::to_hex);
    context
        .printer
        .json("retoma.key/1", json!({ "added": made.id.to_hex(), "removed": removed, "files": made.files }));
    Ok(())
}

fn say(context: &Context, wanted: &Wanted, made: &Made) {
    made.files.iter().for_each(|file| context.printer.data(&format!("wrote {}", file.display())));
    match wanted {
        Wanted::Password(_) | Wanted::Transit(_) => {}
        Wanted::KeyFile(_) => {
            context.printer.note("keep the file where this machine is not, and delete it here: whoever has it can read every backup");
        }
        Wanted::Shares { threshold, .. } => context.printer.note(&format!(
            "print each page, give each to another person, and delete the files: while {threshold} of them lie together, they are the key"
        )),
    }
}
