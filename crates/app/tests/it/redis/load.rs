//! Writers whose every state is known from a number.

use retoma_testkit::{RedisClient, RedisServer, redis_command};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// So many clients write.
pub(super) const WRITERS: usize = 4;

/// Transaction `number` of a writer: what its keys hold after it is determined by the number alone.
fn transaction(writer: usize, number: u64) -> Vec<Vec<Vec<u8>>> {
    let key = |name: &str| format!("load:{writer}:{name}");
    let churned = key(&format!("key:{}", number % 500));
    let line = |line: String| line.split(' ').map(|word| word.as_bytes().to_vec()).collect();
    [
        format!("SET {} {number}", key("sequence")),
        format!("SET {churned} {number} PXAT {}", 32_000_000_000_000 + number),
        format!("DEL {}", key(&format!("key:{}", (number * 7 + 1) % 500))),
        format!("RPUSH {} {number}", key("list")),
        format!("LTRIM {} -200 -1", key("list")),
        format!("HSET {} {} {number}", key("hash"), number % 700),
        format!("ZADD {} {number} {}", key("zset"), number % 300),
        format!("SADD {} {}", key("set"), number % 900),
        format!("XADD {} MAXLEN = 100 {number}-1 n {number}", key("stream")),
    ]
    .map(line)
    .into()
}

/// Writers at work, until this is dropped or stopped.
pub(super) struct Load<'scope> {
    stop: &'scope AtomicBool,
    written: &'scope [AtomicU64; WRITERS],
}

impl<'scope> Load<'scope> {
    /// Starts them; each has written something when this returns.
    pub(super) fn start<'env>(
        scope: &'scope std::thread::Scope<'scope, 'env>,
        server: &'env RedisServer,
        stop: &'env AtomicBool,
        written: &'env [AtomicU64; WRITERS],
    ) -> Self {
        for (writer, written) in written.iter().enumerate() {
            scope.spawn(move || write(server, writer, stop, written));
        }
        let load = Self { stop, written };
        retoma_testkit::wait_for(|| load.numbers().iter().all(|it| *it > 600).then_some(()));
        load
    }

    /// How far each writer is: its last transaction that the server has confirmed.
    pub(super) fn numbers(&self) -> [u64; WRITERS] {
        self.written.each_ref().map(|number| number.load(Ordering::SeqCst))
    }
}

impl Drop for Load<'_> {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
    }
}

fn write(server: &RedisServer, writer: usize, stop: &AtomicBool, written: &AtomicU64) {
    let mut client = RedisClient::connect(server);
    for number in 1.. {
        if stop.load(Ordering::SeqCst) {
            return;
        }
        let whole =
            [vec![vec![b"MULTI".to_vec()]], transaction(writer, number), vec![vec![b"EXEC".to_vec()]]];
        client.pipeline(&whole.concat());
        written.store(number, Ordering::SeqCst);
    }
}

/// Whether a key is one that the writers write to.
pub(super) fn is_of_load(key: &[u8]) -> bool {
    key.starts_with(b"load:")
}

/// How many transactions of each writer `server` has seen.
pub(super) fn seen(server: &RedisServer) -> [u64; WRITERS] {
    std::array::from_fn(|writer| {
        let number = server.cli(&["GET", &format!("load:{writer}:sequence")]);
        number.parse().unwrap_or(0)
    })
}

/// The first transactions of each writer, on a server of their own: what any server must hold after them.
pub(super) fn replayed(numbers: [u64; WRITERS]) -> RedisServer {
    let server = RedisServer::start().unwrap();
    for (writer, number) in numbers.into_iter().enumerate() {
        let all = (1..=number).flat_map(|number| transaction(writer, number));
        server.pipe(&all.flat_map(|words| redis_command(&words)).collect::<Vec<u8>>());
    }
    server
}
