//! Data for servers to hold.

use super::{RedisServer, redis_command};
use crate::memory::noise;
use std::time::{SystemTime, UNIX_EPOCH};

/// Values of all types and encodings, small and large, in several databases, with and without expiry.
///
/// # Panics
/// When the server refuses a command.
pub fn fill_redis(server: &RedisServer) {
    let mut commands = Vec::new();
    let mut send = |words: &[&[u8]]| commands.extend(redis_command(words));
    let far = (now_ms() + 86_400_000).to_string();
    send(&[b"SET", b"text", b"hello"]);
    for number in ["0", "-7", "127", "-129", "32767", "-32769", "2147483647", "99999999999999"] {
        send(&[b"SET", format!("number:{number}").as_bytes(), number.as_bytes()]);
    }
    send(&[b"SET", b"compressed", &b"abcabcabd".repeat(10_000)]);
    send(&[b"SET", b"noise", &noise(3, 300_000)]);
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

/// The time in milliseconds, as Redis has it.
fn now_ms() -> u128 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_millis())
}
