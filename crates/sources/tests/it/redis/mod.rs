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
use retoma_testkit::{Folder, RedisOptions, RedisServer, redis_command};
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

/// Values of all types and encodings, small and large, in several databases, with and without expiry.
fn fill(server: &RedisServer) {
    let mut commands = Vec::new();
    let mut send = |words: &[&[u8]]| commands.extend(redis_command(words));
    let far = (jiff_ms() + 86_400_000).to_string();
    send(&[b"SET", b"text", b"hello"]);
    for number in ["0", "-7", "127", "-129", "32767", "-32769", "2147483647", "99999999999999"] {
        send(&[b"SET", format!("number:{number}").as_bytes(), number.as_bytes()]);
    }
    send(&[b"SET", b"compressed", &b"abcabcabd".repeat(10_000)]);
    send(&[b"SET", b"noise", &retoma_testkit::noise(3, 300_000)]);
    send(&[b"SET", b"", b""]);
    send(&[b"SET", b"\x00\xff\r\n", b"\r\n$5\x00\xff"]);
    send(&[b"SET", &b"long name ".repeat(300), b"x"]);
    send(&[b"SET", b"expires", b"later", b"PXAT", far.as_bytes()]);
    for (count, width) in [(3usize, 8usize), (2_000, 100)] {
        for at in 0..count {
            let (at, value) = (at.to_string(), format!("{at:0>width$}"));
            let name = |kind: &str| format!("{kind}:{count}").into_bytes();
            send(&[b"RPUSH", &name("list"), value.as_bytes(), at.as_bytes(), b"-5000", b"-9000000"]);
            send(&[b"SADD", &name("set"), value.as_bytes()]);
            send(&[b"SADD", &name("intset"), at.as_bytes(), b"-3000000000"]);
            send(&[b"HSET", &name("hash"), at.as_bytes(), value.as_bytes(), value.as_bytes(), at.as_bytes()]);
            send(&[b"ZADD", &name("zset"), format!("{at}.25").as_bytes(), value.as_bytes()]);
            send(&[b"ZADD", &name("zset"), b"-inf", b"low", b"+inf", b"high", b"3", b"three"]);
            send(&[
                b"XADD",
                &name("stream"),
                format!("{at}-1").as_bytes(),
                b"field",
                value.as_bytes(),
                b"n",
                at.as_bytes(),
            ]);
        }
        let stream = format!("stream:{count}").into_bytes();
        send(&[b"XGROUP", b"CREATE", &stream, b"readers", b"0"]);
        send(&[b"XREADGROUP", b"GROUP", b"readers", b"ana", b"COUNT", b"2", b"STREAMS", &stream, b">"]);
        send(&[b"XDEL", &stream, b"0-1"]);
        send(&[b"PEXPIREAT", format!("hash:{count}").as_bytes(), far.as_bytes()]);
    }
    // A list with an element so long that it has a node of its own; a hash that has shrunk.
    send(&[b"RPUSH", b"plain", &b"y".repeat(20_000), b"short"]);
    for at in 0..600 {
        send(&[b"HSET", b"shrunk", at.to_string().as_bytes(), b"v"]);
    }
    for at in 3..600 {
        send(&[b"HDEL", b"shrunk", at.to_string().as_bytes()]);
    }
    for database in ["1", "9"] {
        send(&[b"SELECT", database.as_bytes()]);
        send(&[b"SET", b"text", database.as_bytes()]);
        send(&[b"SET", b"soon", b"x", b"PXAT", far.as_bytes()]);
    }
    send(&[
        b"FUNCTION",
        b"LOAD",
        b"#!lua name=ours\nredis.register_function('two', function() return 2 end)",
    ]);
    server.pipe(&commands);
}

fn jiff_ms() -> u128 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_millis()
}
