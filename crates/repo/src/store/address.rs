//! Where a repository lies, as people write it: `file:///var/lib/retoma/repository`, `s3://bucket/prefix`.
//!
//! An address may hold a user and a password; they never reach a message.

use super::{LocalStore, ObjectStore, SftpOptions, SftpStore, Store, cloud};
use jiff::Timestamp;
use retoma_core::error::codes;
use retoma_core::manifest::ObjectLock;
use retoma_core::{Error, ErrorKind, Result};
use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;
use url::Url;

/// The address of a store. `Display` and `Debug` leave credentials out.
#[derive(Clone, PartialEq, Eq)]
pub enum Address {
    /// `file:///…`: a folder, by its absolute path.
    Local(PathBuf),
    /// `memory:`: in the process's memory, new and empty each time it is opened.
    Memory,
    /// A store elsewhere, by its URL, which may hold credentials.
    Remote(Box<Url>),
}

impl FromStr for Address {
    type Err = Error;

    /// Understands `file:///path`, `memory:` and the URLs of remote stores; a path has `%20` for a space and so on.
    fn from_str(text: &str) -> Result<Self> {
        if text.starts_with('/') {
            return Err(refused(text, "it has no scheme").with_hint(format!("write `file://{text}`")));
        }
        // The text itself is not told where it cannot be parsed: nothing says which part of it is a password.
        let url = Url::parse(text).map_err(|error| {
            let message = format!("the address of a repository cannot be understood: {error}");
            Error::new(ErrorKind::Invalid, codes::STORE_ADDRESS, message)
                .with_hint("write it like `file:///var/lib/retoma/repository`")
        })?;
        match url.scheme() {
            "memory" if text == "memory:" => Ok(Self::Memory),
            "file" => local(text, &url),
            scheme if cloud::SCHEMES.contains(&scheme) => {
                cloud::check(&url)?;
                remote(url)
            }
            "sftp" => remote(url),
            scheme => Err(refused(&redacted(&url), &format!("`{scheme}` is no kind of store that we know"))
                .with_hint("the kinds are `file`, `s3`, `gs`, `az` and `sftp`")),
        }
    }
}

fn local(text: &str, url: &Url) -> Result<Address> {
    let refused = |why| refused(&redacted(url), why).with_hint("write `file:///` and an absolute path");
    if !text.starts_with("file:///") {
        return Err(refused("its path is not absolute"));
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err(refused("`?` and `#` in a path are written `%3F` and `%23`"));
    }
    match url.to_file_path() {
        Ok(path) if !path.as_os_str().as_encoded_bytes().contains(&0) => Ok(Address::Local(path)),
        _ => Err(refused("its path is none")),
    }
}

fn remote(url: Url) -> Result<Address> {
    if url.host_str().is_none_or(str::is_empty) {
        return Err(refused(&redacted(&url), "it names no bucket or host"));
    }
    Ok(Address::Remote(Box::new(url)))
}

fn refused(address: &str, why: &str) -> Error {
    let message = format!("`{address}` is not the address of a repository: {why}");
    Error::new(ErrorKind::Invalid, codes::STORE_ADDRESS, message)
}

/// The URL without password, query and fragment, each of which may be a secret.
fn redacted(url: &Url) -> String {
    let mut shown = url.clone();
    if shown.password().is_some() {
        // Fails only for URLs that can't have a password.
        shown.set_password(Some("***")).ok();
    }
    shown.set_query(None);
    shown.set_fragment(None);
    shown.to_string()
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Local(path) => match Url::from_file_path(path) {
                Ok(url) => write!(f, "{url}"),
                Err(()) => write!(f, "file://{}", path.display()),
            },
            Self::Memory => f.write_str("memory:"),
            Self::Remote(url) => f.write_str(&redacted(url)),
        }
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Address({self})")
    }
}

/// Opens the store at `address`, without layers. Nothing is read or written yet.
///
/// # Errors
/// `Invalid` for a path that is not absolute, for a password in an address, and for settings in the environment that lack a
/// part.
pub fn open(address: &Address) -> Result<Arc<dyn Store>> {
    match address {
        Address::Local(path) => Ok(Arc::new(LocalStore::new(path.clone())?)),
        Address::Memory => Ok(Arc::new(ObjectStore::memory())),
        Address::Remote(url) if cloud::SCHEMES.contains(&url.scheme()) => cloud::open(url),
        Address::Remote(url) => Ok(Arc::new(SftpStore::new(url, SftpOptions::from_environment())?)),
    }
}

/// As [`open`]; every object that is written gets this lock, but those that must be deletable.
///
/// # Errors
/// As [`open`]; `Unsupported` for a store without locks.
pub fn open_locked(address: &Address, lock: ObjectLock) -> Result<Arc<dyn Store>> {
    match address {
        Address::Remote(url) if cloud::SCHEMES.contains(&url.scheme()) => cloud::open_locked(url, lock),
        _ => Err(refused(&address.to_string(), "objects there cannot be locked")
            .with_hint("remove `lock_days` from the manifest")),
    }
}

/// The store at `address` as it was at `time`, read-only.
///
/// # Errors
/// As [`open`]; `Unsupported` where no versions are kept.
pub fn as_of(address: &Address, time: Timestamp) -> Result<Arc<dyn Store>> {
    match address {
        Address::Remote(url) if cloud::SCHEMES.contains(&url.scheme()) => cloud::as_of(url, time),
        _ => {
            let message = format!("`{address}` keeps no versions: it cannot be read as it was");
            Err(Error::new(ErrorKind::Unsupported, codes::STORE_UNSUPPORTED, message)
                .with_hint("`--at TIME` takes an older snapshot of the repository as it is now"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn parse(text: &str) -> Result<Address> {
        text.parse()
    }

    #[test]
    fn a_local_address_is_an_absolute_path() {
        assert_eq!(parse("file:///var/lib/r").unwrap(), Address::Local("/var/lib/r".into()));
        assert_eq!(parse("file:///a%20b/%C3%A9").unwrap(), Address::Local("/a b/é".into()));
        for wrong in [
            "file:relative",
            "file://host/path",
            "file://relative",
            "file:/one",
            "file:///a?b",
            "file:///a#b",
        ] {
            let error = parse(wrong).unwrap_err();
            assert_eq!(error.code(), codes::STORE_ADDRESS, "{wrong}");
        }
        assert_eq!(parse("file:///a%00b").unwrap_err().kind(), ErrorKind::Invalid);
    }

    #[test]
    fn a_bare_path_is_refused_with_the_address_to_write() {
        assert_eq!(parse("/srv/repo").unwrap_err().hint(), Some("write `file:///srv/repo`"));
    }

    #[test]
    fn an_address_names_a_known_kind_and_a_bucket_or_host() {
        for wrong in ["s3:///prefix", "sftp:///path", "ftp://host/x"] {
            assert_eq!(parse(wrong).unwrap_err().kind(), ErrorKind::Invalid, "{wrong}");
        }
        assert!(open(&parse("sftp://host/path").unwrap()).is_ok());
    }

    #[test]
    fn credentials_are_not_shown() {
        let texts = ["sftp://user:hunter2@host/path"];
        for text in texts {
            let address = parse(text).unwrap();
            let shown = format!("{address} {address:?} {}", open(&address).unwrap_err());
            assert!(!shown.contains("hunter2"), "{shown}");
        }
        for wrong in ["nfs://user:hunter2@host/path", "sftp://user:hunter2@host:port/path"] {
            let error = parse(wrong).unwrap_err();
            assert!(!format!("{error} {error:?} {:?}", error.hint()).contains("hunter2"), "{error}");
        }
    }

    #[test]
    fn memory_is_memory() {
        assert_eq!(parse("memory:").unwrap(), Address::Memory);
        assert!(parse("memory:name").is_err());
        assert_eq!(open(&Address::Memory).unwrap().location(), "memory:");
    }

    proptest! {
        #[test]
        fn what_is_shown_is_parsed_to_the_same(path in "(/[ -~é]{1,12}){1,4}") {
            prop_assume!(path.split('/').all(|segment| !matches!(segment, "." | "..")) && !path.contains("//"));
            let address = Address::Local(path.into());
            prop_assert_eq!(address.to_string().parse::<Address>().unwrap(), address);
        }

        #[test]
        fn no_text_panics(text in ".{0,60}") {
            if let Ok(address) = text.parse::<Address>() {
                prop_assert!(!address.to_string().is_empty());
            }
        }
    }
}
