//! From what the manifest says about a repository to an open one: secrets, address, layers.

use crate::{durable, keyring, transit, unlock};
use jiff::Timestamp;
use retoma_core::manifest::{self, SecretRef};
use retoma_core::{Error, ErrorKind, Result, ResultExt, Secret, error::codes};
use retoma_repo::shares;
use retoma_repo::store::cloud::Locks;
use retoma_repo::store::layer::{CacheSettings, Layers, RetryPolicy, stack};
use retoma_repo::store::{self, Address, BlockingStore, Store};
use retoma_repo::{BlobId, Repository};
use std::ffi::OsString;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The largest file that is read as a secret, in bytes.
const SECRET_LIMIT_BYTES: u64 = 64 * 1024;
/// Permissions that let everybody on the machine read or change a file.
const WORLD: u32 = 0o006;

/// The value that `reference` names, without the line end that it may end with.
///
/// # Errors
/// `R0102`: it is missing, empty, not text, too long, or a file that everybody on the machine may read. No message
/// holds the value.
pub fn secret(reference: &SecretRef) -> Result<Secret<String>> {
    let missing = |why: &str, hint: String| {
        let message = format!("the secret `{reference}` {why}");
        Err(Error::new(ErrorKind::Invalid, codes::SECRET_MISSING, message).with_hint(hint))
    };
    let text = match reference {
        SecretRef::Env(name) => match std::env::var(name) {
            Ok(text) => text,
            Err(_) => return missing("is not set", format!("set it for this command: `export {name}=…`")),
        },
        SecretRef::Transit(_) => {
            return missing(
                "is not known before the repository is asked",
                "a transit engine opens repositories; name a file or variable here".to_owned(),
            );
        }
        SecretRef::File(path) => match read_private(path)? {
            Ok(text) => text,
            Err((why, hint)) => return missing(&why, hint),
        },
    };
    let value = text.strip_suffix('\n').map_or(text.as_str(), |text| text.strip_suffix('\r').unwrap_or(text));
    if value.is_empty() {
        let fix = match reference {
            SecretRef::Env(name) => format!("set it for this command: `export {name}=…`"),
            SecretRef::File(path) => put_back(path),
            SecretRef::Transit(_) => String::new(),
        };
        return missing("is empty", fix);
    }
    Ok(Secret::new(value.to_owned()))
}

/// Writes a new random password of 192 bits, as hexadecimal digits, into a file that only its owner may read.
///
/// # Errors
/// What the file system says; the system has no random numbers.
pub fn make_password(path: &Path) -> Result<Secret<String>> {
    let mut random = [0; 24];
    retoma_repo::crypto::random(&mut random)?;
    let digits = random.iter().flat_map(|byte| [byte >> 4, byte & 15]);
    let text: String = digits.filter_map(|digit| char::from_digit(u32::from(digit), 16)).collect();
    durable::write(path, format!("{text}\n").as_bytes(), durable::PRIVATE)?;
    Ok(Secret::new(text))
}

/// Whatever is closed with a secret opens with that one alone: a new one is no help.
fn put_back(path: &Path) -> String {
    format!("put the copy that is kept elsewhere back: `install -m 600 COPY '{}'`", path.display())
}

type Unusable = (String, String);

fn read_private(path: &Path) -> Result<Result<String, Unusable>> {
    let shown = path.display();
    let metadata = match std::fs::metadata(path) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            return Ok(Err(("is not there".to_owned(), put_back(path))));
        }
        Err(error) => return Err(Error::io(shown, error).context("read a secret")),
    };
    if !metadata.is_file() || metadata.len() > SECRET_LIMIT_BYTES {
        return Ok(Err((
            "is no small file".to_owned(),
            "name the file that holds the secret in the manifest".to_owned(),
        )));
    }
    if metadata.mode() & WORLD != 0 {
        let hint = format!("run `chmod o= '{shown}'`, and change the secret if others may have read it");
        return Ok(Err(("may be read or changed by everybody on this machine".to_owned(), hint)));
    }
    let bytes = std::fs::read(path).map_err(|error| Error::io(shown, error)).context("read a secret")?;
    let not_text = || ("is not UTF-8 text".to_owned(), put_back(path));
    Ok(String::from_utf8(bytes).map_err(|_| not_text()))
}

/// An open repository, and whether this call made it.
#[derive(Debug)]
pub struct Opened {
    /// The repository.
    pub repository: Repository,
    /// Whether there was none before.
    pub created: bool,
}

/// Opens the repository that the manifest describes; with `create`, makes it when there is none (what only the first
/// backup does). Its password is read where no key of it is kept (see [`keyring`]) and no shares were offered ([`unlock`]).
///
/// # Errors
/// `R0102` about the password; `R0304` about the address; otherwise as [`Repository::open`].
pub fn open_repository(described: &manifest::Repository, create: bool) -> Result<Opened> {
    open_with(described, create, |_| None)
}

/// The same, but index files and snapshots of a far repository come from this host's cache where it has them: for who writes or
/// lists, not for who has to know that they can be read where they are.
///
/// # Errors
/// As [`open_repository`].
pub fn open_cached(described: &manifest::Repository, create: bool) -> Result<Opened> {
    open_with(described, create, |address| cache_folder(address, &|name| std::env::var_os(name)))
}

fn open_with(
    described: &manifest::Repository,
    create: bool,
    cache: impl Fn(&Address) -> Option<PathBuf>,
) -> Result<Opened> {
    let opening = || format!("open repository `{}`", described.name);
    let address = address(described).with_context(opening)?;
    let store = match described.lock {
        Some(lock) => store::open_locked(&address, lock).with_context(opening)?,
        None => store::open(&address).with_context(opening)?,
    };
    let store = layered(store, cache(&address))?;
    if let Some(repository) = unlocked(&store, &described.password).with_context(opening)? {
        return Ok(Opened { repository, created: false });
    }
    let opened = open_in(store, &secret(&described.password)?, create).with_context(opening)?;
    keyring::note(&opened.repository);
    Ok(opened)
}

/// Opened without a password that is read here: with the shares that were offered, a key that is kept, or by a transit engine.
fn unlocked(store: &BlockingStore, password: &SecretRef) -> Result<Option<Repository>> {
    let repository = if let Some(shares) = unlock::offered() {
        shares::open(store, &shares)?.0
    } else if let Some(kept) = keyring::open(store)? {
        return Ok(Some(kept));
    } else if let SecretRef::Transit(key) = password {
        transit::open(store, key)?.0
    } else {
        return Ok(None);
    };
    keyring::note(&repository);
    Ok(Some(repository))
}

/// The same, read-only and as it was at `time`.
///
/// # Errors
/// As [`open_repository`]; `Unsupported` with `R0310` where no versions are kept, `Exhausted` with `R0313` where there are too many.
pub fn open_as_of(described: &manifest::Repository, time: Timestamp) -> Result<Repository> {
    let opening = || format!("open repository `{}` as of {time}", described.name);
    let address = address(described).with_context(opening)?;
    let store = open_store_as_of(&address, Some(time)).with_context(opening)?;
    match unlocked(&store, &described.password).with_context(opening)? {
        Some(repository) => Ok(repository),
        None => Repository::open(store, &secret(&described.password)?).with_context(opening),
    }
}

/// The locks of the repository's objects, where the manifest asks for some.
///
/// # Errors
/// `R0304` about the address; settings in the environment that cannot be used.
pub fn locks(described: &manifest::Repository) -> Result<Option<Locks>> {
    match (described.lock, address(described)?) {
        (Some(lock), Address::Remote(url)) => Locks::open(&url, lock).map(Some),
        _ => Ok(None),
    }
}

/// The password of the repository that the manifest describes: what its `password` names, where need be with the help of a transit
/// engine, or what the shares give that were offered.
///
/// # Errors
/// As [`open_repository`].
pub fn password(described: &manifest::Repository) -> Result<Secret<String>> {
    let store = || open_store(&address(described)?);
    match (unlock::offered(), &described.password) {
        (Some(shares), _) => Ok(shares::open(&store()?, &shares)?.1),
        (None, SecretRef::Transit(key)) => Ok(transit::open(&store()?, key)?.1),
        (None, other) => secret(other),
    }
}

/// Where the repository that a manifest describes lies. There, what follows `file://` is a path as it is; an address
/// that is given elsewhere has `%20` for a space.
///
/// # Errors
/// `R0304`.
pub fn address(described: &manifest::Repository) -> Result<Address> {
    described.folder().map_or_else(|| described.url.parse(), |folder| Ok(Address::Local(folder.to_owned())))
}

/// Opens the repository at `url` with all layers around its store.
///
/// # Errors
/// As [`open_repository`].
pub fn open_address(url: &str, password: &Secret<String>, create: bool) -> Result<Opened> {
    open_in(open_store(&url.parse()?)?, password, create)
}

fn open_in(store: BlockingStore, password: &Secret<String>, create: bool) -> Result<Opened> {
    let (repository, created) = if create {
        Repository::open_or_init(store, password)?
    } else {
        (Repository::open(store, password)?, false)
    };
    Ok(Opened { repository, created })
}

/// The store at `address` with all layers around it. Nothing is read yet, and no password is needed.
///
/// # Errors
/// `R0304` about the address.
pub fn open_store(address: &Address) -> Result<BlockingStore> {
    open_store_as_of(address, None)
}

/// The same, read-only and as it was, where a moment is given.
///
/// # Errors
/// As [`open_as_of`].
pub fn open_store_as_of(address: &Address, time: Option<Timestamp>) -> Result<BlockingStore> {
    let store = match time {
        Some(time) => store::as_of(address, time)?,
        None => store::open(address)?,
    };
    layered(store, None)
}

/// The store with all layers around it, and a cache in `cache` where that is a folder.
fn layered(store: Arc<dyn Store>, cache: Option<PathBuf>) -> Result<BlockingStore> {
    let layers = Layers { cache: cache.map(CacheSettings::metadata), ..layers()? };
    BlockingStore::new(stack(store, layers).store)
}

/// Where this host keeps index files and snapshots of the repository at `address`: in a folder named after it, below what the
/// environment names. `None` for one that is near, and where nothing is named.
fn cache_folder(address: &Address, variable: &dyn Fn(&str) -> Option<OsString>) -> Option<PathBuf> {
    let Address::Remote(url) = address else { return None };
    let folder = |name| variable(name).map(PathBuf::from).filter(|path| path.is_absolute());
    // The first is what systemd gives to a service that has `CacheDirectory=`.
    let ours = folder("CACHE_DIRECTORY").or_else(|| {
        let all = folder("XDG_CACHE_HOME").or_else(|| Some(folder("HOME")?.join(".cache")));
        Some(all?.join("retoma"))
    });
    let hash = BlobId::of(url.as_str().as_bytes()).to_hex();
    Some(ours?.join(&hash[..16]))
}

/// The default layers; a store that fails is tried again in a rhythm of its own, so that not all come back together.
fn layers() -> Result<Layers> {
    let mut seed = [0; 8];
    retoma_repo::crypto::random(&mut seed)?;
    Ok(Layers {
        retry: RetryPolicy { seed: u64::from_ne_bytes(seed), ..RetryPolicy::default() },
        ..Layers::default()
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    fn file(folder: &Path, text: &[u8], mode: u32) -> SecretRef {
        let path = folder.join("secret");
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        SecretRef::File(path)
    }

    #[test]
    fn a_secret_is_the_file_without_its_line_end() {
        let folder = tempfile::tempdir().unwrap();
        for (text, value) in [("a b\n", "a b"), ("x\r\n", "x"), ("x", "x"), (" x \n\n", " x \n")] {
            let read = secret(&file(folder.path(), text.as_bytes(), 0o640)).unwrap();
            assert_eq!(read.expose(), value);
        }
    }

    #[test]
    fn a_secret_that_is_no_secret_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let cases: [(&[u8], u32, &str); 5] = [
            (b"hunter2", 0o644, "everybody"),
            (b"hunter2", 0o602, "everybody"),
            (b"", 0o600, "is empty"),
            (b"\n", 0o600, "is empty"),
            (b"hunter2\xff", 0o600, "not UTF-8"),
        ];
        for (text, mode, why) in cases {
            let error = secret(&file(folder.path(), text, mode)).unwrap_err();
            let shown = format!("{error} {:?}", error.hint());
            assert_eq!(error.code(), codes::SECRET_MISSING);
            assert!(shown.contains(why) && !shown.contains("hunter2"), "{shown}");
        }
        let absent = SecretRef::File(folder.path().join("absent"));
        assert!(secret(&absent).unwrap_err().message().contains("is not there"));
        let unset = SecretRef::Env("RETOMA_TEST_NOT_SET".to_owned());
        assert!(secret(&unset).unwrap_err().message().contains("is not set"));
    }

    #[test]
    fn a_password_that_is_made_is_read_back_and_is_another_each_time() {
        let folder = tempfile::tempdir().unwrap();
        let make = |name: &str| {
            let path = folder.path().join(name);
            let made = make_password(&path).unwrap();
            let read = secret(&SecretRef::File(path)).unwrap();
            assert_eq!(read.expose(), made.expose());
            assert_eq!(made.expose().len(), 48);
            made.expose().clone()
        };
        assert_ne!(make("a"), make("b"));
    }

    #[test]
    fn each_store_waits_in_its_own_rhythm_before_it_tries_again() {
        let seed = || layers().unwrap().retry.seed;
        assert_ne!(seed(), seed());
    }

    #[test]
    fn a_far_repository_has_a_cache_of_its_own_and_a_near_one_has_none() {
        let folder = |url: &str, variables: &[(&str, &str)]| {
            let of = |name: &str| {
                variables.iter().find(|(known, _)| *known == name).map(|(_, value)| OsString::from(value))
            };
            cache_folder(&url.parse().unwrap(), &of)
        };
        let home = [("HOME", "/nobody")];
        let bucket = folder("s3://bucket/a", &home).unwrap();
        assert_eq!(bucket.parent(), Some(Path::new("/nobody/.cache/retoma")));
        assert_ne!(folder("s3://bucket/b", &home), Some(bucket.clone()));
        let xdg = [("HOME", "/nobody"), ("XDG_CACHE_HOME", "/x")];
        assert_eq!(
            folder("s3://bucket/a", &xdg),
            Some(Path::new("/x/retoma").join(bucket.file_name().unwrap()))
        );
        let service = [("CACHE_DIRECTORY", "/var/cache/retoma"), ("XDG_CACHE_HOME", "/x")];
        assert_eq!(folder("sftp://host/a", &service).unwrap().parent(), Some(Path::new("/var/cache/retoma")));
        for unusable in [&[][..], &[("HOME", "")], &[("HOME", "here")]] {
            assert_eq!(folder("s3://bucket/a", unusable), None, "{unusable:?}");
        }
        assert_eq!(folder("file:///backup", &home), None);
    }

    #[test]
    fn only_who_may_create_makes_a_repository() {
        let folder = tempfile::tempdir().unwrap();
        let url = format!("file://{}", folder.path().join("repository").display());
        let password = Secret::new("one".to_owned());
        assert_eq!(open_address(&url, &password, false).unwrap_err().code(), codes::NO_REPOSITORY);
        assert!(open_address(&url, &password, true).unwrap().created);
        assert!(!open_address(&url, &password, true).unwrap().created);
        let other = Secret::new("two".to_owned());
        assert_eq!(open_address(&url, &other, false).unwrap_err().code(), codes::WRONG_KEY);
    }

    #[test]
    fn what_a_manifest_says_after_the_scheme_is_a_path_as_it_is() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["a b", "a%20b", "100%", "#1", "what?"] {
            let described = manifest::Repository {
                name: "r".to_owned(),
                url: format!("file://{}/{name}", folder.path().display()),
                scheme: manifest::Scheme::File,
                password: file(folder.path(), b"a password", 0o600),
                copy_of: None,
                region: None,
                lock: None,
                price: None,
            };
            assert!(open_repository(&described, true).unwrap().created, "{name}");
            assert!(folder.path().join(name).join("config").exists(), "{name}");
        }
        let elsewhere = manifest::Repository {
            name: "r".to_owned(),
            url: "s3://bucket/a-b".to_owned(),
            scheme: manifest::Scheme::S3,
            password: file(folder.path(), b"a password", 0o600),
            copy_of: None,
            region: None,
            lock: None,
            price: None,
        };
        assert!(matches!(address(&elsewhere).unwrap(), Address::Remote(_)));
    }
}
