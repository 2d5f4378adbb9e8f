//! A store in a folder of another machine, over SFTP.
//!
//! The connection is the system's `ssh` ([`ssh`]), the protocol is spoken here ([`session`], [`wire`]). An object is a
//! file with mode 0600 at its name below the root; folders are made when needed, with mode 0700. Some connections are
//! shared by all calls; one that broke is opened anew by the next call.
//!
//! Writing needs three extensions that OpenSSH has: without `fsync` nothing is durable, without `hardlink` two writers
//! may both win, without `posix-rename` readers see gaps. A server that lacks one is read, and refused for writes.
//!
//! Not done here: repeated attempts, checks of what is read, and any decision about host keys and logins.

mod failure;
mod files;
mod pool;
mod session;
mod ssh;
mod target;
mod walk;
mod wire;
mod write;

use super::{Capabilities, Key, Leftovers, ObjectMeta, PutMode, Store, error};
use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::{BoxStream, StreamExt as _};
use jiff::Timestamp;
use pool::Pool;
use retoma_core::{Error, Result};
use session::{Failure, Session};
use std::collections::HashSet;
use std::fmt::Display;
use std::future::Future;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use target::Target;
use url::Url;
use wire::Attributes;

/// The variable with the command that is run in the place of `ssh`.
pub const COMMAND_VARIABLE: &str = "RETOMA_SSH_COMMAND";

/// How the server is reached, beyond its address.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SftpOptions {
    /// Run in the place of `ssh`, as a shell reads it, with our arguments behind its own: `ssh -F /etc/retoma/ssh`.
    pub command: Option<String>,
}

impl SftpOptions {
    /// What the environment says in [`COMMAND_VARIABLE`].
    pub fn from_environment() -> Self {
        let command = std::env::var(COMMAND_VARIABLE).ok().filter(|command| !command.trim().is_empty());
        Self { command }
    }
}

/// A [`Store`] on an SFTP server. Cheap to clone.
#[derive(Debug, Clone)]
pub struct SftpStore {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    target: Target,
    location: String,
    pool: Pool,
    /// Folders (by name; `""` is the root) that this process saw there, and whose own names it synced.
    durable: Mutex<HashSet<String>>,
    /// Whether something was read or written here: then the root was there, and is not made.
    is_there: AtomicBool,
}

impl SftpStore {
    /// The store at `url`: `sftp://[user@]host[:port]/path`. Nothing is connected yet.
    ///
    /// # Errors
    /// `Invalid` for a password in the address, and for what is no address.
    pub fn new(url: &Url, options: SftpOptions) -> Result<Self> {
        let target = Target::parse(url)?;
        Ok(Self {
            inner: Arc::new(Inner {
                pool: Pool::new(target.clone(), options.command),
                target,
                location: url.to_string(),
                durable: Mutex::default(),
                is_there: AtomicBool::new(false),
            }),
        })
    }

    /// Runs `work` with a connection. If the caller goes away, the work still ends, and closes what it opened.
    async fn run<T, F, W>(&self, work: F) -> Result<T>
    where
        T: Send + 'static,
        F: FnOnce(Arc<Inner>, Arc<Session>) -> W + Send + 'static,
        W: Future<Output = Result<T>> + Send,
    {
        let inner = self.inner.clone();
        let task = tokio::spawn(async move {
            let lease = inner.pool.lease().await.map_err(|failure| inner.failed("/", &failure))?;
            work(inner.clone(), lease.session.clone()).await
        });
        task.await.map_err(|error| Error::internal(format!("work on a connection did not end: {error}")))?
    }
}

impl Inner {
    fn failed(&self, what: impl Display, failure: &Failure) -> Error {
        failure::error(&self.location, what, failure)
    }

    async fn read(&self, session: &Session, key: &Key, range: Option<Range<u64>>) -> Result<Bytes> {
        let failed = |failure: Failure| self.failed(key, &failure);
        let handle = session.open(self.target.path(key.as_str()), wire::READ).await.map_err(failed)?;
        let outcome = async {
            let attributes = session.file_status(&handle).await.map_err(failed)?;
            let size_bytes = self.object_size(key, &attributes)?;
            let range = range.unwrap_or(0..size_bytes);
            if range.start > range.end {
                return Err(error::reversed(key, &range));
            }
            if range.end > size_bytes {
                return Err(error::short(&self.location, key, &range, size_bytes));
            }
            let data = session.read(&handle, range.clone()).await.map_err(failed)?;
            data.ok_or_else(|| error::short(&self.location, key, &range, size_bytes))
        };
        let outcome = outcome.await;
        session.close(handle).await;
        outcome
    }

    /// A folder is no object.
    fn object_size(&self, key: &Key, attributes: &Attributes) -> Result<u64> {
        match attributes.size_bytes {
            Some(size_bytes) if attributes.is_file() => {
                self.is_there.store(true, Ordering::Relaxed);
                Ok(size_bytes)
            }
            _ => Err(error::not_found(&self.location, key)),
        }
    }

    async fn head(&self, session: &Session, key: &Key) -> Result<ObjectMeta> {
        let path = self.target.path(key.as_str());
        let attributes = session.status(path).await.map_err(|failure| self.failed(key, &failure))?;
        self.object_size(key, &attributes)?;
        Ok(walk::object_meta(key.clone(), &attributes))
    }
}

#[async_trait]
impl Store for SftpStore {
    fn location(&self) -> String {
        self.inner.location.clone()
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities { conditional_create: true, delete: true, versions: false, far: true }
    }

    async fn put(&self, key: &Key, data: Bytes, mode: PutMode) -> Result<()> {
        let key = key.clone();
        self.run(move |inner, session| async move { write::put(&inner, &session, &key, &data, mode).await })
            .await
    }

    async fn get(&self, key: &Key) -> Result<Bytes> {
        let key = key.clone();
        self.run(move |inner, session| async move { inner.read(&session, &key, None).await }).await
    }

    async fn get_range(&self, key: &Key, range: Range<u64>) -> Result<Bytes> {
        let key = key.clone();
        self.run(move |inner, session| async move { inner.read(&session, &key, Some(range)).await }).await
    }

    async fn head(&self, key: &Key) -> Result<ObjectMeta> {
        let key = key.clone();
        self.run(move |inner, session| async move { inner.head(&session, &key).await }).await
    }

    fn list<'a>(&'a self, folder: &'a str) -> BoxStream<'a, Result<ObjectMeta>> {
        walk::objects(self, folder).boxed()
    }

    async fn delete(&self, key: &Key) -> Result<()> {
        let key = key.clone();
        self.run(move |inner, session| async move { write::delete(&inner, &session, &key).await }).await
    }

    async fn remove_leftovers(&self, modified_before: Timestamp) -> Result<Leftovers> {
        self.run(move |inner, session| async move {
            walk::remove_leftovers(&inner, &session, modified_before).await
        })
        .await
    }
}
