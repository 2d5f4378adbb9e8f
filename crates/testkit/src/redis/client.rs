//! A client of the test's own, for many commands: it shares nothing with the program's.

use super::{RedisServer, redis_command};
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::time::Duration;

/// What a server answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RedisReply {
    /// A text, of whichever form.
    Text(Vec<u8>),
    /// A complaint.
    Error(String),
    /// A number.
    Number(i64),
    /// Nothing.
    Nil,
    /// Several.
    Many(Vec<RedisReply>),
}

impl RedisReply {
    /// The text.
    ///
    /// # Panics
    /// When it is something else.
    #[track_caller]
    #[allow(clippy::panic)]
    pub fn text(self) -> Vec<u8> {
        if let Self::Text(text) = self { text } else { panic!("no text: {self:?}") }
    }

    /// The number.
    ///
    /// # Panics
    /// When it is something else.
    #[track_caller]
    #[allow(clippy::panic)]
    pub fn number(self) -> i64 {
        if let Self::Number(number) = self { number } else { panic!("no number: {self:?}") }
    }

    /// Each of several.
    ///
    /// # Panics
    /// When it is something else.
    #[track_caller]
    #[allow(clippy::panic)]
    pub fn many(self) -> Vec<Self> {
        if let Self::Many(many) = self { many } else { panic!("not several: {self:?}") }
    }
}

/// A connection by the server's socket.
#[derive(Debug)]
pub struct RedisClient(BufReader<UnixStream>);

impl RedisClient {
    /// To a server without a password.
    ///
    /// # Panics
    /// When it does not answer.
    #[allow(clippy::expect_used)]
    pub fn connect(server: &RedisServer) -> Self {
        let stream = UnixStream::connect(server.socket()).expect("connect to Redis");
        stream.set_read_timeout(Some(Duration::from_mins(2))).expect("set a deadline");
        Self(BufReader::new(stream))
    }

    /// Sends a command; gives its answer.
    ///
    /// # Panics
    /// When the connection breaks, or the answer is an error.
    #[track_caller]
    #[allow(clippy::expect_used)]
    pub fn call(&mut self, words: &[impl AsRef<[u8]>]) -> RedisReply {
        self.pipeline(&[words.iter().map(|word| word.as_ref().to_vec()).collect()]).pop().expect("one answer")
    }

    /// Sends commands at once; gives their answers.
    ///
    /// # Panics
    /// When the connection breaks, or an answer is an error.
    #[track_caller]
    #[allow(clippy::expect_used)]
    pub fn pipeline(&mut self, commands: &[Vec<Vec<u8>>]) -> Vec<RedisReply> {
        let bytes: Vec<u8> = commands.iter().flat_map(|words| redis_command(words)).collect();
        self.0.get_mut().write_all(&bytes).expect("send commands to Redis");
        let answers: Vec<RedisReply> = commands.iter().map(|_| self.reply()).collect();
        for answer in &answers {
            assert!(!matches!(answer, RedisReply::Error(_)), "{answer:?}");
        }
        answers
    }

    #[allow(clippy::panic, clippy::expect_used)]
    fn reply(&mut self) -> RedisReply {
        let mut line = String::new();
        self.0.read_line(&mut line).expect("read from Redis");
        let line = line.trim_end();
        let number = || line[1..].parse::<i64>().expect("a number");
        match line.as_bytes().first() {
            Some(b'+') => RedisReply::Text(line[1..].into()),
            Some(b'-') => RedisReply::Error(line.to_owned()),
            Some(b':') => RedisReply::Number(number()),
            Some(b'$' | b'*') if number() < 0 => RedisReply::Nil,
            Some(b'$') => {
                let mut bytes = vec![0; usize::try_from(number()).expect("a length") + 2];
                self.0.read_exact(&mut bytes).expect("read from Redis");
                bytes.truncate(bytes.len() - 2);
                RedisReply::Text(bytes)
            }
            Some(b'*') => RedisReply::Many((0..number()).map(|_| self.reply()).collect()),
            _ => panic!("Redis says `{line}`"),
        }
    }
}
