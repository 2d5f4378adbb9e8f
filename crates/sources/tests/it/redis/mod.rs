//! Redis, against real servers: captured, put back, compared.

mod capture;
mod check;
mod hostile;
mod load;
mod login;
mod refused;

use retoma_core::Secret;
use retoma_repo::backup::{Options, Progress, Summary, backup};
use retoma_repo::store::{BlockingStore, LocalStore, Store};
use retoma_repo::{Error, Repository, Result, restore};
use retoma_sources::redis::{Address, RedisFacts, RedisSource, facts_of};
use retoma_testkit::{Folder, RedisOptions, RedisServer, fill_redis as fill};
use std::path::{Path, PathBuf};
use std::sync::Arc;

const PASSWORD: &str = "correct horse";

/// A repository in a folder of its own.
struct Home {
    folder: Folder,
    repository: Repository,
}

impl Home {
    fn new() -> Self {
        Self::over(|store| store)
    }

    fn over<S: Store + 'static>(wrap: impl FnOnce(Arc<LocalStore>) -> Arc<S>) -> Self {
        let folder = Folder::new();
        let local = Arc::new(LocalStore::new(folder.join("repository")).unwrap());
        let store = BlockingStore::new(wrap(local)).unwrap();
        let repository = Repository::init(store, &Secret::new(PASSWORD.to_owned())).unwrap();
        Self { folder, repository }
    }

    fn try_back_up(&self, url: &str, previous: Option<RedisFacts>) -> Result<(Summary, RedisFacts)> {
        let mut source = RedisSource::begin(&address(url), "cache", previous)?;
        let options = Options { paths: source.paths(), ..Options::default() };
        let summary = backup(&self.repository, &mut source, &options, &Progress::default())?;
        assert!(summary.unreadable.is_empty(), "{:?}", summary.unreadable);
        let facts = source.facts().unwrap().clone();
        let index = self.repository.load_index().unwrap();
        assert_eq!(facts_of(&self.repository, &index, &summary.tree).unwrap(), Some(facts.clone()));
        Ok((summary, facts))
    }

    fn back_up(&self, server: &RedisServer) -> (Summary, RedisFacts) {
        self.try_back_up(&server.url(), None).unwrap()
    }

    /// Puts the component's folder into `target`.
    fn restore(&self, summary: &Summary, target: &Path) {
        let index = self.repository.load_index().unwrap();
        let options = restore::Options {
            paths: vec![b"/cache".to_vec()],
            strip: Some(b"/cache".to_vec()),
            ..restore::Options::default()
        };
        let plan = restore::plan(&self.repository, &index, summary.tree, &options, target).unwrap();
        let outcome = restore::apply(plan, &Progress::default()).unwrap();
        assert!(outcome.failed.is_empty(), "{:?}", outcome.failed);
    }

    fn copy(&self, summary: &Summary, name: &str) -> PathBuf {
        let target = self.folder.join(name);
        self.restore(summary, &target);
        target
    }

    /// A real server on what came back.
    fn server(&self, summary: &Summary) -> RedisServer {
        let mut server =
            RedisServer::restored(RedisOptions::default(), |data| self.restore(summary, data)).unwrap();
        server.go();
        server
    }

    fn snapshots(&self) -> usize {
        self.repository.snapshots().unwrap().len()
    }
}

/// An address without anything of this machine's environment.
fn address(url: &str) -> Address {
    Address::parse(url, None).unwrap()
}

/// A failure as its code and kind.
fn code(error: &Error) -> String {
    format!("{} {:?}", error.code(), error.kind())
}

/// A data set's own sum by the server itself, over every database, key and value, whatever its encoding; and one over
/// the times at which keys expire, which the first knows only as there or not.
fn state(server: &RedisServer) -> (String, Vec<String>) {
    const EXPIRY: &str = "local sum = 0 for _, key in ipairs(redis.call('KEYS', '*')) do \
        local hash = redis.sha1hex(key .. ':' .. redis.call('PEXPIRETIME', key)) \
        sum = (sum + tonumber(string.sub(hash, 1, 12), 16)) % 281474976710656 end return tostring(sum)";
    let expiry = |database: u32| server.cli(&["-n", &database.to_string(), "EVAL", EXPIRY, "0"]);
    (server.cli(&["DEBUG", "DIGEST"]), (0..16).map(expiry).collect())
}
